"""Shows the studies of settings: history, importance, slices."""

from dataclasses import replace
from typing import Final

from competition.common.errors import UserError
from competition.report.blocks import Block, Chart, Pairs, Paragraph, Section, Table, skipped
from competition.report.charts import Figure, Series, bars, points
from competition.report.evidence import Evidence
from competition.runs.studies import BEST_SHARE, SHOWN, Study, describe_params, read_study, study_folders, value_text

MOST_STUDIES: Final = 3
MOST_SLICES: Final = 12
HOVER: Final = "%{text}: %{y:.2f} mm"


def studies(evidence: Evidence) -> Section:
    """Draw the history of each study, the importance of its settings, and the errors by setting."""
    key, title = "studies", "Studies of settings"
    folders = study_folders(evidence.workspace.submissions)
    if not folders:
        return skipped(key, title, "No settings have been searched: the command tune does it.")
    blocks: list[Block] = []
    for number, folder in enumerate(folders[:MOST_STUDIES]):
        try:
            study = read_study(folder)
        except UserError as error:
            blocks.append(Paragraph(f"{folder.name} can't be read ({error}).", style="skipped"))
            continue
        blocks += _draw(study, f"study{number}") if study.best else [_introduce(study)]
    if (rest := len(folders) - MOST_STUDIES) > 0:
        blocks.append(Paragraph(f"{rest} more {'study is' if rest == 1 else 'studies are'} not shown."))
    return Section(key=key, title=title, blocks=blocks)


def _introduce(study: Study) -> Paragraph:
    counts = ", ".join(
        f"{study.count(state)} {state}" for state in ("complete", "pruned", "failed", "running") if study.count(state)
    )
    folds = ", ".join(map(str, study.config.folds))
    return Paragraph(
        f"Study {study.name}: {len(study.trials)} trials of {study.config.model} ({counts}), judged by the "
        f"out-of-fold error of fold {folds}.",
        style="strong",
    )


def _draw(study: Study, name: str) -> list[Block]:
    best, own = study.best, study.own
    assert best is not None
    gain = "" if own is None or own is best else f"; the recipe's own values have {own.mpjpe:.2f} mm"
    text = (
        f"The best is trial {best.number} with {best.mpjpe:.2f} mm{gain}. This error is optimistic, as the "
        "trial was chosen by it."
    )
    history = [("History", _history(study, name, text))]
    if study.importance:
        history.append(("Importance of the settings", _importance(study, name)))
    slices = [
        (setting, _slice(study, setting, f"{name}slice{place}"))
        for place, setting in enumerate([*study.importance][:MOST_SLICES])
    ]
    return [_introduce(study), Paragraph(text), Pairs(charts=history), *([Pairs(charts=slices)] if slices else [])]


def _history(study: Study, name: str, text: str) -> Chart:
    series = []
    for state in ("complete", "pruned"):
        found = [trial for trial in study.trials if trial.state == state and trial.last_mm is not None]
        if found:
            series.append(
                Series(
                    name="completed" if state == "complete" else "pruned, last error",
                    x=[trial.number for trial in found],
                    y=[trial.last_mm for trial in found],
                    text=[f"trial {trial.number}" for trial in found],
                    style=0 if state == "complete" else 3,
                )
            )
    rows = [
        (trial.number, trial.mpjpe, trial.state, trial.last_mm, describe_params(trial.params)) for trial in study.trials
    ]
    return Chart(
        name=f"{name}history",
        figure=_whole(
            _limited(points(series, x_title="trial", y_title="out-of-fold MPJPE, mm", hover=HOVER), study),
            len(study.trials),
        ),
        alternative=f"Out-of-fold error of {len(study.trials)} trials. {text}",
        numbers=Table(
            caption=f"Trials of {study.name}, MPJPE in mm",
            headings=("trial", "out of fold", "state", "last epoch", "settings"),
            rows=rows,
        ),
    )


def _importance(study: Study, name: str) -> Chart:
    names, shares = [*study.importance], [100 * share for share in study.importance.values()]
    return Chart(
        name=f"{name}importance",
        figure=bars(names, shares, f"importance for the best {BEST_SHARE:.0%}, %"),
        alternative=f"The most important setting is {names[0]} with {shares[0]:.0f} %; of few trials, it is uncertain.",
        numbers=Table(
            caption="Importance, %", headings=("setting", "%"), rows=list(zip(names, shares, strict=True)), digits=0
        ),
    )


def _limited(figure: Figure, study: Study) -> Figure:
    """Limit the errors that a chart shows; its table has all."""
    highest = study.highest_shown
    errors_mm = [trial.last_mm for trial in study.trials if trial.last_mm is not None]
    if highest is None or max(errors_mm) <= highest:
        return figure
    return replace(figure, yaxis=figure.yaxis | {"range": [0.95 * highest / SHOWN, highest]})


def _whole(figure: Figure, trials: int) -> Figure:
    """Number the x axis by whole trials."""
    return replace(figure, xaxis=figure.xaxis | {"tickformat": "d", "dtick": max(1, round(trials / 10))})


def _slice(study: Study, setting: str, name: str) -> Chart:
    """Draw the last errors of all trials by one setting."""
    found = [one for one in study.trials if setting in one.params and one.last_mm is not None]
    numeric = study.is_numeric(setting)
    series = []
    for state, style in (("complete", 0), ("pruned", 3)):
        of_state = [one for one in found if one.state == state]
        if of_state:
            x = [one.params[setting] if numeric else value_text(one.params[setting]) for one in of_state]
            series.append(
                Series(
                    name="completed" if state == "complete" else "pruned",
                    x=x,
                    y=[one.last_mm for one in of_state],
                    text=[f"trial {one.number}, {value_text(one.params[setting])}" for one in of_state],
                    style=style,
                )
            )
    figure = _limited(points(series, x_title=setting, y_title="MPJPE, mm", hover=HOVER, height=240), study)
    if numeric:
        figure.xaxis["type"] = "log" if study.is_logarithmic(setting) else "linear"
    else:
        figure.xaxis.update({"type": "category", "categoryorder": "array", "categoryarray": study.words(setting)})
    rows = sorted(((value_text(one.params[setting]), one.last_mm) for one in found), key=lambda row: row[1] or 0.0)
    return Chart(
        name=name,
        figure=figure,
        alternative=f"Errors by {setting}; the lowest, {rows[0][1]:.2f} mm, is at {rows[0][0]}.",
        numbers=Table(caption=f"Errors by {setting}, mm", headings=(setting, "last error"), rows=rows),
    )
