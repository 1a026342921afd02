"""The table of methods: errors of blend.json, and recorded scores of files with the same poses."""

from pathlib import Path

import numpy as np
import pytest

from competition.common.workspace import Workspace
from competition.leaderboard.score import Scores
from competition.leaderboard.scores import record_score
from competition.report.blocks import Table
from competition.report.evidence import gather
from competition.report.methods import MOST_BLENDS, methods
from competition.runs.blends import Blend, MethodErrors, write_blend
from competition.runs.candidates import write_submission
from tests.helpers import N_TEST

IDS = np.arange(1, N_TEST + 1)
INPUTS = {"a/fold0/valid_epoch01.npz": "0" * 64}


def add(
    runs: Path, name: str, shipped_method: str, rows: dict[str, float], inputs: dict[str, str] = INPUTS, more: float = 0
) -> None:
    """Write a blend; the value of every coordinate in its files is the in-sample error of the method, and `more`."""
    table = [MethodErrors(method=row, mpjpe_in_sample=mm, mpjpe_nested=mm + 1, gain_nested_se=0.5, seconds=0.1)
             for row, mm in rows.items()]  # fmt: skip
    blend = Blend(
        method="optuna", shipped="blend", shipped_method=shipped_method, table=table, inputs=inputs,
        best_single="3dhg-small:1", candidates=["3dhg-small:1"],
    )  # fmt: skip
    files = {"submission": rows[blend.shipped_row], "submission_mean": rows["mean"]}
    files["submission_coordinate"] = rows.get("coordinate", rows["optuna"])
    poses = {f"{file}.csv.gz": np.full((N_TEST, 17, 3), mm + more) for file, mm in files.items()}
    write_blend(runs / name, blend, test_id=IDS, poses=poses)


def score(runs: Path, file: str, all_mm: float) -> None:
    record_score(runs, runs / file, Scores(all=all_mm, public=1.0, private=2.0, joint={}, axis={}, action={}))


@pytest.fixture
def runs(run: Path) -> Path:
    """Return a folder with a run and three blends: two of the same members, one of others; some files are scored."""
    write_submission(run.parent, run.name, IDS)
    rows = {"best single": 50.0, "mean": 48.0, "exact": 43.0, "optuna": 44.0, "stack": 40.0}
    add(run.parent, "blend", "views", rows | {"coordinate": 45.0, "views": 30.0})
    add(run.parent, "blend-exact", "exact", rows)
    add(run.parent, "others", "exact", rows, {"b/fold0/valid_epoch01.npz": "1" * 64}, more=0.25)
    for file, mm in (
        ("blend/submission.csv.gz", 35.5), ("blend/submission_coordinate.csv.gz", 47.25),
        ("blend-exact/submission_mean.csv.gz", 49.75), ("blend-exact/submission.csv.gz", 46.5),
        ("3dhg-small/submission.csv.gz", 52.5), ("others/submission_coordinate.csv.gz", 45.125),
    ):  # fmt: skip
        score(run.parent, file, mm)
    return run.parent


def tables(data: Path, runs: Path) -> dict[str, dict[str, tuple[object, ...]]]:
    """Return the rows of the section's tables by caption and method."""
    evidence = gather(Workspace(data=data, folds=runs.parent / "folds", submissions=runs))
    blocks = [block for block in methods(evidence).blocks if isinstance(block, Table)]
    return {block.caption: {str(row[0]): tuple(row[1:]) for row in block.rows} for block in blocks}


def test_scores_are_those_of_files_with_the_same_poses(data: Path, runs: Path):
    found = tables(data, runs)
    assert list(found) == [f"Methods of {name}, MPJPE in mm" for name in ("blend", "blend-exact", "others")]
    assert found["Methods of blend, MPJPE in mm"] == {
        "best single": (50.0, 51.0, 0.5, 52.5), "mean": (48.0, 49.0, 0.5, 49.75), "exact": (43.0, 44.0, 0.5, 46.5),
        "optuna": (44.0, 45.0, 0.5, None), "stack": (40.0, 41.0, 0.5, None), "coordinate": (45.0, 46.0, 0.5, 47.25),
        "views (ships)": (30.0, 31.0, 0.5, 35.5),
    }  # fmt: skip
    others = {name: row[-1] for name, row in found["Methods of others, MPJPE in mm"].items()}
    assert others["best single"] == 52.5
    assert others["mean"] is None  # other members have the same error in sample
    assert others["exact (ships)"] is None
    assert others["optuna"] == 45.125  # it has weights per coordinate
    assert found["Methods of blend-exact, MPJPE in mm"]["exact (ships)"][-1] == 46.5


def test_a_changed_file_has_no_score_and_few_blends_are_shown(data: Path, runs: Path):
    path = runs / "blend/submission.csv.gz"
    path.write_bytes((runs / "others/submission_mean.csv.gz").read_bytes())
    assert tables(data, runs)["Methods of blend, MPJPE in mm"]["views (ships)"][-1] is None
    for number in range(MOST_BLENDS):
        add(runs, f"more{number}", "stack", {"mean": 1.0, "optuna": 2.0, "stack": 3.0}, {})
    assert len(tables(data, runs)) == MOST_BLENDS


def test_without_a_blend_the_reason_is_stated(data: Path, run: Path):
    evidence = gather(Workspace(data=data, folds=run.parent.parent / "folds", submissions=run.parent))
    assert "no blend" in str(methods(evidence).blocks)
