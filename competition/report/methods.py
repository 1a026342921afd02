"""Shows the methods of each blend: errors in sample and nested, and the recorded scores of the files they wrote."""

from typing import Final

from competition.leaderboard.scores import latest_scores, scores_of
from competition.report.blocks import Block, Paragraph, Section, Table, skipped
from competition.report.evidence import Evidence
from competition.runs.blends import Blend, read_blend

MOST_BLENDS: Final = 3
FILES: Final = {"mean": "submission_mean.csv.gz", "coordinate": "submission_coordinate.csv.gz"}  # by method


def methods(evidence: Evidence) -> Section:
    """List the methods of each blend of runs, with hidden-test errors from scores.csv."""
    key, title = "methods", "Methods of the blends"
    root = evidence.workspace.submissions
    blends = {row.name: read_blend(root / row.name) for row in evidence.board if not row.is_run}
    compared = sorted((name for name, blend in blends.items() if blend.table), key=lambda name: (name != "blend", name))
    if not compared:
        return skipped(key, title, "There is no blend of runs.")
    scores = _scores(evidence, blends)
    blocks: list[Block] = [
        Paragraph(
            "In sample: on the rows that the method was fitted on. Nested: on groups that it wasn't fitted on; the "
            "standard error is that of the nested gain over the mean. Test: the error on the hidden test set, if "
            "score recorded it for a file of the same poses."
        )
    ]
    for name in compared[:MOST_BLENDS]:
        rows = [
            (
                f"{row.method} (ships)" if row.method == blends[name].shipped_row else row.method,
                row.mpjpe_in_sample,
                row.mpjpe_nested,
                row.gain_nested_se,
                scores.get(_same(blends[name], row.method, row.mpjpe_in_sample)),
            )
            for row in blends[name].table
        ]
        headings = ("method", "in sample", "nested", "std. error", "test")
        blocks.append(Table(caption=f"Methods of {name}, MPJPE in mm", headings=headings, rows=rows))
    if (rest := len(compared) - MOST_BLENDS) > 0:
        blocks.append(Paragraph(f"{rest} more {'blend is' if rest == 1 else 'blends are'} not shown."))
    return Section(key=key, title=title, blocks=blocks)


def _scores(evidence: Evidence, blends: dict[str, Blend]) -> dict[object, float]:
    """Return the recorded errors of blends' and runs' files by what wrote them, as in `_same`."""
    root, latest = evidence.workspace.submissions, latest_scores(evidence.workspace.submissions)
    found: dict[object, float] = {}
    for name, blend in blends.items():
        in_sample = {row.method: row.mpjpe_in_sample for row in blend.table}
        files = {blend.shipped_row: "submission.csv.gz", **FILES}
        if "coordinate" not in in_sample:
            files.setdefault("optuna", FILES["coordinate"])
        best = next((row for row in evidence.board if f"{row.name}:{row.best_epoch}" == blend.best_single), None)
        if best is not None and best.all is not None:
            found[_same(blend, "best single", in_sample.get("best single"))] = best.all
        for method, file in files.items():
            score = scores_of(root / name / file, latest).all
            if method in in_sample and score is not None:
                found[_same(blend, method, in_sample[method])] = score
    return found


def _same(blend: Blend, method: str, in_sample: float | None) -> object:
    """Return what blends have in common whose files of a method hold the same poses."""
    return tuple(sorted(blend.inputs.items())), method, in_sample
