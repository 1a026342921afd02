"""Validate a data folder before hours are spent on it: facts, problems and how to fix them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from competition.common.arrays import Floats
from competition.common.console import bar
from competition.common.errors import Command, DataError, FoldsError
from competition.common.files import sha256_lines
from competition.common.skeleton import BONES, IMAGE_PX, JOINTS, ROOT
from competition.data.faults import Fault, are_finite, is_file_name, mean_distance, outside_image
from competition.data.folds import read_folds
from competition.data.images import ImageFault, find_image_fault, missing_fix, missing_images, read_image
from competition.data.labels import TEST_LIST, TRAIN_LIST, read_label_arrays, read_list
from competition.data.leaks import NEAR_MM, near_copies, split_groups, split_instants, split_instants_fault
from competition.data.matching import axis_correlation, find_doubtful_rows
from competition.data.names import SCHEMES, ImageName, best_strategy, parse_name
from competition.data.row_order import find_order_faults, order_facts

SAMPLE = 20_000  # images to decode, unless all are requested
BONE_CHANGE_MM = 20.0  # within a subject; rigid bones change by rounding only
SPLIT = "held-out images whose sequence is also trained on"
NEAR = f"held-out poses within {NEAR_MM:g} mm of a training pose"


@dataclass(frozen=True, kw_only=True)
class ListFacts:
    """A list of images. The counts of images are empty if the names don't contain the group."""

    images: int
    subjects: dict[str, int]
    actions: dict[str, int]
    cameras: dict[str, int]
    sequences: int  # each counted once for all cameras


@dataclass(frozen=True, kw_only=True)
class LabelFacts:
    """The labelled poses: lengths in mm, and correlations, from -1 to 1."""

    mean_distance_mm: float  # of the joints from the root; mean over the poses, lowest and highest
    least_distance_mm: float
    most_distance_mm: float
    root_offset_mm: float  # largest distance of a coordinate of the root from 0
    correlation_x: float  # of pose2d and pose3d
    correlation_y: float
    leg_order: float | None  # correlation of hips and shoulders, negative if joints 1-3 are the right leg
    joints: int
    joints_outside: int  # of the crop
    images_with_joints_outside: int
    duplicate_poses: int
    mean_pose_mpjpe_mm: float
    bones_mm: dict[str, float]  # mean length by joint at the end
    bone_changes_mm: dict[str, float]  # largest change of a length within a subject, by subject
    instants: int = 0  # seen by several cameras, by which the order of the list was verified
    neighbours: int = 0  # pairs of neighbouring frames, by which it was


@dataclass(frozen=True, kw_only=True)
class FoldFacts:
    """The folds, or the reason why there are none."""

    folder: str
    missing: str | None = None  # the reason; the other values are unknown then
    strategy: str | None = None
    held_out: dict[str, int] = field(default_factory=dict)  # images by fold
    split_sequences: int | None = None  # held-out images whose sequence is also trained on
    split_instants: int | None = None  # held-out images of an instant that is also trained on
    near_copies: int | None = None  # held-out poses within NEAR_MM of a training pose


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """The image files."""

    listed: int
    decoded: int  # fewer than listed if only a sample was requested, or some are missing
    sampled: bool
    duplicates: int  # with the same bytes as another
    unlisted: int  # files that are in no list


@dataclass(kw_only=True)
class Findings:
    """Results of `check`: facts, None if unknown; problems that would make results wrong; warnings to review."""

    training: ListFacts
    test: ListFacts
    labels: LabelFacts | None = None
    folds: FoldFacts | None = None
    images: ImageFacts | None = None
    problems: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    names_match: bool = True  # all names follow a known scheme
    strategy: str = "subject"  # the best one for folds that the training images' names allow
    folds_match: bool = False  # the folds were made for these images


