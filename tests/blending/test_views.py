"""Other cameras: rotations and fused poses with known answers, which images are used, and the blend that ships."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from competition.blending import views as fitting
from competition.blending.blend import NOT_MONOCULAR, blend
from competition.blending.gate import FOLDS, MEAN, SINGLE, STACK, Gate, Option, with_views
from competition.blending.methods import Exact
from competition.blending.options import check_blend
from competition.blending.problem import SEARCH_ROWS, Problem, choose_instants
from competition.common.errors import RunError, UserError
from competition.common.geometry import mirror_pose_mm
from competition.common.metrics import mpjpe
from competition.common.pose_csv import Poses, read_poses
from competition.data.views import predicted_views, views_of
from competition.runs.candidates import candidates
from competition.runs.fusion import Fusion, align, fusion_npz, read_fusion, rotations, sources
from competition.runs.second_level import SecondLevel
from tests.blending.helpers import ROWS, TEST_IDS, TEST_ROWS, write_run

CAMERAS, SUBJECTS, INSTANTS = 3, 5, 8  # ROWS = 3 * 5 * 8
FLAT = Fusion(depth=0.25, scale_mm=1e9)  # all views count alike

pytestmark = pytest.mark.usefixtures("short_search")


def rotation(random: np.random.Generator) -> np.ndarray:
    """Draw a rotation [3, 3]."""
    matrix = np.linalg.qr(random.standard_normal((3, 3)))[0]
    return matrix * np.linalg.det(matrix)


def names(subjects: list[str], instants: int) -> list[str]:
    """Name the images of all instants of subjects, from all cameras."""
    return [
        f"{subject}_Walking_{1 + instant % 2}.cam{camera}_{10 * instant:06d}.jpg"
        for subject in subjects
        for instant in range(instants)
        for camera in range(CAMERAS)
    ]


TRAIN = names([f"S{number}" for number in range(1, SUBJECTS + 1)], INSTANTS)
TEST = [*names(["S9"], 3), "S9_Walking_1.cam0_000100.jpg", "S9_Walking_1.cam0_000200.jpg"]  # the last two are alone
GROUPS = {
    "subjects": [name.split("_")[0] for name in TRAIN],
    "sequences": [name.partition(".")[0] for name in TRAIN],
}


@pytest.fixture(autouse=True)
def few_instants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimate rotations also for the few instants of this test set."""
    for module in ("competition.data.views", "competition.runs.fusion"):
        monkeypatch.setattr(f"{module}.LEAST_SHARED", 3)


class Scene:
    """People seen by cameras with known rotations, and predictions with larger errors in depth."""

    def __init__(self, images: list[str], seed: int, members: int = 3) -> None:
        random = np.random.default_rng(seed)
        self.views = views_of(images, "names.txt")
        world = random.normal(0, 300, (int(self.views.instant.max()) + 1, 17, 3))
        world[:, 0] = 0
        self.turn = np.array([[rotation(random) for _ in range(CAMERAS)] for _ in set(self.views.subject)])
        axes = self.turn[self.views.subject, self.views.camera]  # of each image's camera, in the world
        self.true_mm = world[self.views.instant] @ axes
        error = random.normal(0, [20, 20, 100], (members, len(images), 17, 3))
        error[..., 0, :] = 0
        self.member_mm = self.true_mm + error

    def between(self, subject: int, to: int, origin: int) -> np.ndarray:
        """Return the rotation from the axes of one camera to those of another."""
        return self.turn[subject, to].T @ self.turn[subject, origin]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(TRAIN, seed=0)


@pytest.fixture
def problem(scene: Scene) -> Problem:
    residual = (scene.member_mm - scene.true_mm).transpose(2, 3, 0, 1).astype(np.float32)
    return Problem(
        residual=np.ascontiguousarray(residual),
        names=("a:1", "b:1", "c:1"),
        true_mm=scene.true_mm.astype(np.float32),
        subjects=np.array(GROUPS["subjects"]),
        sequences=np.array(GROUPS["sequences"]),
        views=scene.views,
    )


def test_known_rotations_are_recovered(scene: Scene):
    turns = rotations(scene.true_mm, scene.views)
    for subject in range(SUBJECTS):
        for to in range(CAMERAS):
            for origin in range(CAMERAS):
                np.testing.assert_allclose(turns[subject, to, origin], scene.between(subject, to, origin), atol=1e-9)


