"""Write the embedded competition's folder: images, labels, hidden answers, and last of all its manifest.

An image depends on the seed and its own name alone; workers take whole takes. What a killed run has left behind is
used by the next one with the same seed and counts.
"""

import hashlib
import io
import math
import os
import sys
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from competition.common import files
from competition.common.arrays import Float32, Float64
from competition.common.errors import DataError, UserError
from competition.common.geometry import centre_on_root
from competition.common.pose_csv import HEADER
from competition.common.seeds import derive, generator
from competition.common.skeleton import JOINTS, TEST_SUBJECTS, TRAIN_SUBJECTS
from competition.common.workers import worker_processes
from competition.synthetic import bodies, cameras, render, scenes
from competition.synthetic.contact import draw_sheet
from competition.synthetic.plan import TakePlan, plan_takes
from competition.synthetic.poses import Take

VERSION = "3"  # of the generator: another one makes other people
PIECE_SHOTS = 25  # instants that a worker draws at a time
PUBLIC_SHARE = 0.3  # of the test takes
NOTE = "synthetic people: scores on them are not Human3.6M scores"
MARKER = ".synthetic.json"  # says whose folder it is before the manifest says that it is whole


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of images in the order of `names`."""

    names: list[str]
    pose_px: Float64  # [N, 17, 2] in the crop
    pose_mm: Float64  # [N, 17, 3] in camera axes, relative to the pelvis


def generate(root: Path, n: int, n_test: int, seed: int, workers: int | None = None) -> None:
    """Write a competition of n training and n_test test images to `root`; do nothing when it is there already.

    Raises DataError for counts below 1, for a folder that holds anything else, and when the disk is full.
    """
    root = Path(root)
    for flag, count in (("n", n), ("n-test", n_test)):
        if count < 1:
            raise DataError(f"--{flag} must be at least 1, but got {count}")
    identity = {"version": VERSION, "seed": seed, "n": n, "n_test": n_test}
    train = plan_takes(seed, n, TRAIN_SUBJECTS)
    test = plan_takes(seed, n_test, TEST_SUBJECTS)
    try:
        if _is_whole(root, identity, train + test):
            return
        (root / "images").mkdir(parents=True, exist_ok=True)
        files.write_json(root / MARKER, identity)
        for left in root.rglob(".*.tmp"):
            left.unlink()
        labels = _draw_all(root, seed, train + test, workers or len(os.sched_getaffinity(0)))
        train_labels, test_labels = (_gather(labels, subjects) for subjects in (TRAIN_SUBJECTS, TEST_SUBJECTS))
        _write_labels(root, seed, identity, train_labels, test_labels, test)
    except OSError as error:
        raise DataError(
            f"can't write {error.filename or root}: {error.strerror or error}: mend that and run the same command again"
        ) from None


def _is_whole(root: Path, identity: dict[str, Any], plans: list[TakePlan]) -> bool:
    """Whether the folder is ours and complete; raise DataError when it is someone else's."""
    if root.exists() and not root.is_dir():
        raise DataError(f"{root} is a file, expected a folder: choose another --data")
    if not root.exists() or not any(root.iterdir()):
        return False
    manifest = root / "manifest.json"
    record = manifest if manifest.exists() else root / MARKER
    if not record.exists():
        raise DataError(f"{root} is not empty and was not made here: choose another --data; nothing is overwritten")
    try:
        found = files.read_json(record, what="synthetic data")
    except UserError as error:
        raise DataError(f"{error}: choose another --data, or remove the folder to make it anew") from None
    for key, value in identity.items():
        if found.get(key) != value:
            raise DataError(
                f"{root} was made with {key} {found.get(key)}, but {value} was asked for: choose another --data, "
                "or remove the folder to make it anew"
            )
    if not manifest.exists():
        return False
    present = set(os.listdir(root / "images")) if (root / "images").is_dir() else set()
    return present.issuperset(name for plan in plans for _, _, name in plan.images())


