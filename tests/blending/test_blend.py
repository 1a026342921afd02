"""The blender on run folders: what is joined, what is shipped, what is written, and what is refused."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.bench.simulator import simulate
from competition.blending import search
from competition.blending.blend import blend
from competition.blending.join import join
from competition.blending.weights import exact, joint_errors, one_candidate
from competition.common.errors import RunError, SubmissionError, UserError
from competition.common.files import write_json
from competition.common.metrics import mpjpe
from competition.common.pose_csv import Poses, read_poses, write_poses
from competition.runs.candidates import Candidate, candidates, out_of_fold_mpjpe, refitted, select
from competition.runs.folders import write_valid

ROWS, TEST_ROWS = 120, 11
TEST_IDS = np.arange(1, TEST_ROWS + 1)


@pytest.fixture(autouse=True)
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the search stop early: these tests are about what is done with its result."""
    monkeypatch.setattr(search, "GAP", 0.002)


@pytest.fixture
def true() -> Poses:
    pose = np.random.default_rng(1).normal(0, 300, (ROWS, 17, 3))
    pose[:, 0] = 0
    return Poses(np.arange(1, ROWS + 1), pose)


def write_run(
    root: Path,
    name: str,
    ids: np.ndarray,
    pose: np.ndarray,
    test: np.ndarray,
    *,
    epoch: int = 1,
    folds: str | None = "f",
) -> None:
    """Write a run of two folds, its rows dealt out by turns, its test poses 10 mm apart around `test`."""
    for fold in range(2):
        folder = root / name / f"fold{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        mine = ids % 2 == fold
        write_valid(folder / f"valid_epoch{epoch:02d}.npz", ids[mine], pose[mine])
        write_poses(folder / f"test_epoch{epoch:02d}.csv.gz", TEST_IDS, test + (5 if fold else -5))
        if folds is not None:
            write_json(folder / "config.json", {"recipe": name, "folds_sha256": folds})


@pytest.fixture
def submissions(tmp_path: Path, true: Poses) -> Path:
    """Make runs a, b, c with correlated errors, the same for the test set."""
    error = simulate(ROWS + TEST_ROWS, members=3, seed=2).residual.transpose(2, 3, 0, 1)
    for name, member in zip("cab", error, strict=True):
        test = member[ROWS:].round(3)
        write_run(tmp_path / "submissions", name, true.id, true.pose_mm + member[:ROWS], test)
    return tmp_path / "submissions"


def test_mean_equals_the_numpy_mean(submissions: Path, true: Poses, tmp_path: Path):
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
def test_files_hold_what_the_contract_says(submissions: Path, true: Poses, tmp_path: Path, method: str):
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
    assert set(facts) >= {
        "method", "granularity", "shrink", "candidates", "n_rows", "groups", "mpjpe_mean", "mpjpe_blend_in_sample",
        "mpjpe_nested", "gain_nested", "gain_nested_se", "mpjpe_optimum", "gap_percent", "shipped", "why", "seconds",
        "table", "inputs",
    }  # fmt: skip
    assert facts["candidates"] == ["a:1", "b:1", "c:1"]
    assert (facts["method"], facts["granularity"], facts["n_rows"]) == (method, "coordinate", ROWS)
    assert facts["mpjpe_nested"] is None
    assert len(facts["inputs"]) == 12
    assert "a/fold1/valid_epoch01.npz" in facts["inputs"]


