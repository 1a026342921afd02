"""Tables of a study for the terminal."""

from typing import Final

from rich.table import Table
from rich.text import Text

from competition.common.console import printable
from competition.runs.studies import BEST_SHARE, Study, describe_params

MOST_TRIALS: Final = 5


def trials_table(study: Study) -> Table:
    """Show the best completed trials and the one with the recipe's own values, and count the others."""
    complete = sorted((one for one in study.trials if one.mpjpe is not None), key=lambda one: one.mpjpe or 0.0)
    shown = complete[:MOST_TRIALS]
    if study.own is not None and study.own not in shown:
        shown.append(study.own)
    counts = ", ".join(
        f"{study.count(state)} {state}" for state in ("complete", "pruned", "failed") if study.count(state)
    )
    table = Table(
        title=f"study {study.name}: {len(study.trials)} trials ({counts}), out of fold, MPJPE in mm",
        title_justify="left",
    )
    for heading in ("trial", "MPJPE"):
        table.add_column(heading, justify="right")
    table.add_column("settings")
    for one in shown:
        own = "the recipe's own: " if one.own_values else ""
        table.add_row(str(one.number), f"{one.mpjpe:.2f}", Text(printable(own + describe_params(one.params))))
    return table


def importance_table(study: Study) -> Table:
    """Show how important each setting was, in percent."""
    table = Table(
        title="importance of the settings", title_justify="left",
        caption=f"for being among the best {BEST_SHARE:.0%} of the completed trials (PED-ANOVA); of few trials, it is "
        "uncertain", caption_justify="left",
    )  # fmt: skip
    table.add_column("setting")
    table.add_column("%", justify="right")
    for name, share in study.importance.items():
        table.add_row(Text(printable(name)), f"{100 * share:.0f}")
    return table
