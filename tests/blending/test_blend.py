"""Blends of run folders: the written files, the choice between mean and weights, and errors."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.bench.simulator import simulate
from competition.blending import search
from competition.blending.blend import blend
from competition.blending.join import join
from competition.blending.problem import Problem
from competition.blending.weights import exact, joint_errors, mean_of
from competition.common.errors import RunError, UserError
from competition.common.metrics import mpjpe
from competition.common.pose_csv import Poses, read_poses, write_poses
from competition.runs.candidates import candidates, out_of_fold_mpjpe
from competition.runs.folders import write_valid
from tests.blending.helpers import ROWS, TEST_IDS, TEST_ROWS, write_nan, write_run

pytestmark = pytest.mark.usefixtures("short_search")


def test_method_mean_equals_the_numpy_mean(submissions: Path, true: Poses, tmp_path: Path):
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", method="mean")
    of_run = [
        np.mean([read_poses(submissions / run / f"fold{k}" / "test_epoch01.csv.gz").pose_mm for k in (0, 1)], axis=0)
        for run in "abc"
    ]
    joined = join(candidates(submissions), true, TEST_IDS)
    assert joined.test_mm.mean(axis=0).tobytes() == np.mean(of_run, axis=0).tobytes()
    write_poses(tmp_path / "expected.csv.gz", TEST_IDS, np.mean(of_run, axis=0))
    expected = (tmp_path / "expected.csv.gz").read_bytes()
    assert result.submission.read_bytes() == expected
    assert (tmp_path / "out/submission_mean.csv.gz").read_bytes() == expected
    assert result.facts["shipped"] == "mean"
    assert result.facts["mpjpe_blend_in_sample"] == result.facts["mpjpe_mean"]


@pytest.mark.parametrize("method", ["optuna", "exact", "greedy"])
def test_the_files_of_a_blend_have_the_documented_contents(submissions: Path, true: Poses, tmp_path: Path, method: str):
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", method=method)
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "blend.json", "study.journal", "submission.csv.gz", "submission_coordinate.csv.gz", "submission_mean.csv.gz",
        "weights.csv", "weights.png",
    ]  # fmt: skip
    table = pd.read_csv(out / "weights.csv")
    assert list(table.columns) == ["joint", "axis", "a:1", "b:1", "c:1"]
    assert len(table) == 51
    assert table.iloc[3, :2].tolist() == ["RHip", "x"]
    chosen = table.iloc[:, 2:].to_numpy().reshape(17, 3, 3)
    assert result.weights is not None
    assert chosen.tobytes() == np.ascontiguousarray(result.weights).tobytes()
    np.testing.assert_allclose(chosen.sum(axis=2), 1, atol=1e-12)

    joined = join(candidates(submissions), true, TEST_IDS)
    expected = np.einsum("jam,mnja->nja", chosen, joined.test_mm)
    np.testing.assert_allclose(read_poses(result.submission, TEST_IDS).pose_mm, expected, atol=0.00051)

    facts = json.loads((out / "blend.json").read_text())
    assert facts == result.facts
    assert facts["format"] == 1
    assert set(facts) >= {
        "method", "granularity", "shrink", "candidates", "n_rows", "groups", "mpjpe_mean", "mpjpe_blend_in_sample",
        "mpjpe_nested", "gain_nested", "gain_nested_se", "best_simple", "gain_over_best_simple",
        "gain_over_best_simple_se", "mpjpe_optimum", "gap_percent", "shipped", "shipped_method", "why", "seconds",
        "table", "members", "inputs",
    }  # fmt: skip
    assert facts["candidates"] == ["a:1", "b:1", "c:1"]
    assert (facts["method"], facts["granularity"], facts["n_rows"]) == (method, "coordinate", ROWS)
    assert facts["mpjpe_nested"] is None
    assert len(facts["inputs"]) == 12
    assert "a/fold1/valid_epoch01.npz" in facts["inputs"]


def test_errors_in_the_table_match_the_poses(submissions: Path, true: Poses, tmp_path: Path):
    found = candidates(submissions)
    result = blend(found, true, TEST_IDS, tmp_path / "out", granularity="coordinate")
    row = {row["method"]: row["mpjpe_in_sample"] for row in result.facts["table"]}
    assert set(row) == {"mean", "best single", "exact", "greedy", "optuna"}
    assert row["exact"] <= row["optuna"] <= row["mean"] < row["best single"]
    poses = [{int(i): p for f in c.valid_files for i, p in zip(*np.load(f).values(), strict=True)} for c in found]
    of_member = np.array([[member[i] for i in true.id] for member in poses], np.float64)
    assert row["mean"] == pytest.approx(mpjpe(of_member.mean(axis=0), true.pose_mm), rel=1e-6)
    blended = np.einsum("jam,mnja->nja", result.weights, of_member)
    assert row["optuna"] == pytest.approx(mpjpe(blended, true.pose_mm), rel=1e-6)
    assert row["best single"] == pytest.approx(min(out_of_fold_mpjpe(c, true) for c in found), rel=1e-6)
    assert result.facts["gap_percent"] == pytest.approx(100 * (row["optuna"] / result.facts["mpjpe_optimum"] - 1))
    assert 0 <= result.facts["gap_percent"] < 1
    error = [np.linalg.norm(pose - true.pose_mm, axis=2).mean(axis=0) for pose in (of_member.mean(axis=0), blended)]
    np.testing.assert_allclose(list(result.facts["gain_joint"].values()), error[0] - error[1], atol=1e-4)
    error = [np.abs(pose - true.pose_mm).mean(axis=(0, 1)) for pose in (of_member.mean(axis=0), blended)]
    np.testing.assert_allclose(list(result.facts["gain_axis"].values()), error[0] - error[1], atol=1e-4)


def test_the_order_of_candidates_and_rows_changes_no_byte(submissions: Path, true: Poses, tmp_path: Path):
    blend(candidates(submissions), true, TEST_IDS, tmp_path / "one")
    for file in submissions.glob("*/fold*/valid_epoch01.npz"):
        with np.load(file) as arrays:
            order = np.random.default_rng(3).permutation(len(arrays["id"]))
            ids, pose = arrays["id"][order], arrays["pose"][order]
        np.savez(file, id=ids, pose=pose)
    for file in submissions.glob("*/fold*/test_epoch01.csv.gz"):
        header, *lines = gzip.decompress(file.read_bytes()).decode().splitlines()
        file.write_bytes(gzip.compress("\r\n".join([header, *reversed(lines)]).encode()))
    blend(candidates(submissions)[::-1], true, TEST_IDS, tmp_path / "two")
    for name in ("submission.csv.gz", "submission_mean.csv.gz", "submission_coordinate.csv.gz", "weights.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("granularity", ["global", "axis", "joint"])
def test_an_explicit_granularity_ties_the_shipped_weights_and_keeps_the_coordinate_blend_as_a_file(
    submissions: Path, true: Poses, tmp_path: Path, granularity: str
):
    plain = blend(candidates(submissions), true, TEST_IDS, tmp_path / "plain", granularity="coordinate")
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", method="exact", granularity=granularity)
    assert result.weights is not None
    assert (np.ptp(result.weights[1:], axis=0).max() == 0) == (granularity in ("global", "axis"))
    assert (np.ptp(result.weights[1:], axis=1).max() == 0) == (granularity in ("global", "joint"))
    beside = (tmp_path / "out/submission_coordinate.csv.gz").read_bytes()
    assert beside == plain.submission.read_bytes()
    assert beside != result.submission.read_bytes()
    assert result.facts["mpjpe_optimum"] > plain.facts["mpjpe_optimum"]


@pytest.mark.parametrize(("granularity", "kept"), [("coordinate", [13]), ("axis", [])])
def test_joints_where_the_search_loses_on_all_rows_keep_the_mean(
    submissions: Path, true: Poses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granularity: str, kept: list[int]
):
    residual = join(candidates(submissions), true, TEST_IDS).residual
    good = exact(residual).weights
    worst = np.argmax([joint_errors(residual, mean_of(17, 3, [member])) for member in range(3)], axis=0)
    found = np.zeros((17, 3, 3))
    found[np.arange(17), :, worst] = 1  # worse than the mean in every joint but one
    found[13] = good[13]
    monkeypatch.setattr(
        "competition.blending.search.search", lambda *_, **__: search.SearchResult(weights=found, trials=0, studies=())
    )
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", granularity=granularity)
    expected = np.full((17, 3, 3), 1 / 3)
    expected[kept] = good[kept]
    assert result.weights is not None
    np.testing.assert_array_equal(result.weights, expected)
    assert result.facts["shipped"] == ("blend" if kept else "mean")
    same = result.submission.read_bytes() == (tmp_path / "out/submission_mean.csv.gz").read_bytes()
    assert same != bool(kept)


def test_weights_are_searched_on_a_subset_and_evaluated_on_all_rows(
    submissions: Path, true: Poses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    searched_rows = []
    original = search.search

    def spy(problem: Problem, *arguments: object, **settings: object) -> search.SearchResult:
        searched_rows.append(problem.rows)
        return original(problem, *arguments, **settings)

    monkeypatch.setattr("competition.blending.search.search", spy)
    monkeypatch.setattr("competition.blending.problem.choose_rows", lambda sequences, rows: np.arange(0, rows, 3))
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", granularity="coordinate")
    assert searched_rows == [ROWS // 3]
    assert result.facts["n_rows"] == ROWS
    assert result.facts["mpjpe_blend_in_sample"] <= result.facts["mpjpe_mean"]
    assert any(f"{ROWS // 3} of {ROWS} rows" in note for note in result.notes)


SUBJECTS = [f"S{index % 5}" for index in range(ROWS)]
SEQUENCES = [f"S{index % 5}_{index % 20}" for index in range(ROWS)]


def test_auto_ships_the_mean_if_no_groups_can_be_held_out(submissions: Path, true: Poses, tmp_path: Path):
    for names, reason in (
        ({}, "no sequences"),
        ({"subjects": ["S1"] * ROWS, "sequences": ["S1_a"] * ROWS}, "only one seq"),
    ):
        result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", **names)
        facts = result.facts
        assert facts["shipped"] == "mean"
        assert reason in facts["why"]
        assert facts["groups"] is facts["mpjpe_nested"] is facts["gain_nested"] is None
        assert result.submission.read_bytes() == (tmp_path / "out/submission_mean.csv.gz").read_bytes()
        assert (tmp_path / "out/submission_coordinate.csv.gz").read_bytes() != result.submission.read_bytes()


def test_auto_ships_weights_that_gain_on_held_out_subjects(submissions: Path, true: Poses, tmp_path: Path):
    for file in submissions.glob("a/fold*/valid_epoch01.npz"):  # a has five times the error in depth
        with np.load(file) as arrays:
            ids, pose = arrays["id"], arrays["pose"]
        write_valid(file, ids, (true.pose_mm[ids - 1] + (pose - true.pose_mm[ids - 1]) * [1, 1, 5]))
    found = candidates(submissions)
    result = blend(found, true, TEST_IDS, tmp_path / "out", subjects=SUBJECTS, sequences=SEQUENCES)
    facts = result.facts
    assert facts["shipped"] == "blend"
    assert facts["granularity"] in ("axis", "joint", "coordinate")
    assert facts["groups"] == {"by": "subject", "count": 5, "folds": 5, "rows": ROWS}
    assert facts["gain_nested"] > facts["gain_nested_se"] > 0
    assert facts["gain_nested"] == pytest.approx(facts["mpjpe_mean"] - facts["mpjpe_nested"], rel=1e-5)
    assert all(row["mpjpe_nested"] is not None for row in facts["table"])
    assert result.weights is not None
    assert result.weights[1:, 2, 0].max() < 0.2
    fewer = blend(found, true, TEST_IDS, tmp_path / "out", subjects=["S1"] * ROWS, sequences=SEQUENCES).facts
    assert fewer["groups"] == {"by": "sequence", "count": 20, "folds": 5, "rows": ROWS}


def test_auto_ships_the_mean_of_equal_members_but_an_explicit_granularity_ships(tmp_path: Path, true: Poses):
    random = np.random.default_rng(0)
    for name in "abc":  # equally good members: weights can only fit noise
        error = 80 * random.standard_normal((ROWS + TEST_ROWS, 17, 3))
        write_run(tmp_path / "runs", name, true.id, true.pose_mm + error[:ROWS], error[ROWS:].round(3))
    found, names = candidates(tmp_path / "runs"), {"subjects": SUBJECTS, "sequences": SEQUENCES}
    result = blend(found, true, TEST_IDS, tmp_path / "out", **names)
    assert result.facts["shipped"] == "mean"
    assert "held-out subjects" in result.facts["why"]
    np.testing.assert_array_equal(result.weights, np.full((17, 3, 3), 1 / 3))
    explicit = blend(found, true, TEST_IDS, tmp_path / "out", granularity="coordinate", **names).facts
    assert explicit["shipped"] == "blend"
    assert "granularity coordinate" in explicit["why"]
    assert "requested" in explicit["why"]
    assert explicit["gain_nested"] < 0  # the loss is reported


def test_the_best_single_candidate_ships_if_the_others_only_harm(true: Poses, tmp_path: Path):
    error = simulate(ROWS + TEST_ROWS, members=1, seed=2).residual[:, :, 0].transpose(2, 0, 1)
    for name, factor in (("a", 2.5), ("b", 1), ("c", 3)):  # the same errors, larger: no weights help
        test = (factor * error[ROWS:]).round(3)
        write_run(tmp_path / "runs", name, true.id, true.pose_mm + factor * error[:ROWS], test)
    found = candidates(tmp_path / "runs")
    result = blend(found, true, TEST_IDS, tmp_path / "out", subjects=SUBJECTS, sequences=SEQUENCES, stack=False)
    record = result.record
    assert record.best_simple == record.best_single == "b:1"
    assert (record.shipped, record.shipped_method) == ("blend", "best single")
    assert (record.gain_over_best_simple, record.gain_over_best_simple_se) == (0, 0)
    assert "submission.csv.gz is the best single" in "\n".join(result.notes)
    assert result.weights is not None
    np.testing.assert_array_equal(result.weights, mean_of(17, 3, [1]))
    np.testing.assert_allclose(read_poses(result.submission).pose_mm, error[ROWS:], atol=0.001)
    own = {member.name: (member.mpjpe, member.rows) for member in record.members}
    assert own["b:1"] == (pytest.approx(out_of_fold_mpjpe(found[1], true)), ROWS)
    assert own["a:1"][0] == pytest.approx(2.5 * own["b:1"][0], rel=1e-5)
    assert record.mpjpe_nested == pytest.approx(own["b:1"][0], rel=1e-5)
    assert record.gain_nested == pytest.approx((6.5 / 3 - 1) * own["b:1"][0], rel=1e-4)


@pytest.mark.parametrize(
    ("names", "known", "unknown"),
    [
        ({}, None, "the gain on unseen ones can't be estimated"),
        (
            {"subjects": ["S1"] * ROWS, "sequences": SEQUENCES},
            "held-out sequences",
            "gain on unseen subjects is unknown",
        ),
        ({"subjects": SUBJECTS, "sequences": SEQUENCES}, "held-out subjects", None),
    ],
)
def test_the_gain_is_noted_in_sample_and_on_held_out_groups(
    submissions: Path, true: Poses, tmp_path: Path, names: dict[str, list[str]], known: str | None, unknown: str | None
):
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", granularity="coordinate", **names)
    mean = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", method="mean", **names)
    for expected in ("in sample, mm: by axis", *filter(None, (known, unknown))):
        assert any(expected in note for note in result.notes)
    if known is not None:
        gain = f"{result.facts['gain_nested']:.2f} mm (standard error {result.facts['gain_nested_se']:.2f})"
        assert any(f"gain over the mean on {known}: {gain}" in note for note in result.notes)
    assert not any("gain" in note for note in mean.notes)


def test_method_median_equals_the_numpy_median_and_removes_weights_of_an_earlier_blend(
    submissions: Path, true: Poses, tmp_path: Path
):
    blend(candidates(submissions), true, TEST_IDS, tmp_path / "out")
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", method="median")
    expected = np.median(join(candidates(submissions), true, TEST_IDS).test_mm, axis=0)
    np.testing.assert_allclose(read_poses(result.submission).pose_mm, expected, atol=0.00051)
    assert not (tmp_path / "out/weights.csv").exists()
    assert not (tmp_path / "out/weights.png").exists()
    assert "median" in {row["method"] for row in result.facts["table"]}


def test_a_failed_blend_leaves_an_earlier_one_unchanged(submissions: Path, true: Poses, tmp_path: Path):
    blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", method="mean")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with pytest.raises(UserError, match="unknown method 'optima': did you mean 'optuna'"):
        blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", method="optima")
    with pytest.raises(UserError, match="unknown granularity 'axes': did you mean 'axis'"):
        blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", granularity="axes")
    write_nan(submissions / "b/fold0/valid_epoch01.npz")
    with pytest.raises(RunError):
        blend(candidates(submissions), true, TEST_IDS, tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
