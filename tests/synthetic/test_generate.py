"""Synthetic competitions: files, labels that match images and cameras, reproducibility, resuming, rejected folders."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from competition.cli.main import main
from competition.common import skeleton
from competition.common.errors import DataError, UserError
from competition.common.pose_csv import HEADER
from competition.data.dataset import Dataset
from competition.synthetic import (
    bodies,
    cameras,
    generate,
    kernels,
    poses,
    render,
    scenes,
)
from competition.synthetic import (
    bones as skeleton_bones,
)
from tests.synthetic.helpers import N_TEST, SEED, N


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "competition"
    generate.generate(root, N, N_TEST, SEED, workers=1)
    return root


def contents(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file by its path."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def labels(root: Path) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(root / "annot" / "train.h5") as handle:
        return handle["pose2d"][:], handle["pose3d"][:]


def test_the_folder_has_the_files_of_the_contract(folder: Path):
    train, test = lines(folder / "annot" / "train_images.txt"), lines(folder / "annot" / "valid_images.txt")
    assert (len(train), len(test)) == (N, N_TEST)
    assert {path.name for path in (folder / "images").iterdir()} == set(train) | set(test)
    assert {name.split("_")[0] for name in train} == set(skeleton.TRAIN_SUBJECTS)
    assert {name.split("_")[0] for name in test} == set(skeleton.TEST_SUBJECTS)
    for name in (*train, *test):
        take, rest = name.split(".", 1)
        _, action, _ = take.split("_")
        camera, frame = rest.removesuffix(".jpg").split("_")
        assert action in skeleton.ACTIONS
        assert camera in skeleton.CAMERAS
        assert int(frame) % 5 == 1
    image = cv2.imread(str(folder / "images" / train[0]))
    assert image.shape == (256, 256, 3)
    assert image.std() > 10
    assert cv2.imread(str(folder / "contact_sheet.jpg")) is not None


def test_labels_have_the_shapes_of_the_contract_and_the_pelvis_at_the_origin(folder: Path):
    pose2d, pose3d = labels(folder)
    assert (pose2d.shape, pose2d.dtype) == ((N, 17, 2), np.float32)
    assert (pose3d.shape, pose3d.dtype) == ((N, 17, 3), np.float32)
    assert not pose3d[:, 0].any()
    assert pose3d[:, 10, 1].mean() < -300  # y is down: the head is above the pelvis
    assert (pose2d > 0).all()
    assert (pose2d < 255).all()
    mean, std = np.loadtxt(folder / "annot" / "mean.txt"), np.loadtxt(folder / "annot" / "std.txt")
    np.testing.assert_allclose(mean, pose3d.astype(float).reshape(N, 51).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(std, pose3d.astype(float).reshape(N, 51).std(axis=0), atol=1e-5)
    assert not std[:3].any()


def test_left_and_right_agree_between_legs_and_arms(folder: Path):
    pose2d, _ = labels(folder)
    across = pose2d[..., 0]
    assert np.corrcoef(across[:, 1] - across[:, 4], across[:, 11] - across[:, 14])[0, 1] < -0.5


def test_bone_lengths_are_constant_per_subject_and_differ_between_subjects(folder: Path):
    _, pose3d = labels(folder)
    names = lines(folder / "annot" / "train_images.txt")
    length = np.stack(
        [np.linalg.norm(pose3d[:, joint] - pose3d[:, parent], axis=1) for parent, joint in skeleton.BONES]
    )
    for subject in skeleton.TRAIN_SUBJECTS:
        of_subject = length[:, [name.startswith(subject + "_") for name in names]]
        assert np.ptp(of_subject, axis=1).max() < 1e-3  # rounding of float32
    assert np.ptp(length[1]) > 5  # thighs differ between subjects


def test_the_crop_is_a_square_around_the_joints_with_a_margin_of_40_pixels():
    view = cameras.make_camera(SEED, "S8", skeleton.CAMERAS[0])
    joints = poses.Take(SEED, "S8", "Greeting", "1", skeleton_bones.draw_bones(SEED, "S8")).posture(17).joints_mm
    seen = view.to_camera(joints)
    full, small = view.project(seen), view.crop(view.project(seen)).project(seen)
    low, high = full.min(axis=0), full.max(axis=0)
    side = (high - low).max() + 40
    corner = (low + high) / 2 - side / 2
    np.testing.assert_allclose(small, (full - corner) * 256 / side - 0.5, atol=1e-9)
    np.testing.assert_allclose((small.min(axis=0) + small.max(axis=0)) / 2, [127.5, 127.5], atol=1e-9)


def test_joints_are_visible_in_the_image_where_their_labels_are():
    view = cameras.make_camera(SEED, "S8", skeleton.CAMERAS[1])
    body = bodies.make_body(SEED, "S8", cell_mm=30.0)
    take = poses.Take(SEED, "S8", "Walking", "1", body.bones)
    posture = take.posture(17)
    seen = view.to_camera(posture.joints_mm)
    crop = view.crop(view.project(seen))
    scene = scenes.draw_scene(take, body, {"only": view})
    solid = render.make_solid(body, posture, scene)
    for joint in (3, 10, 16):
        ball, faces = sphere(posture.joints_mm[joint], 60.0)
        screen = kernels.project(ball, crop.rotation, crop.position_mm, crop.focal_px, crop.centre_px)
        owner = np.full((512, 512), -1, np.int32)
        kernels.draw_triangles(screen, faces, np.zeros((512, 512), np.float32), owner)
        y, x = np.nonzero(owner >= 0)
        centre = (np.array([x.mean(), y.mean()]) + 0.5) / kernels.FINE - 0.5
        np.testing.assert_allclose(centre, crop.project(seen)[joint], atol=0.05)
    image = render.draw(solid, posture, scene, crop, render.make_textures()[0])
    empty = render.draw(replace(solid, triangles=solid.triangles[:0]), posture, scene, crop, render.make_textures()[0])
    visible = np.abs(image - empty).sum(axis=2) > 1
    pixels = np.rint(crop.project(seen)).astype(int)
    assert visible[pixels[:, 1], pixels[:, 0]].mean() > 0.95
    assert 0.03 < visible.mean() < 0.6


def sphere(centre: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices and triangles of a sphere, facing outward."""
    around, up = np.meshgrid(np.linspace(0, 2 * np.pi, 49), np.linspace(0, np.pi, 25))
    points = np.stack([np.cos(around) * np.sin(up), np.sin(around) * np.sin(up), np.cos(up)], axis=-1).reshape(-1, 3)
    faces = []
    for i in range(24):
        for j in range(48):
            a, b, c, d = i * 49 + j, i * 49 + j + 1, (i + 1) * 49 + j, (i + 1) * 49 + j + 1
            faces += [[a, c, d], [a, d, b]]
    return centre + radius * points, np.array(faces, np.int32)