def test_instants_with_gross_errors_hardly_change_a_rotation():
    random = np.random.default_rng(1)
    true, from_mm = rotation(random), random.normal(0, 300, (40, 17, 3))
    to_mm = from_mm @ true.T
    to_mm[:16] = to_mm[:16] @ [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # all turned by a right angle
    found = align(from_mm, to_mm)
    assert np.degrees(np.arccos((np.trace(found @ true.T) - 1) / 2)) < 3
    assert np.linalg.det(align(from_mm, -from_mm)) == pytest.approx(1)  # a reflection would fit better


def test_two_cameras_with_few_common_instants_have_no_rotation(scene: Scene):
    rows = np.flatnonzero((scene.views.camera != 2) | (scene.views.instant % INSTANTS < 2))
    turns = rotations(scene.true_mm[rows], scene.views.take(rows))
    known = np.isfinite(turns[..., 0, 0])
    assert known[:, 0, 1].all()
    assert known[:, range(CAMERAS), range(CAMERAS)].all()
    assert not known[:, 2, :2].any()
    fused_mm, several = FLAT.fuse(scene.member_mm[0][rows], scene.views.take(rows))
    np.testing.assert_array_equal(several, scene.views.camera[rows] != 2)
    np.testing.assert_array_equal(fused_mm[~several], scene.member_mm[0][rows][~several])


def test_a_fused_pose_is_the_mean_weighted_by_precision(scene: Scene):
    usable = scene.views.usable.copy()
    usable[1, 0] = usable[2, :2] = False
    views = replace(scene.views, usable=usable)
    pose_mm = scene.member_mm[0]
    turns, (fused_mm, several) = rotations(pose_mm, views), FLAT.fuse(pose_mm, views)
    assert several.tolist() == [True, True, False, *[True] * (ROWS - 3)]
    for row, used in ((0, (0, 1, 2)), (1, (1, 2)), (5, (3, 4, 5))):
        total, sum_mm = np.zeros((3, 3)), np.zeros((17, 3))
        for other in used:
            turn = turns[0, views.camera[row], views.camera[other]]
            precision = turn @ np.diag([1, 1, 0.25]) @ turn.T
            total += precision
            sum_mm += pose_mm[other] @ turn.T @ precision
        np.testing.assert_allclose(fused_mm[row], sum_mm @ np.linalg.inv(total), atol=1e-6)
    np.testing.assert_array_equal(fused_mm[2], pose_mm[2])


def test_a_pose_that_contradicts_the_others_counts_less(scene: Scene):
    pose_mm = scene.true_mm.copy()
    pose_mm[0] = pose_mm[0, ::-1]
    images, turn = sources(scene.true_mm, scene.views)
    errors = {}
    for scale_mm in (50.0, 1e9):
        fused_mm = Fusion(depth=1.0, scale_mm=scale_mm).fuse_rows(pose_mm, images[:3], turn[:3])
        errors[scale_mm] = mpjpe(fused_mm, scene.true_mm[:3])
    assert errors[50.0] < 0.1 * errors[1e9]


def test_fusion_follows_the_axes_of_each_camera(scene: Scene):
    """A camera turned about its line of sight has the same poses, turned alike; mirror images have mirror images."""
    fusion, pose_mm = Fusion(depth=0.1, scale_mm=50.0), scene.member_mm[0]
    fused_mm = fusion.fuse(pose_mm, scene.views)[0]
    angle = np.array([0.0, 0.7, -1.2])[scene.views.camera]
    cosine, sine, zero, one = np.cos(angle), np.sin(angle), np.zeros(ROWS), np.ones(ROWS)
    roll = np.array([[cosine, -sine, zero], [sine, cosine, zero], [zero, zero, one]]).transpose(2, 1, 0)
    np.testing.assert_allclose(fusion.fuse(pose_mm @ roll, scene.views)[0], fused_mm @ roll, atol=1e-6)
    mirrored_mm = fusion.fuse(mirror_pose_mm(pose_mm), scene.views)[0]
    np.testing.assert_allclose(mirrored_mm, mirror_pose_mm(fused_mm), atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["image_000001.jpg", *TRAIN], "'image_000001.jpg' doesn't contain subject, take, camera and frame"),
        ([name.replace("_Walking_1.cam", "_cam") for name in TRAIN], "doesn't contain subject, take, camera and frame"),
        ([name.partition("_0")[0] + ".jpg" for name in TRAIN], "doesn't contain subject, take, camera and frame"),
        ([f"TS1_{number:06d}.jpg" for number in range(9)], "TS1: no take and frame has images of two cameras"),
        ([name for name in TRAIN if "S2" not in name or "cam1" in name], "S2: no take and frame has images of two"),
        ([*TRAIN, "S7_Eating.cam0_000001.jpg", "S7_Eating.cam1_000001.jpg"], "S7: at most 1 of its takes and frames"),
        ([*TRAIN, "S7_Eating.cam0_000001.jpg", "S7_Eating.cam1_000002.jpg"], "S7: no take and frame has images of two"),
        ([*TRAIN, TRAIN[4].replace("_0000", "_00000")], "have the same take, frame and camera"),
    ],
)  # fmt: skip
def test_names_without_other_cameras_are_an_error(images: list[str], message: str):
    with pytest.raises(UserError) as caught:
        views_of(images, "names.txt")
    assert message in str(caught.value)
    assert str(caught.value).startswith("--views: names.txt: ")
    assert "\n" not in str(caught.value)