def test_errors_in_the_table_are_those_of_the_poses(submissions: Path, true: Poses, tmp_path: Path):
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
def test_an_explicit_granularity_ties_what_is_shipped_and_leaves_the_coordinate_blend_beside_it(
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
def test_where_the_search_does_not_win_on_all_rows_the_mean_is_kept(
    submissions: Path, true: Poses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granularity: str, kept: list[int]
):
    residual = join(candidates(submissions), true, TEST_IDS).residual
    good = exact(residual).weights
    worst = np.argmax([joint_errors(residual, one_candidate(17, 3, member)) for member in range(3)], axis=0)
    found = np.zeros((17, 3, 3))
    found[np.arange(17), :, worst] = 1  # worse than the mean in every joint but one
    found[13] = good[13]
    monkeypatch.setattr(
        "competition.blending.methods.search", lambda *_, **__: search.Found(weights=found, trials=0, studies=())
    )
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", granularity=granularity)
    expected = np.full((17, 3, 3), 1 / 3)
    expected[kept] = good[kept]
    assert result.weights is not None
    np.testing.assert_array_equal(result.weights, expected)
    assert result.facts["shipped"] == ("blend" if kept else "mean")
    same = result.submission.read_bytes() == (tmp_path / "out/submission_mean.csv.gz").read_bytes()
    assert same != bool(kept)


def test_many_rows_are_searched_in_part_and_judged_in_whole(
    submissions: Path, true: Poses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    real = search.search

    def spy(residual: np.ndarray, *arguments: object, **settings: object) -> search.Found:
        seen.append(residual.shape[-1])
        return real(residual, *arguments, **settings)

    monkeypatch.setattr("competition.blending.methods.search", spy)
    monkeypatch.setattr("competition.blending.blend.choose_rows", lambda sequences, rows: np.arange(0, rows, 3))
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", granularity="coordinate")
    assert seen == [ROWS // 3]
    assert result.facts["n_rows"] == ROWS
    assert result.facts["mpjpe_blend_in_sample"] <= result.facts["mpjpe_mean"]
    assert any(f"{ROWS // 3} of {ROWS} rows" in note for note in result.notes)


SUBJECTS = [f"S{index % 5}" for index in range(ROWS)]
SEQUENCES = [f"S{index % 5}_{index % 20}" for index in range(ROWS)]


def test_auto_ships_the_mean_where_nothing_can_be_held_out(submissions: Path, true: Poses, tmp_path: Path):
    for names, reason in (
        ({}, "names tell no"),
        ({"subjects": ["S1"] * ROWS, "sequences": ["S1_a"] * ROWS}, "one seq"),
    ):
        result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", **names)
        facts = result.facts
        assert facts["shipped"] == "mean"
        assert reason in facts["why"]
        assert facts["groups"] is facts["mpjpe_nested"] is facts["gain_nested"] is None
        assert result.submission.read_bytes() == (tmp_path / "out/submission_mean.csv.gz").read_bytes()
        assert (tmp_path / "out/submission_coordinate.csv.gz").read_bytes() != result.submission.read_bytes()


def test_auto_ships_what_gains_on_held_out_subjects(submissions: Path, true: Poses, tmp_path: Path):
    for file in submissions.glob("a/fold*/valid_epoch01.npz"):  # a is wrong by half in depth: no mean of it is good
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


def test_auto_ships_the_mean_of_equals_and_never_overrides_what_is_asked(tmp_path: Path, true: Poses):
    random = np.random.default_rng(0)
    for name in "abc":  # as good as each other everywhere: weights can only fit noise
        error = 80 * random.standard_normal((ROWS + TEST_ROWS, 17, 3))
        write_run(tmp_path / "runs", name, true.id, true.pose_mm + error[:ROWS], error[ROWS:].round(3))
    found, names = candidates(tmp_path / "runs"), {"subjects": SUBJECTS, "sequences": SEQUENCES}
    result = blend(found, true, TEST_IDS, tmp_path / "out", **names)
    assert result.facts["shipped"] == "mean"
    assert "held-out subjects" in result.facts["why"]
    np.testing.assert_array_equal(result.weights, np.full((17, 3, 3), 1 / 3))
    asked = blend(found, true, TEST_IDS, tmp_path / "out", granularity="coordinate", **names).facts
    assert asked["shipped"] == "blend"
    assert asked["why"] == "method optuna, granularity coordinate as asked"
    assert asked["gain_nested"] < 0  # what it costs is told all the same


@pytest.mark.parametrize(
    ("names", "known", "unknown"),
    [
        ({}, None, "the images' names tell no sequences, so no gain on unseen ones can be estimated"),
        ({"subjects": ["S1"] * ROWS, "sequences": SEQUENCES}, "held-out sequences", "gain on strangers isn't known"),
        ({"subjects": SUBJECTS, "sequences": SEQUENCES}, "held-out subjects", None),
    ],
)
def test_a_gain_in_sample_is_told_with_what_is_known_of_others(
    submissions: Path, true: Poses, tmp_path: Path, names: dict[str, list[str]], known: str | None, unknown: str | None
):
    asked = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", granularity="coordinate", **names)
    mean = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", method="mean", **names)
    for expected in ("in sample, mm: by axis", *filter(None, (known, unknown))):
        assert any(expected in note for note in asked.notes)
    if known is not None:
        gain = f"{asked.facts['gain_nested']:.2f} mm (standard error {asked.facts['gain_nested_se']:.2f})"
        assert any(f"gain over the mean on {known}: {gain}" in note for note in asked.notes)
    assert not any("gain" in note for note in mean.notes)


def test_virtual_members_are_columns_like_any_other(submissions: Path, true: Poses, tmp_path: Path):
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", granularity="coordinate", virtual=True)
    names = ["a:1", "b:1", "c:1", "virtual-joint:0", "virtual-pose:0"]
    assert result.facts["candidates"] == names
    assert pd.read_csv(tmp_path / "out/weights.csv").columns.tolist() == ["joint", "axis", *names]
    plain = blend(candidates(submissions), true, TEST_IDS, tmp_path / "plain", granularity="coordinate")
    assert result.facts["mpjpe_optimum"] < plain.facts["mpjpe_optimum"]
    assert result.facts["mpjpe_mean"] == plain.facts["mpjpe_mean"]  # of the members alone
    means = [(tmp_path / out / "submission_mean.csv.gz").read_bytes() for out in ("out", "plain")]
    assert means[0] == means[1]


def test_refitting_takes_the_poses_of_the_runs_trained_on_everything(submissions: Path, true: Poses, tmp_path: Path):
    found = candidates(submissions)
    with pytest.raises(RunError, match="FOLD=full"):
        refitted(found[0])
    for run in "abc":
        poses = read_poses(submissions / run / "fold0/test_epoch01.csv.gz").pose_mm
        (submissions / run / "foldfull").mkdir()
        write_poses(submissions / run / "foldfull/test_epoch01.csv.gz", TEST_IDS, poses)
    result = blend([refitted(c) for c in found], true, TEST_IDS, tmp_path / "out", method="mean")
    expected = np.mean([read_poses(submissions / run / "fold0/test_epoch01.csv.gz").pose_mm for run in "abc"], axis=0)
    np.testing.assert_allclose(read_poses(result.submission).pose_mm, expected, atol=0.00051)


def test_median_is_the_numpy_median_and_leaves_no_weights_of_an_earlier_blend(
    submissions: Path, true: Poses, tmp_path: Path
):
    blend(candidates(submissions), true, TEST_IDS, tmp_path / "out")
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", method="median")
    expected = np.median(join(candidates(submissions), true, TEST_IDS).test_mm, axis=0)
    np.testing.assert_allclose(read_poses(result.submission).pose_mm, expected, atol=0.00051)
    assert not (tmp_path / "out/weights.csv").exists()
    assert not (tmp_path / "out/weights.png").exists()
    assert "median" in {row["method"] for row in result.facts["table"]}


def test_one_candidate_is_copied_and_said(submissions: Path, true: Poses, tmp_path: Path):
    only = select(candidates(submissions), runs=["b"])
    result = blend(only, true, TEST_IDS, tmp_path / "out")
    joined = join(only, true, TEST_IDS)
    np.testing.assert_allclose(read_poses(result.submission).pose_mm, joined.test_mm[0], atol=0.00051)
    assert any("b:1 is the only candidate: it is copied" in note for note in result.notes)


def test_copies_constants_and_unverified_folds_are_said(submissions: Path, true: Poses, tmp_path: Path):
    source = submissions / "a"
    poses = np.concatenate([np.load(source / f"fold{k}/valid_epoch01.npz")["pose"] for k in (0, 1)])
    ids = np.concatenate([np.load(source / f"fold{k}/valid_epoch01.npz")["id"] for k in (0, 1)])
    test = np.zeros((TEST_ROWS, 17, 3))
    write_run(submissions, "copy", ids, poses, test, folds=None)
    write_run(submissions, "flat", true.id, np.tile(true.pose_mm.mean(axis=0), (ROWS, 1, 1)), test)
    result = blend(candidates(submissions), true, TEST_IDS, tmp_path / "out")
    text = "\n".join(result.notes)
    assert "copy:1 is a copy of a:1" in text
    assert "flat:1 predicts the same pose for every image" in text
    assert "copy: its folds can't be verified" in text
    assert result.facts["mpjpe_blend_in_sample"] <= result.facts["mpjpe_mean"]


def test_an_outsider_s_csv_is_a_candidate(submissions: Path, true: Poses, tmp_path: Path):
    folder = submissions / "teammate" / "fold0"
    folder.mkdir(parents=True)
    write_poses(folder / "valid_epoch01.csv.gz", true.id, true.pose_mm + 1)
    write_poses(folder / "test_epoch01.csv", TEST_IDS, np.ones((TEST_ROWS, 17, 3)))
    chosen = select(candidates(submissions), runs=["teammate", "a"])
    result = blend(chosen, true, TEST_IDS, tmp_path / "out", method="exact")
    assert result.facts["candidates"] == ["a:1", "teammate:1"]
    assert result.weights is not None
    assert result.weights[13, :, 1].min() > 0.9


def test_rows_are_those_that_all_candidates_have(submissions: Path, true: Poses, tmp_path: Path):
    write_run(submissions, "half", true.id[40:90], true.pose_mm[40:90], np.zeros((TEST_ROWS, 17, 3)))
    joined = join(candidates(submissions), true, TEST_IDS)
    assert joined.id.tolist() == list(range(41, 91))
    assert any("share 50 of up to 120 out-of-fold rows" in note for note in joined.notes)
    np.testing.assert_allclose(joined.residual[:, :, joined.names.index("half:1")], 0, atol=1e-4)
    full = join(select(candidates(submissions), runs=["a", "b", "c"]), true, TEST_IDS)
    np.testing.assert_array_equal(joined.residual[:, :, [0, 1, 2]], full.residual[..., 40:90])


def _nan(file: Path) -> None:
    with np.load(file) as arrays:
        ids, pose = arrays["id"], arrays["pose"]
    pose[3, 5, 1] = np.nan
    np.savez(file, id=ids, pose=pose)


def _foreign_id(file: Path) -> None:
    with np.load(file) as arrays:
        ids, pose = arrays["id"], arrays["pose"]
    ids[-1] = 7000
    np.savez(file, id=ids, pose=pose)


def _same_as_other_fold(file: Path) -> None:
    (file.parent.parent / "fold1" / file.name).write_bytes(file.read_bytes())


def _other_folds(file: Path) -> None:
    for fold in range(2):
        write_json(file.parent.parent / f"fold{fold}" / "config.json", {"recipe": "b", "folds_sha256": "other"})


def _no_rows(file: Path) -> None:
    for fold in range(2):
        path = file.parent.parent / f"fold{fold}" / file.name
        np.savez(path, id=np.zeros(0, np.int64), pose=np.zeros((0, 17, 3), np.float32))  # write_valid refuses them


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_nan, r"b/fold0/valid_epoch01\.npz: the pose of Id 8 is not finite"),
        (_foreign_id, r"b/fold0/valid_epoch01\.npz: Id 7000 is none of the 120 training images"),
        (_same_as_other_fold, r"b:1: Id 2 is out of fold in two folds \(fold0, fold1\)"),
        (_other_folds, r"runs a and b were trained on different folds\.csv"),
        (_no_rows, r"b:1: its out-of-fold files hold no rows"),
    ],
)
def test_bad_candidates_are_refused_and_nothing_is_written(
    submissions: Path, true: Poses, tmp_path: Path, damage: Callable[[Path], None], message: str
):
    damage(submissions / "b/fold0/valid_epoch01.npz")
    with pytest.raises(RunError, match=message) as caught:
        blend(candidates(submissions), true, TEST_IDS, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_candidates_without_a_common_row_are_refused(tmp_path: Path, true: Poses):
    test = np.zeros((TEST_ROWS, 17, 3))
    write_run(tmp_path, "early", true.id[:60], true.pose_mm[:60], test)
    write_run(tmp_path, "late", true.id[60:], true.pose_mm[60:], test)
    with pytest.raises(RunError, match="late:1 shares no out-of-fold Id with early:1"):
        join(candidates(tmp_path), true, TEST_IDS)


def test_a_test_file_of_another_length_is_refused(submissions: Path, true: Poses, tmp_path: Path):
    write_poses(submissions / "b/fold1/test_epoch01.csv.gz", TEST_IDS[:-1], np.zeros((TEST_ROWS - 1, 17, 3)))
    with pytest.raises(SubmissionError, match=r"b/fold1/test_epoch01\.csv\.gz: 1 Ids missing, the first is 11"):
        blend(candidates(submissions), true, TEST_IDS, tmp_path / "out")


def test_an_earlier_blend_stays_when_a_later_one_fails(submissions: Path, true: Poses, tmp_path: Path):
    blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", method="mean")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with pytest.raises(UserError, match="unknown method 'optima': did you mean 'optuna'"):
        blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", method="optima")
    with pytest.raises(UserError, match="unknown granularity 'axes': did you mean 'axis'"):
        blend(candidates(submissions), true, TEST_IDS, tmp_path / "out", granularity="axes")
    _nan(submissions / "b/fold0/valid_epoch01.npz")
    with pytest.raises(RunError):
        blend(candidates(submissions), true, TEST_IDS, tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


def candidate(run: str, epoch: int, valid_mpjpe: float | None) -> Candidate:
    return Candidate(
        run=run,
        epoch=epoch,
        valid_files=(),
        test_files=(),
        verified=True,
        folds_sha256="f",
        images_sha256="i",
        valid_mpjpe=valid_mpjpe,
    )


FOUND = [
    candidate("b", 2, 90),
    candidate("b", 1, 95),
    candidate("a", 1, 80),
    candidate("a", 2, 80),
    candidate("a", 10, 99),
]


@pytest.mark.parametrize(
    ("runs", "epochs", "expected"),
    [
        (None, "best", ["a:1", "b:2"]),
        (None, "last", ["a:10", "b:2"]),
        (None, "all", ["a:1", "a:2", "a:10", "b:1", "b:2"]),
        (None, "2, 10", ["a:2", "a:10", "b:2"]),
        (["b"], "all", ["b:1", "b:2"]),
        (["b", "a", "b"], "last", ["a:10", "b:2"]),
    ],
)
def test_runs_and_epochs_are_selected(runs: list[str] | None, epochs: str, expected: list[str]):
    assert [c.name for c in select(FOUND, runs, epochs)] == expected


def test_the_best_epoch_of_an_outsider_is_computed():
    found = [candidate("x", 1, None), candidate("x", 2, None), candidate("y", 1, None)]
    chosen = select(found, score=lambda c: -float(c.epoch))
    assert [c.name for c in chosen] == ["x:2", "y:1"]
    with pytest.raises(RunError, match="run x: no score for every epoch"):
        select(found)


@pytest.mark.parametrize(
    ("runs", "epochs", "message"),
    [
        (["bb"], "best", "unknown run 'bb': did you mean 'b'"),
        (None, "first", "epochs 'first': expected best, last, all, or numbers such as 3,4"),
        (None, "3,", "epochs '3,': expected"),
        (None, "10", "run b has no epoch 10: complete for all its folds are 1, 2"),
    ],
)
def test_what_is_not_there_cannot_be_selected(runs: list[str] | None, epochs: str, message: str):
    with pytest.raises(UserError, match=message):
        select(FOUND, runs, epochs)


def test_nothing_to_blend_is_said():
    with pytest.raises(RunError, match="nothing to blend"):
        select([])