def test_two_workers_write_the_same_files(folder: Path, tmp_path: Path):
    generate.generate(tmp_path / "again", N, N_TEST, SEED, workers=2)
    assert contents(tmp_path / "again") == contents(folder)


def test_a_killed_run_resumes_and_ends_with_the_same_files(folder: Path, tmp_path: Path):
    root = tmp_path / "killed"
    shutil.copytree(folder, root)
    (root / "manifest.json").unlink()
    images = sorted((root / "images").iterdir())
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:2000])
    (root / "images" / ".half.jpg.1.tmp").write_bytes(b"half")
    kept = images[2].stat().st_mtime_ns
    generate.generate(root, N, N_TEST, SEED, workers=1)
    assert contents(root) == contents(folder)
    assert images[2].stat().st_mtime_ns == kept


def test_after_a_full_disk_or_ctrl_c_the_command_prints_one_line_and_can_be_resumed(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    root = tmp_path / "stopped"
    command = ["data", "--data", str(root), "--n", str(N), "--n-test", str(N_TEST), "--seed", str(SEED)]
    command += ["--workers", "1"]
    write = Path.write_bytes
    faults: tuple[tuple[BaseException, int, str], ...] = (
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2, "No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    )
    for fault, code, message in faults:
        shutil.rmtree(root, ignore_errors=True)
        left = iter([None] * 25)  # images that can still be written

        def failing(path: Path, content: bytes, fault: BaseException = fault, left: Iterator[None] = left) -> int:
            if next(left, fault) is not None:
                write(path, content[: len(content) // 2])  # a part is written before the fault
                raise fault
            return write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", failing)
            assert main(command) == code
        error = capsys.readouterr().err.strip()
        assert message in error
        assert "\n" not in error
        assert not (root / "manifest.json").exists()
        assert main(command) == 0
        assert contents(root) == contents(folder)


def test_a_complete_folder_is_not_changed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(generate, "draw_take", None)  # would fail if it were called
    before = (folder / "manifest.json").stat().st_mtime_ns
    generate.generate(folder, N, N_TEST, SEED)
    assert (folder / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("n", "n_test", "seed", "message"),
    [
        (0, 8, SEED, "--n must be at least 1"),
        (24, -2, SEED, "--n-test must be at least 1"),
        (25, 8, SEED, "with n 24, but 25"),
        (24, 9, SEED, "with n_test 8, but 9"),
        (24, 8, 4, "with seed 3, but 4"),
    ],
)
def test_other_counts_and_seeds_are_rejected(folder: Path, n: int, n_test: int, seed: int, message: str):
    before = contents(folder)
    with pytest.raises(DataError, match=message) as caught:
        generate.generate(folder, n, n_test, seed)
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


def test_a_folder_of_another_version_is_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(generate, "VERSION", "0")
    with pytest.raises(DataError, match="generated with version"):
        generate.generate(folder, N, N_TEST, SEED)


def test_a_folder_with_other_content_is_rejected_and_not_changed(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="was not generated"):
        generate.generate(tmp_path, 4, 4, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(DataError, match="is a file"):
        generate.generate(tmp_path / "thesis.txt", 4, 4, 0)


def test_the_hidden_answers_have_the_submission_columns_and_usage_by_take(folder: Path):
    header, *rows = lines(folder / "solution" / "test.csv")
    assert header == HEADER + ",Usage"
    names = lines(folder / "annot" / "valid_images.txt")
    usage: dict[str, set[str]] = {}
    for number, (name, row) in enumerate(zip(names, rows, strict=True), start=1):
        cells = row.split(",")
        assert int(cells[0]) == number
        assert cells[1:4] == ["0.000"] * 3
        assert all(len(cell.split(".")[1]) == 3 for cell in cells[1:-1])
        usage.setdefault(name.split(".")[0], set()).add(cells[-1])
    assert all(len(found) == 1 for found in usage.values())
    assert set.union(*usage.values()) == {"Public", "Private"}


def test_the_manifest_records_that_data_are_synthetic_and_their_settings(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["synthetic"] is True
    assert (manifest["seed"], manifest["n"], manifest["n_test"]) == (SEED, N, N_TEST)
    assert len(manifest["labels_sha256"]) == 64
    assert "not Human3.6M" in manifest["note"]
    assert Dataset(folder).is_synthetic


@pytest.mark.parametrize(
    ("content", "synthetic"), [('{"synthetic": true}', True), ('{"synthetic": false}', False), ('{"n": 3}', False)]
)
def test_the_manifest_records_whether_data_are_synthetic(tmp_path: Path, content: str, synthetic: bool):
    assert not Dataset(tmp_path).is_synthetic
    (tmp_path / "manifest.json").write_text(content)
    assert Dataset(tmp_path).is_synthetic is synthetic


def test_a_damaged_manifest_is_reported(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"synthetic": "yes"}')
    with pytest.raises(UserError, match="'synthetic' is str, expected bool"):
        assert Dataset(tmp_path).is_synthetic
    with pytest.raises(DataError, match="delete this one"):
        generate.generate(tmp_path, 4, 4, 0)