def test_images_of_an_instant_share_take_and_frame():
    names = [
        "S1_Directions.54138969_000001.jpg", "S1_Directions_1.55011271_000001.jpg",
        *(f"S1_Directions{take}.{camera}_{frame:06d}.jpg" for take in ("", "_1") for camera in (54138969, 55011271)
          for frame in (6, 11, 16)),
    ]  # fmt: skip
    views = views_of(names, "")
    assert views.others().tolist() == [0, 0, *[1] * 12]
    assert views.images()[:2].tolist() == [[0, -1], [-1, 1]]  # Directions and Directions 1 are two takes
    assert views.images()[2].tolist() == views.images()[5].tolist() == [2, 5]
    numbered = [f"s_09_act_02_subact_01_ca_0{camera}_{frame:06d}.jpg" for frame in (1, 2, 3) for camera in (1, 2, 3, 4)]
    assert views_of(numbered, "").others().tolist() == [3] * 12


def test_training_images_use_as_many_cameras_as_test_images():
    train = views_of(names([f"S{number}" for number in range(1, 9)], 100), "")
    none = train.limited_like(views_of(TRAIN, ""))
    assert none.usable.all()
    sparse = train.limited_like(views_of(TEST, ""))  # 9 images with two others, 2 with none
    share = np.bincount(sparse.others(), minlength=3) / len(sparse.instant)
    np.testing.assert_allclose(share, [2 / 11, 0, 9 / 11], atol=0.03)
    rows = np.arange(len(sparse.instant))
    assert (sparse.usable_images()[rows, sparse.camera] == rows).all()
    np.testing.assert_array_equal(sparse.usable, train.limited_like(views_of(TEST, "")).usable)
    pairs = views_of([name for name in TRAIN if "cam2" not in name], "")
    assert np.unique(train.limited_like(pairs).usable.sum(axis=0)).min() > len(rows) / 2  # no camera is preferred


def test_rows_are_thinned_by_whole_instants():
    views = views_of(names([f"S{number}" for number in range(1, 9)], 40), "")
    sequences = np.repeat([f"S{number}" for number in range(8)], 40 * CAMERAS)
    rows = choose_instants(views, sequences, 300)
    assert 200 < len(rows) <= 300
    assert (views.take(rows).others() == 2).all()
    assert set(sequences[rows]) == set(sequences)

    views = views_of(names(["S1", "S2"], 3500), "")
    residual = np.zeros((17, 3, 1, len(views.instant)), np.float32)
    thinned = Problem(residual=residual, names=("a:1",), views=views).thinned
    assert len(views.instant) > SEARCH_ROWS >= thinned.rows > 0.9 * SEARCH_ROWS
    assert (thinned.views.others() == 2).all()


def test_the_fit_does_not_depend_on_the_rows_it_is_evaluated_on(problem: Problem):
    gate = Gate(problem, problem.subjects, stack=True)
    changed = problem.true_mm.copy()
    changed[gate.fold == 0] *= 0.5
    residual = problem.residual - (changed - problem.true_mm).transpose(1, 2, 0)[:, :, None]
    other = Gate(replace(problem, true_mm=changed, residual=residual), problem.subjects, stack=True)
    for left_out in ({0}, {0, 3}):
        one, two = (each._fit(with_views(STACK).method, frozenset(left_out)).fusion for each in (gate, other))
        assert (one.depth, one.scale_mm) == (two.depth, two.scale_mm)
        np.testing.assert_allclose(one.level.coefficients, two.level.coefficients, atol=1e-9)
    assert len(gate.folds) == FOLDS