def check(data: Path, folds: Path, *, all_images: bool) -> Findings:
    """Validate names, labels, images (a sample, unless `all_images`) and the folds, if there are any.

    Raise DataError when the folder has none of a competition's files.
    """
    annotations = data / "annot"
    if not any((annotations / file).is_file() for file in (TRAIN_LIST, TEST_LIST, "train.h5")):
        expected = f"images/*.jpg, annot/{TRAIN_LIST}, annot/train.h5 and annot/{TEST_LIST}"
        raise DataError(
            f"no competition at {data}: expected {expected} there",
            fix="generate a synthetic competition, or use another data folder",
            command=Command("data"),
        )
    train, train_faults = read_list(data, TRAIN_LIST)
    test, test_faults = read_list(data, TEST_LIST)
    parsed, parsed_test = [parse_name(name) for name in train], [parse_name(name) for name in test]
    found = Findings(
        training=_list_facts(parsed), test=_list_facts(parsed_test), problems=train_faults + test_faults,
        strategy=best_strategy(train),
    )  # fmt: skip
    _check_names(train, parsed, annotations / TRAIN_LIST, found)
    _check_names(test, parsed_test, annotations / TEST_LIST, found)
    names = [name for name in (*train, *test) if is_file_name(name)]
    if both := sorted(set(train) & set(test) & set(names)):
        found.problems.append(Fault(annotations / TEST_LIST, "training images in the test list", "remove them", both))
    pose2d_px, pose_mm, faults = read_label_arrays(data, len(train) or None)
    found.problems += faults
    sound, strangers = not found.problems, False
    if pose2d_px is not None and pose_mm is not None and len(pose2d_px) == len(pose_mm):
        rows = np.flatnonzero(are_finite(pose2d_px) & are_finite(pose_mm))
        if len(rows) > 1:
            known = [parsed[row] for row in rows] if len(train) == len(pose_mm) else []
            found.labels = _label_facts(pose2d_px[rows], pose_mm[rows], known)
    if sound and pose2d_px is not None and pose_mm is not None:
        found.warnings += find_doubtful_rows(annotations / "train.h5", pose2d_px, pose_mm)
        order = order_facts(parsed, pose_mm)
        strangers = bool(order.blocks.strangers)
        problems, warnings = find_order_faults(annotations / TRAIN_LIST, train, order)
        found.problems += problems
        found.warnings += warnings
        if found.labels is not None:
            found.labels = replace(found.labels, instants=order.instants, neighbours=order.neighbours)
        found.folds = _check_folds(folds, train, parsed, pose_mm, found)
    if found.labels is not None and not strangers:
        _check_bones(annotations / "train.h5", found.labels, found)
    found.images = _check_images(data / "images", sorted(set(names)), all_images, found)
    return found


def _list_facts(names: Sequence[ImageName | None]) -> ListFacts:
    parsed = [name for name in names if name is not None]
    return ListFacts(
        images=len(names),
        subjects=_counts(name.subject for name in parsed),
        actions=_counts(name.action for name in parsed),
        cameras=_counts(name.camera for name in parsed),
        sequences=len({name.sequence for name in parsed}),
    )


def _check_names(images: Sequence[str], names: Sequence[ImageName | None], path: Path, found: Findings) -> None:
    if odd := [image for image, name in zip(images, names, strict=True) if name is None and is_file_name(image)]:
        found.names_match = False
        strategy, fix = (
            "sequence",
            "make folds with the strategy sequence, which groups by the part before the frame number",
        )
        if found.strategy == "holdout":
            strategy, fix = (
                "holdout",
                "rename the images, or make folds with the strategy holdout, which accepts any name",
            )
        what = f"names not like {next(iter(SCHEMES))}"
        found.warnings.append(Fault(path, what, fix, odd, Command("folds", {"strategy": strategy})))


@np.errstate(over="ignore", invalid="ignore")  # huge values, which are a problem of their own, aren't finite facts
def _label_facts(pose2d_px: Floats, pose_mm: Floats, names: Sequence[ImageName | None]) -> LabelFacts:
    distance_mm = mean_distance(pose_mm)
    hips, shoulders = (pose2d_px[:, a, 0] - pose2d_px[:, b, 0] for a, b in ((1, 4), (11, 14)))
    varied = hips.std() > 0 and shoulders.std() > 0
    outside = outside_image(pose2d_px, IMAGE_PX)
    mean_mm = pose_mm.mean(axis=0, dtype=np.float64)
    lengths_mm = np.stack([np.linalg.norm(pose_mm[:, b] - pose_mm[:, a], axis=1) for a, b in BONES], axis=1)  # [N, 16]
    bones = zip(BONES, lengths_mm.mean(axis=0).tolist(), strict=True)
    subjects = np.array([name.subject if name else "" for name in names])
    known = sorted(set(subjects.tolist()) - {""})
    return LabelFacts(
        mean_distance_mm=float(distance_mm.mean()),
        least_distance_mm=float(distance_mm.min()),
        most_distance_mm=float(distance_mm.max()),
        root_offset_mm=float(np.abs(pose_mm[:, ROOT]).max()),
        correlation_x=axis_correlation(pose2d_px, pose_mm, 0),
        correlation_y=axis_correlation(pose2d_px, pose_mm, 1),
        leg_order=float(np.corrcoef(hips, shoulders)[0, 1]) if varied else None,
        joints=int(outside.size),
        joints_outside=int(outside.sum()),
        images_with_joints_outside=int(outside.any(axis=1).sum()),
        duplicate_poses=len(pose_mm) - len({row.tobytes() for row in pose_mm}),
        mean_pose_mpjpe_mm=float(np.linalg.norm(pose_mm - mean_mm, axis=2).mean()),
        bones_mm={JOINTS[joint]: mean for (_, joint), mean in bones},
        bone_changes_mm={one: float(np.ptp(lengths_mm[subjects == one], axis=0).max()) for one in known},
    )


