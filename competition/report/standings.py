"""Compares runs and blends: the board, learning curves, the poster's table, out-of-fold errors against scores."""

from dataclasses import replace
from typing import Final

from markupsafe import Markup

from competition.leaderboard.board import BoardRow
from competition.report.blocks import Block, Chart, Paragraph, Section, Table, skipped
from competition.report.charts import Series, identity, points
from competition.report.evidence import Evidence
from competition.report.links import ANCHOR
from competition.report.poster import POSTER, POSTER_MEAN_MM
from competition.runs.candidates import best_epoch
from competition.runs.folders import fold_folders
from competition.runs.record import read_config

PARTS: Final = {"all": "test, all", "public": "public", "private": "private"}


def curves(evidence: Evidence) -> Section:
    """Draw the validation MPJPE of every run by epoch, over the rows of all its folds."""
    key, title = "curves", "Learning curves"
    series, rows = [], []
    for style, run in enumerate(evidence.runs):
        of_run = [c for c in evidence.candidates if c.run == run and c.valid_mpjpe is not None]
        best = best_epoch(of_run)
        if best is not None:
            sizes = [13 if c is best else 7 for c in of_run]
            series.append(
                Series(
                    name=run, x=[c.epoch for c in of_run], y=[c.valid_mpjpe for c in of_run], sizes=sizes, style=style
                )
            )
            rows += [(run, c.epoch, c.valid_mpjpe) for c in of_run]
    if not series:
        return skipped(key, title, "No run has logged an epoch in all its folds.")
    figure = points(series, x_title="epoch", y_title="out-of-fold MPJPE, mm", lines=True)
    last = max(row[1] for row in rows)
    ticks = {"range": [0.5, last + 0.5], "tick0": 0, "dtick": 1 if last <= 8 else max(1, last // 8)}
    figure = replace(figure, xaxis=figure.xaxis | ticks)
    lowest = min(rows, key=lambda row: row[2] or 0.0)
    alternative = f"Validation error of {len(series)} runs by epoch; the lowest is {lowest[2]:.2f} mm, "
    alternative += f"{lowest[0]} at epoch {lowest[1]}."
    numbers = Table(caption="MPJPE in mm by epoch", headings=("run", "epoch", "out of fold"), rows=rows)
    blocks: list[Block] = [
        Paragraph("Validation error after every epoch, over all folds; the large marker is the best epoch."),
        Chart(name="curves", figure=figure, alternative=alternative, numbers=numbers),
    ]
    missing = [row.name for row in evidence.board if row.is_run and row.best_epoch is None]
    if missing:
        blocks.append(Paragraph(f"Without a curve, as no epoch is logged in all folds: {', '.join(missing)}."))
    return Section(key=key, title=title, blocks=blocks)


def board(evidence: Evidence) -> Section:
    """List the rows of the command `board`, the lowest out-of-fold error first."""
    ordered = sorted(evidence.board, key=lambda row: (row.out_of_fold is None, row.out_of_fold or 0.0))
    headings = ("name", "out of fold", "public", "private", "best epoch", "folds", "kind")  # for narrow screens
    rows = [
        (row.name, row.out_of_fold, row.public, row.private, row.best_epoch, _folds(row), row.kind) for row in ordered
    ]
    note = Markup(
        "Out of fold: a run at its best epoch; a blend nested if possible, otherwise on the rows that its weights were "
        "fitted on, which is too low. Public and private: the scores that <code>score</code> recorded for the current "
        "submission."
    )
    table = Table(caption="Runs and blends, MPJPE in mm", headings=headings, rows=rows, anchor=ANCHOR)
    return Section(key="board", title="Board", blocks=[table, Paragraph(note, style="aside")])


def _folds(row: BoardRow) -> str | int | None:
    return row.folds if row.is_complete else f"{row.folds} of {row.of_folds}"


def poster(evidence: Evidence) -> Section:
    """Compare the poster's scores with those of runs of the same recipe or its -small sibling."""
    recipes = _recipes(evidence)
    rows: list[tuple[object, ...]] = []
    for name, poster_mm in [*((row.model, row.test_mm) for row in POSTER), ("mean", POSTER_MEAN_MM)]:
        if name == "mean":
            same = [row for row in evidence.board if row.kind == "blend (mean)"]
        else:
            same = [row for row in evidence.board if recipes.get(row.name) in (name, f"{name}-small")]
        if not same:
            rows.append((name, poster_mm, None, None, None))
        for row in same:
            rows.append((name, poster_mm, row.name, row.out_of_fold, row.all))
    headings = ("recipe", "poster, Human3.6M", "run or blend", "out of fold", "test")
    text = "The poster's figures are its authors' and were measured on Human3.6M."
    if evidence.synthetic:
        text = (
            "The poster's figures were measured on Human3.6M, those of the runs on synthetic images, most with smaller "
            "networks: the runs have no Human3.6M scores, and the columns can't be compared number by number."
        )
    table = Table(caption="The poster's models and this toolkit's, MPJPE in mm", headings=headings, rows=rows)
    return Section(key="poster", title="The poster’s table", blocks=[Paragraph(text, style="strong"), table])


def _recipes(evidence: Evidence) -> dict[str, str]:
    """Return the name of the recipe of every run that has a config.json."""
    found = {}
    for row in evidence.board:
        for folder in fold_folders(evidence.workspace.submissions / row.name):
            if (folder / "config.json").exists():
                found[row.name] = str(read_config(folder).recipe)
    return found


def calibration(evidence: Evidence) -> Section:
    """Compare out-of-fold errors with the recorded scores of the same runs and blends."""
    key, title = "calibration", "Do out-of-fold errors predict the test score?"
    known = [(row, row.out_of_fold) for row in evidence.board if row.out_of_fold is not None]
    series, differences = [], {}
    values: list[float] = []
    for part, name in PARTS.items():
        scored = [(row, of_fold, mpjpe) for row, of_fold in known if (mpjpe := _score(row, part)) is not None]
        differences[part] = [mpjpe - of_fold for _, of_fold, mpjpe in scored]
        if scored:
            x, y = [of_fold for _, of_fold, _ in scored], [mpjpe for _, _, mpjpe in scored]
            series.append(Series(name=name, x=x, y=y, text=[row.name for row, _, _ in scored]))
            values += [*x, *y]
    if not series:
        return skipped(key, title, "No current submission has a score.")
    margin = 0.05 * (max(values) - min(values)) + 1
    hover = "%{text}: %{x:.2f} out of fold, %{y:.2f} mm"
    figure = points(series, x_title="out of fold, mm", y_title="recorded score, mm", hover=hover, height=420)
    figure = identity(figure, min(values) - margin, max(values) + margin)
    shifts = differences["all"] or differences["private"] or differences["public"]
    mean = sum(shifts) / len(shifts)
    sentence = f"Scores are on average {abs(mean):.1f} mm {'higher' if mean > 0 else 'lower'} than out-of-fold errors."
    numbers = Table(
        caption="Out-of-fold errors and recorded scores, mm",
        headings=("name", "out of fold", *PARTS.values()),
        rows=[(row.name, of_fold, *(_score(row, part) for part in PARTS)) for row, of_fold in known],
    )
    alternative = f"Recorded scores against out-of-fold errors. {sentence}"
    chart = Chart(name="calibration", figure=figure, alternative=alternative, numbers=numbers)
    return Section(key=key, title=title, blocks=[Paragraph(f"{sentence} They are equal on the dotted line."), chart])


def _score(row: BoardRow, part: str) -> float | None:
    return {"all": row.all, "public": row.public, "private": row.private}[part]