def test_the_gain_is_that_of_the_choice_and_its_views(problem: Problem):
    unequal = problem.residual.copy()
    unequal[:, :, 1:] *= 5
    gate = Gate(replace(problem, residual=unequal), problem.subjects)
    plain, given = gate.evaluate(MEAN), gate.evaluate_views(MEAN, chosen=False)
    assert given.simple == plain.simple == SINGLE
    assert given.nested_mm < 0.7 * plain.nested_mm
    assert given.is_significant
    chosen = gate.evaluate_views(MEAN, chosen=True)  # no fold chooses the mean
    assert chosen.nested_mm < 0.7 * given.nested_mm
    assert chosen.option == given.option == with_views(MEAN)


def test_depth_counts_less_where_its_errors_are_larger(problem: Problem):
    views = with_views(Option(Exact())).method
    assert problem.fit(views).fusion.depth < 0.3
    even = problem.residual.copy()
    even[:, :2] *= 5
    assert replace(problem, residual=even).fit(views).fusion.depth > 0.3


def test_a_second_level_corrects_fused_poses_where_there_are_others(problem: Problem):
    moved = problem.residual.copy()
    moved[16] += 0.5 * problem.true_mm[:, 15].T[:, None]  # the same in all cameras
    usable = problem.views.usable.copy()
    usable[::5] = np.eye(CAMERAS, dtype=bool)[problem.views.camera[::5]]
    changed = replace(problem, residual=moved, views=replace(problem.views, usable=usable))
    stacked, viewed = changed.fit(STACK.method.quick()), changed.fit(with_views(STACK).method.quick())
    assert viewed.beneath == stacked
    assert changed.fit(with_views(Option(Exact())).method).fusion.level is None
    pose_mm = changed.poses()
    own_mm, found_mm = stacked.apply(pose_mm), viewed.apply_with(pose_mm, changed.views)
    alone = changed.views.others() == 0
    assert alone.sum() == ROWS / 5
    np.testing.assert_array_equal(found_mm[alone], own_mm[alone])
    fused_mm = viewed.fusion.fuse(own_mm, changed.views)[0]
    corrected_mm = viewed.fusion.level.correct(fused_mm, own_mm[None])
    np.testing.assert_allclose(found_mm[~alone], corrected_mm[~alone], atol=1e-9)
    assert mpjpe(found_mm[~alone], changed.true_mm[~alone]) < mpjpe(fused_mm[~alone], changed.true_mm[~alone])
    np.testing.assert_allclose(viewed.residual(changed), (found_mm - changed.true_mm).transpose(1, 2, 0), atol=1e-3)


def test_a_shrunk_blend_lies_beneath(problem: Problem):
    option = Option(Exact(), 0.5)
    viewed = problem.fit(with_views(option).method)
    assert isinstance(viewed, fitting.Viewed)
    expected = problem.fit(Exact()).shrunk(0.5, problem.fit(MEAN.method))
    np.testing.assert_array_equal(viewed.beneath.values, expected.values)


def test_it_ships_and_is_recorded(scene: Scene, tmp_path: Path):
    test = Scene(TEST, seed=1)
    for member, name in enumerate("abc"):
        write_run(
            tmp_path / "runs", name, np.arange(1, ROWS + 1), scene.member_mm[member], test.member_mm[member].round(3)
        )
    true = Poses(np.arange(1, ROWS + 1), scene.true_mm)
    views = scene.views, test.views
    result = blend(candidates(tmp_path / "runs"), true, TEST_IDS, tmp_path / "out", views=views, **GROUPS)
    record, plain = result.record, blend(candidates(tmp_path / "runs"), true, TEST_IDS, tmp_path / "plain", **GROUPS)
    assert (record.shipped, record.shipped_method, record.shipped_row) == ("blend", "views", "views")
    assert NOT_MONOCULAR in result.notes
    assert NOT_MONOCULAR not in plain.notes
    table = {row.method: row for row in record.table}
    assert table["views"].mpjpe_in_sample == record.mpjpe_blend_in_sample
    assert table["views"].mpjpe_nested == pytest.approx(record.mpjpe_nested)
    assert table["views"].gain_nested_se > 0
    assert record.gain_over_best_simple > 2 * record.gain_over_best_simple_se > 0
    assert "views" not in {row.method for row in plain.record.table}
    assert result.weights is not None

    poses = {name: read_poses(tmp_path / name / "submission.csv.gz").pose_mm for name in ("out", "plain")}
    errors = {name: mpjpe(pose_mm[:9], test.true_mm[:9]) for name, pose_mm in poses.items()}
    assert errors["out"] < 0.8 * errors["plain"]
    level, fusion = read_fusion(tmp_path / "out/stack.npz", record.candidates)
    assert level is None
    assert fusion.depth < 1
    beneath_mm = np.einsum("jam,mnja->nja", result.weights, test.member_mm.round(3))
    np.testing.assert_allclose(poses["out"], fusion.apply(beneath_mm, test.views), atol=0.00051)
    np.testing.assert_allclose(poses["out"][9:], beneath_mm[9:], atol=0.00051)  # nobody else sees these
    assert len(poses["out"]) == TEST_ROWS