def _draw_all(root: Path, seed: int, plans: list[TakePlan], workers: int) -> list[Labels]:
    """Draw all takes, in this process or in `workers` others; return their labels in any order."""
    total = sum(len(plan.images()) for plan in plans)
    pieces = [
        replace(plan, shots=plan.shots[start : start + PIECE_SHOTS])
        for plan in plans
        for start in range(0, len(plan.shots), PIECE_SHOTS)
    ]
    labels = []
    with Progress(
        TextColumn("drawing people"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
    ) as progress:  # fmt: skip
        bar = progress.add_task("images", total=total)
        for result in _run(root, seed, pieces, min(workers, len(pieces))):
            labels.append(result)
            progress.advance(bar, len(result.names))
    return labels


def _run(root: Path, seed: int, plans: list[TakePlan], workers: int) -> Iterator[Labels]:
    """Draw pieces of takes one after another, or each in any of `workers` processes."""
    if workers <= 1:
        for plan in plans:
            yield draw_take(root, seed, plan)
        return
    draw_take(root, seed, replace(plans[0], shots=plans[0].shots[:1]))  # compiles, once for all workers
    with worker_processes(workers) as pool:
        for future in as_completed([pool.submit(draw_take, root, seed, plan) for plan in plans]):
            yield future.result()


@lru_cache(maxsize=2)  # takes come sorted by subject
def _body(seed: int, subject: str) -> bodies.Body:
    return bodies.make_body(seed, subject)


@lru_cache(maxsize=1)
def _textures() -> tuple[Float32, Float32]:
    cv2.setNumThreads(1)
    return render.make_textures()


def draw_take(root: Path, seed: int, plan: TakePlan) -> Labels:
    """Draw the images of a take that are not there yet; return the labels of all of them."""
    body = _body(seed, plan.subject)
    views = cameras.make_cameras(seed, plan.subject)
    take = Take(seed, plan.subject, plan.action, plan.part, body.bones)
    scene = scenes.draw_scene(take, body, views)
    texture, grain = _textures()
    names, pose_px, pose_mm = [], [], []
    posture, solid, drawn = None, None, -1
    for number, camera, name in plan.images():
        if drawn != number:
            posture, solid, drawn = take.posture(plan.shots[number].frame), None, number
        assert posture is not None
        view = views[camera]
        seen = view.see(posture.joints_mm)
        crop = view.crop(view.project(seen))
        names.append(name)
        pose_px.append(crop.project(seen))
        pose_mm.append(centre_on_root(seen))
        path = root / "images" / name
        if _is_whole_jpeg(path):
            continue
        if solid is None:
            solid = render.make_solid(body, posture, scene)
        picture = render.draw(solid, posture, scene, crop, texture)
        # not by files.atomic, whose two fsyncs take as long as the drawing: a half image is found and drawn again
        path.write_bytes(render.develop(picture, scene, generator(seed, "develop", name), grain))
    return Labels(names=names, pose_px=np.array(pose_px), pose_mm=np.array(pose_mm))


def _is_whole_jpeg(path: Path) -> bool:
    """Whether a file is there from the first to the last marker of a JPEG."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    return content[:2] == b"\xff\xd8" and content[-2:] == b"\xff\xd9"


def _gather(labels: list[Labels], subjects: tuple[str, ...]) -> Labels:
    """Put the labels of some subjects together, sorted by the images' names."""
    parts = [part for part in labels if part.names[0].split("_")[0] in subjects]
    names = [name for part in parts for name in part.names]
    order = sorted(range(len(names)), key=names.__getitem__)
    return Labels(
        names=[names[index] for index in order],
        pose_px=np.concatenate([part.pose_px for part in parts])[order],
        pose_mm=np.concatenate([part.pose_mm for part in parts])[order],
    )


def _write_labels(
    root: Path, seed: int, identity: dict[str, Any], train: Labels, test: Labels, test_plans: list[TakePlan]
) -> None:
    """Write everything but the images, the manifest last."""
    files.write_text(root / "annot" / "train_images.txt", "\n".join(train.names) + "\n")
    files.write_text(root / "annot" / "valid_images.txt", "\n".join(test.names) + "\n")
    content = io.BytesIO()
    with h5py.File(content, "w") as handle:
        handle["pose2d"] = train.pose_px.astype(np.float32)
        handle["pose3d"] = train.pose_mm.astype(np.float32)
    files.write_bytes(root / "annot" / "train.h5", content.getvalue())
    flat = train.pose_mm.astype(np.float32).astype(np.float64).reshape(len(train.names), -1)
    for name, values in (("mean.txt", flat.mean(axis=0)), ("std.txt", flat.std(axis=0))):
        files.write_text(root / "annot" / name, "".join(f"{value:.6f}\n" for value in values + 0.0))
    _write_solution(root / "solution" / "test.csv", test, public_takes(seed, test_plans))
    step = max(1, len(train.names) // 4000)  # the sheet needs no more
    sheet = draw_sheet(root / "images", train.names[::step], train.pose_px[::step])
    files.write_bytes(root / "contact_sheet.jpg", sheet)
    digest = hashlib.sha256()
    for part in (train, test):
        digest.update("\n".join(part.names).encode())
        digest.update(part.pose_px.astype("<f4").tobytes() + part.pose_mm.astype("<f4").tobytes())
    os.sync()  # no manifest before all images are on the disk
    manifest = {"synthetic": True, **identity, "labels_sha256": digest.hexdigest(), "note": NOTE}
    files.write_json(root / "manifest.json", manifest)


def public_takes(seed: int, plans: list[TakePlan]) -> set[str]:
    """Choose the takes whose rows the public board scores."""
    names = sorted((plan.name for plan in plans), key=lambda name: derive(seed, "usage", name))
    return set(names[: math.ceil(PUBLIC_SHARE * len(names))])


def _write_solution(path: Path, test: Labels, public: set[str]) -> None:
    rows = test.pose_mm.reshape(-1, 3 * len(JOINTS)).copy()
    rows[np.abs(rows) < 0.0005] = 0.0  # no -0.000
    line = "%d" + ",%.3f" * rows.shape[1] + ",%s"
    lines = [HEADER + ",Usage"]
    for number, (name, row) in enumerate(zip(test.names, rows.tolist(), strict=True), start=1):
        lines.append(line % (number, *row, "Public" if name.split(".")[0] in public else "Private"))
    files.write_text(path, "\n".join(lines) + "\n")
