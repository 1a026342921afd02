"""Tables for the terminal: checks, scores, blends, the board, benchmarks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from competition.bench.measure import Row
from competition.common.console import printable
from competition.common.errors import Command
from competition.data.check import Findings
from competition.data.faults import Fault
from competition.runs.blends import Blend

PLACES = 10  # lines, Ids or files listed per fault
BOARD_COLUMNS = {
    "name": "name",
    "kind": "kind",
    "folds": "folds",
    "epochs": "epochs",
    "best_epoch": "best\nepoch",
    "out_of_fold": "out of\nfold",
    "out_of_fold_rank": "#",
    "all": "test",
    "public": "public",
    "public_rank": "#",
    "private": "private",
    "private_rank": "#",
}
DETAILS = ("kind", "epochs", "best_epoch")  # left out on narrow terminals
WIDE = 100  # characters


def facts_table(title: str, facts: dict[str, dict[str, str]], complete: Callable[[str], str]) -> Table:
    """Show facts by section; `complete` completes the commands in them."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for section, of_section in facts.items():
        for index, (name, fact) in enumerate(of_section.items()):
            table.add_row("" if index else section, *map(Text, (name, complete(fact))))  # names may look like markup
        table.add_section()
    return table


def faults_table(
    problems: Sequence[Fault], warnings: Sequence[Fault], root: Path, complete: Callable[[str], str]
) -> Table:
    """Show problems and warnings: what, where under `root` (the first places of each), and what to do."""
    table = Table(show_lines=True, expand=True)
    for heading, ratio in (("", None), ("what", 3), ("where", 5), ("what to do", 3)):
        table.add_column(heading, ratio=ratio, overflow="fold")
    for kind, faults in (("problem", problems), ("warning", warnings)):
        for fault in faults:
            more = f" and {len(fault.places) - PLACES:,} more" if len(fault.places) > PLACES else ""
            places = f", {len(fault.places):,}: {', '.join(fault.places[:PLACES])}{more}" if fault.places else ""
            where = str(fault.where).removeprefix(f"{root}/")
            table.add_row(kind, *map(Text, (fault.what, f"{where}{places}", complete(fault.fix))))
    return table


def findings_json(found: Findings, render: Callable[[Command], str]) -> dict[str, object]:
    """Return the findings of `check` as a JSON object."""
    problems, warnings = (
        [{"what": fault.what, "where": str(fault.where), "fix": fault.fix} for fault in faults]
        for faults in (found.problems, found.warnings)
    )
    return {"problems": problems, "warnings": warnings, "facts": found.facts}


def score_table(title: str, scores: dict[str, Any]) -> Table:
    """Show MPJPE in mm by joint and action, and the mean absolute error by axis."""
    table = Table(title=f"{title}, mm", title_justify="left")
    for heading in ("joint", "action", "axis (mean |error|)"):
        table.add_column(heading)
        table.add_column("mm", justify="right")
    columns = [list(scores[key].items()) for key in ("joint", "action", "axis")]
    for index in range(max(map(len, columns))):
        cells = [pairs[index] if index < len(pairs) else ("", None) for pairs in columns]
        table.add_row(*(text for name, value in cells for text in (name, _mm(value))))
    return table


def blend_table(blend: Blend) -> Table:
    """Compare the methods of a blend: MPJPE in mm on the out-of-fold rows that the weights were fitted on."""
    candidates = printable(", ".join(blend.candidates))
    table = Table(
        title=f"{candidates}: {blend.n_rows:,} out-of-fold rows, MPJPE in mm", title_justify="left",
        caption="nested: on groups not used for fitting the weights, corrected for fitting on fewer groups",
        caption_justify="left",
    )  # fmt: skip
    table.add_column("method")
    for heading in ("in sample", "nested", "seconds"):
        table.add_column(heading, justify="right")
    for row in blend.table:
        table.add_row(row.method, _mm(row.mpjpe_in_sample), _mm(row.mpjpe_nested), _mm(row.seconds))
    return table


def board_table(rows: list[dict[str, Any]], width: int = WIDE) -> Table:
    """Show runs and blends, MPJPE in mm; terminals narrower than WIDE show fewer columns."""
    hidden = (
        "" if width >= WIDE else f"\nterminals of at least {WIDE} columns also show kind and epochs; so does --json"
    )
    caption = (
        "out of fold: a run at its best epoch; a blend nested if possible, otherwise without a rank and on the rows "
        "that its weights were fitted on\n"
        "# is the rank; equal scores share a rank (Kaggle puts the earlier submission first)"
    ) + hidden
    table = Table(
        title="MPJPE in mm", title_justify="left", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    columns = {key: heading for key, heading in BOARD_COLUMNS.items() if width >= WIDE or key not in DETAILS}
    for key, heading in columns.items():
        if key in ("name", "kind"):  # these wrap on narrow terminals; scores are never cut
            table.add_column(heading, overflow="fold", vertical="bottom")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if row["folds"] is not None and row["of_folds"] not in (None, row["folds"]):
            row = row | {"folds": f"{row['folds']} of {row['of_folds']}"}
        cells = [_mm(row[key]) if isinstance(row[key], float) else _text(row[key]) for key in columns]
        styles = [_board_style(key, row) for key in columns]
        table.add_row(*(Text(cell, style) for cell, style in zip(cells, styles, strict=True)))
    return table


def _board_style(key: str, row: dict[str, Any]) -> str:
    """Mark the lowest score of a column, runs with missing folds, and names with a link into the report."""
    if key == "name":
        return f"link {row['link']}" if row.get("link") else ""
    if key == "folds":
        return "yellow" if isinstance(row[key], str) else ""
    return "bold green" if row.get(f"{key.removesuffix('_rank')}_rank") == 1 else ""


def poster_table(rows: list[dict[str, Any]], data: str) -> Table:
    """Show the poster's table beside this reproduction: errors in mm, and ratios to the best single model."""
    caption = f"the poster was measured on Human3.6M, this reproduction on {data}: compare ratios, not mm"
    table = Table(
        title="the poster and its reproduction", title_justify="left", caption=caption, caption_justify="left"
    )
    columns = {
        "name": "model", "setting": "setting", "poster": "poster mm", "poster_ratio": "poster ratio",
        "out_of_fold": "out of fold", "test": "test", "ratio": "ratio",
    }  # fmt: skip
    for key, heading in columns.items():
        table.add_column(heading, justify="left" if key in ("name", "setting") else "right")
    for row in rows:
        table.add_row(*(row[key] if isinstance(row[key], str) else _ratio(key, row[key]) for key in columns))
    return table


def bench_table(rows: Sequence[Row]) -> Table:
    """Show benchmark results; a ratio above 1 means that this implementation is better."""
    title = "this implementation compared with baselines; ratio above 1: this implementation is better"
    table = Table(title=title, title_justify="left")
    for heading in ("benchmark", "this", "baseline", "unit", "ratio", "note"):
        table.add_column(heading, justify="left" if heading in ("benchmark", "unit", "note") else "right")
    for row in rows:
        table.add_row(row.name, f"{row.ours:.4g}", f"{row.reference:.4g}", row.unit, f"{row.ratio:.2f}", row.note)
    return table


def _mm(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _ratio(key: str, value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if "ratio" in key else f"{value:.2f}"


def _text(value: object) -> str:
    return "" if value is None else printable(str(value))