def test_only_predicted_images_are_other_cameras():
    train, test = views_of(TRAIN, ""), views_of(names(["S9"], 4), "")
    assert predicted_views(train, test, np.arange(ROWS)).others().tolist() == [2] * ROWS
    half = np.flatnonzero(train.camera != 2)
    assert predicted_views(train, test, half).others().tolist() == [1] * len(half)
    pairs = views_of([name for name in TRAIN if "cam2" not in name], "")  # test images with one other camera
    assert predicted_views(train, pairs, np.arange(ROWS)).others().tolist() == [1] * ROWS
    assert predicted_views(train, pairs, half).others().tolist() == [1] * len(half)
    with pytest.raises(UserError, match="too few out-of-fold images"):
        predicted_views(train, test, np.flatnonzero(train.camera == 1))


def test_fewer_cameras_out_of_fold_than_in_the_test_set_are_noted(scene: Scene, tmp_path: Path):
    test = Scene(TEST, seed=1)
    kept = np.flatnonzero((scene.views.camera == 0) | ((scene.views.camera == 1) & (scene.views.instant % 2 == 0)))
    for member, name in enumerate("abc"):
        write_run(tmp_path / "runs", name, kept + 1, scene.member_mm[member][kept], test.member_mm[member].round(3))
    true = Poses(np.arange(1, ROWS + 1), scene.true_mm)
    found = candidates(tmp_path / "runs")
    result = blend(found, true, TEST_IDS, tmp_path / "out", views=(scene.views, test.views), **GROUPS)
    assert [note for note in result.notes if "other cameras per out-of-fold image" in note]


def test_images_without_other_cameras_keep_their_poses(problem: Problem):
    alone = problem.take(np.flatnonzero(problem.views.camera == 0))
    viewed = alone.fit(with_views(STACK).method)
    np.testing.assert_allclose(viewed.residual(alone), viewed.beneath.residual(alone), atol=1e-3)


def test_a_median_cannot_lie_beneath():
    assert check_blend("mean", "auto", views=True).name == "mean"
    with pytest.raises(UserError, match="--views with method median"):
        check_blend("median", "auto", views=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda arrays: arrays | {"candidates": np.array(["a:1", "c:1"])}, "candidates"),
        (lambda arrays: arrays | {"views": np.array([0.1, np.nan])}, "views"),
        (lambda arrays: arrays | {"views": np.array([0.1, -50.0])}, "views"),
        (lambda arrays: arrays | {"views": np.array([0.1])}, "views"),
        (lambda arrays: arrays | {"views_coefficients": np.zeros((5, 51, 51))}, "views_coefficients"),
        (lambda arrays: arrays | {"views_offset_mm": np.array([{}] * 51, object)}, "expected an npz"),
        (lambda arrays: {name: array for name, array in arrays.items() if name != "views"}, "expected an npz"),
    ],
)
def test_a_damaged_file_is_rejected(tmp_path: Path, damage, message: str):
    path, names = tmp_path / "stack.npz", ("a:1", "b:1")
    near = {"reference_mm": np.ones((7, 51)), "response_mm": np.ones((7, 51)), "square_mm": 2.0}
    level = SecondLevel(coefficients=np.ones((5, 51, 51)), offset_mm=np.ones(51), **near)
    after = SecondLevel(coefficients=np.full((4, 51, 51), 2.0), offset_mm=np.full(51, 3.0), **near)
    path.write_bytes(fusion_npz(names, level, Fusion(depth=0.1, scale_mm=50.0, level=after)))
    read, fusion = read_fusion(path, names)
    assert read.offset_mm.tolist() == [1.0] * 51
    assert (fusion.depth, fusion.scale_mm, fusion.level.offset_mm.tolist()) == (0.1, 50.0, [3.0] * 51)
    with np.load(path) as arrays:
        damaged = damage(dict(arrays))
    with path.open("wb") as handle:
        np.savez(handle, **damaged)
    with pytest.raises((UserError, RunError), match=message):
        read_fusion(path, names)