def _check_bones(path: Path, facts: LabelFacts, found: Findings) -> None:
    loose = [f"{subject} by {mm:.0f} mm" for subject, mm in facts.bone_changes_mm.items() if mm > BONE_CHANGE_MM]
    if loose:
        fix = (
            "image list and train.h5 in different order, several people with one name, or noisy labels? "
            "inspect a few of the images"
        )
        found.warnings.append(Fault(path, "bones whose length changes within a subject", fix, loose))


def _check_folds(
    folder: Path, images: Sequence[str], names: Sequence[ImageName | None], pose_mm: Floats, found: Findings
) -> FoldFacts:
    path = folder / "folds.csv"
    if not path.exists():
        return FoldFacts(folder=str(folder), missing="none yet")
    try:
        fold, meta = read_folds(folder, sha256_lines(images))
    except FoldsError as error:
        return FoldFacts(folder=str(folder), missing=error.what)
    found.folds_match = True
    sequences = [name.sequence if name else None for name in names]
    split, near, instants = split_groups(sequences, fold), near_copies(pose_mm, fold), split_instants(pose_mm, fold)
    if (unseen := np.where(split, -1, instants)).max() >= 0:
        found.warnings.append(split_instants_fault(path, images, unseen, meta.strategy))
    for what, leaks in ((SPLIT, split), (NEAR, near)):
        if leaks.any():
            places = [images[int(row)] for row in np.flatnonzero(leaks)]
            fix = "make folds by subject (or sequence) in another folder, or remove the copies"
            command = Command("folds", {"strategy": "subject"})
            found.warnings.append(Fault(path, f"{what}: scores will be too good", fix, places, command))
    return FoldFacts(
        folder=str(folder),
        strategy=meta.strategy,
        held_out={str(number): count for number, count in sorted(Counter(fold[fold >= 0].tolist()).items())},
        split_sequences=int(split.sum()),
        split_instants=int((instants >= 0).sum()),
        near_copies=int(near.sum()),
    )


def _check_images(folder: Path, images: Sequence[str], all_images: bool, found: Findings) -> ImageFacts | None:
    if not folder.is_dir():
        found.problems.append(Fault(folder, f"no such folder, expected {len(images):,} images there", "copy it there"))
        return None
    missing = missing_images(folder, images)
    if missing:
        found.problems.append(Fault(folder, "missing images", missing_fix(folder, missing), missing))
    present = sorted({*images}.difference(missing))
    step = 1 if all_images else max(1, -(-len(present) // SAMPLE))
    sample = present[::step]
    broken: dict[tuple[str, str], list[str]] = defaultdict(list)
    first: dict[bytes, str] = {}
    duplicates = []
    with bar("images", len(sample)) as advance:
        for name in sample:
            if (fault := _decode(folder / name)) is not None:
                broken[fault.what, fault.fix].append(name + fault.detail)
            else:
                digest = hashlib.sha256((folder / name).read_bytes()).digest()
                if first.setdefault(digest, name) != name:
                    duplicates.append(f"{name} same as {first[digest]}")
            advance(1, "")
    found.problems += [Fault(folder, what, fix, names) for (what, fix), names in broken.items()]
    if duplicates:
        fix = "remove the duplicates, or keep them: each copy counts"
        found.warnings.append(Fault(folder, "images with the same bytes as another", fix, duplicates))
    return ImageFacts(
        listed=len(images),
        decoded=len(sample),
        sampled=step > 1,
        duplicates=len(duplicates),
        unlisted=sum(1 for _ in folder.iterdir()) - len(present),
    )


def _decode(path: Path) -> ImageFault | None:
    """Validate an image file's header and decode it; return what is wrong with it."""
    if (fault := find_image_fault(path)) is not None:
        return fault
    try:
        read_image(path)
    except DataError:
        return ImageFault("can't be decoded as an image", "copy it again")
    return None


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
