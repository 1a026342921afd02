"""Validate a data folder before hours are spent on it: facts, problems and how to fix them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from competition.common.arrays import Floats
from competition.common.console import Advance
from competition.common.errors import DataError, FoldsError
from competition.common.files import sha256_lines
from competition.common.skeleton import BONES, IMAGE_PX, JOINTS, ROOT
from competition.data.faults import Fault, are_finite, axis_correlation, is_file_name, mean_distance, outside_image
from competition.data.folds import read_folds
from competition.data.images import ImageFault, find_image_fault, missing_images, read_image
from competition.data.labels import TEST_LIST, TRAIN_LIST, read_label_arrays, read_list
from competition.data.leaks import NEAR_MM, near_copies, split_groups
from competition.data.names import ImageName, parse_name

SAMPLE = 20_000  # images to decode, unless all are requested
BONE_CHANGE_MM = 20.0  # within a subject; rigid bones change by rounding only


@dataclass
class Findings:
    """Results of `check`: facts, problems that would make results wrong, and warnings to review."""

    facts: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))  # by section
    problems: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    names_match: bool = True  # all names follow the competition's pattern
    folds_match: bool = False  # the folds were made for these images


def check(data: Path, folds: Path, *, all_images: bool, advance: Advance) -> Findings:
    """Validate names, labels, images (a sample, unless `all_images`) and the folds, if there are any.

    Raise DataError when the folder has none of a competition's files.
    """
    annotations = data / "annot"
    if not any((annotations / file).is_file() for file in (TRAIN_LIST, TEST_LIST, "train.h5")):
        raise DataError(
            f"no competition at {data}: expected images/*.jpg, annot/{TRAIN_LIST}, annot/train.h5 and "
            f"annot/{TEST_LIST} there: run `make data` to generate a synthetic competition, or set DATA="
        )
    found = Findings()
    train, faults = read_list(data, TRAIN_LIST)
    found.problems += faults
    test, faults = read_list(data, TEST_LIST)
    found.problems += faults
    parsed = _check_names(train, "training", annotations / TRAIN_LIST, found)
    _check_names(test, "test", annotations / TEST_LIST, found)
    names = [name for name in (*train, *test) if is_file_name(name)]
    if both := sorted(set(train) & set(test) & set(names)):
        found.problems.append(Fault(annotations / TEST_LIST, "training images in the test list", "remove them", both))
    pose2d_px, pose_mm, faults = read_label_arrays(data, len(train) or None)
    found.problems += faults
    sound = not found.problems
    if pose2d_px is not None and pose_mm is not None and len(pose2d_px) == len(pose_mm):
        rows = np.flatnonzero(are_finite(pose2d_px) & are_finite(pose_mm))
        if len(rows) > 1:
            _describe_poses(pose2d_px[rows], pose_mm[rows], found)
            known = [parsed[row] for row in rows] if len(train) == len(pose_mm) else []
            _check_bones(annotations / "train.h5", known, pose_mm[rows], found)
    if sound and pose_mm is not None:
        _check_folds(folds, train, parsed, pose_mm, found)
    _check_images(data / "images", sorted(set(names)), all_images, advance, found)
    return found


def _check_names(images: Sequence[str], what: str, path: Path, found: Findings) -> list[ImageName | None]:
    names = [parse_name(image) for image in images]
    parsed = [name for name in names if name is not None]
    facts = found.facts[what]
    facts["images"] = f"{len(images):,}"
    if odd := [image for image, name in zip(images, names, strict=True) if name is None and is_file_name(image)]:
        found.names_match = False
        fix = '`make folds ARGS="--strategy sequence"` (groups by the part before the frame number) or holdout'
        found.warnings.append(Fault(path, "names not like S1_Directions_1.54138969_000001.jpg", fix, odd))
    parts: dict[str, Callable[[ImageName], str]] = {
        "subjects": lambda name: name.subject,
        "actions": lambda name: name.action,
        "cameras": lambda name: name.camera,
    }
    for label, part in parts.items():
        facts[label] = _counts(map(part, parsed)) or "not in the names"
    facts["sequences"] = f"{len({name.sequence for name in parsed}):,}, counted once for all cameras"
    return names


def _describe_poses(pose2d_px: Floats, pose_mm: Floats, found: Findings) -> None:
    facts = found.facts["labels"]
    size_mm = mean_distance(pose_mm)
    least, most, mean = (f"{size:.4g}" for size in (size_mm.min(), size_mm.max(), size_mm.mean()))
    facts["units"] = f"joints are {mean} from the root on average ({least} to {most}); expected mm"
    facts["root"] = f"at most {np.abs(pose_mm[:, ROOT]).max():.2g} mm off (0, 0, 0)"
    x, y = (axis_correlation(pose2d_px, pose_mm, axis) for axis in (0, 1))
    facts["axes"] = f"correlation of pose2d and pose3d: {x:+.2f} in x (right), {y:+.2f} in y (down)"
    hips, shoulders = (pose2d_px[:, a, 0] - pose2d_px[:, b, 0] for a, b in ((1, 4), (11, 14)))
    if hips.std() > 0 and shoulders.std() > 0:
        sign = float(np.corrcoef(hips, shoulders)[0, 1])
        order = "as named" if sign < 0 else "joints 1-3 are the left leg, as in the real competition; this is harmless"
        facts["leg order"] = f"{order} (correlation {sign:+.2f})"
    outside = outside_image(pose2d_px, IMAGE_PX)
    facts["joints outside the crop"] = f"{outside.sum():,} of {outside.size:,}, in {outside.any(axis=1).sum():,} images"
    duplicates = len(pose_mm) - len({row.tobytes() for row in pose_mm})
    facts["duplicate poses"] = f"{duplicates:,}"
    mean_mm = pose_mm.mean(axis=0, dtype=np.float64)
    facts["MPJPE of the mean pose"] = f"{np.linalg.norm(pose_mm - mean_mm, axis=2).mean():.1f} mm, the baseline to beat"


def _check_bones(path: Path, names: Sequence[ImageName | None], pose_mm: Floats, found: Findings) -> None:
    facts = found.facts["labels"]
    lengths_mm = np.stack([np.linalg.norm(pose_mm[:, b] - pose_mm[:, a], axis=1) for a, b in BONES], axis=1)  # [N, 16]
    means = zip(BONES, lengths_mm.mean(axis=0), strict=True)
    facts["bone lengths, mm"] = ", ".join(f"{JOINTS[joint]} {mean:.0f}" for (_, joint), mean in means)
    subjects = np.array([name.subject if name else "" for name in names])
    known = sorted(set(subjects.tolist()) - {""})
    change = {subject: float(np.ptp(lengths_mm[subjects == subject], axis=0).max()) for subject in known}
    if change:
        facts["bone lengths change by"] = ", ".join(f"{subject} {mm:.2f} mm" for subject, mm in change.items())
    if loose := [f"{subject} by {mm:.0f} mm" for subject, mm in change.items() if mm > BONE_CHANGE_MM]:
        fix = (
            "image list and train.h5 in different order, several people with one name, or noisy labels? "
            "inspect a few of the images"
        )
        found.warnings.append(Fault(path, "bones whose length changes within a subject", fix, loose))


def _check_folds(
    folder: Path, images: Sequence[str], names: Sequence[ImageName | None], pose_mm: Floats, found: Findings
) -> None:
    facts = found.facts["folds"]
    path = folder / "folds.csv"
    if not path.exists():
        facts[str(folder)] = "none yet: run `make folds`"
        return
    try:
        fold, meta = read_folds(folder, sha256_lines(images))
    except FoldsError as error:
        facts[str(folder)] = str(error)
        return
    found.folds_match = True
    held_out = Counter(fold[fold >= 0].tolist())
    facts[str(folder)] = f"strategy {meta.strategy}; held-out images by fold: {_counts(held_out.elements())}"
    sequences = [name.sequence if name else None for name in names]
    for label, what, leaks in (
        ("split sequences", "held-out images whose sequence is also trained on", split_groups(sequences, fold)),
        ("near copies", f"held-out poses within {NEAR_MM:g} mm of a training pose", near_copies(pose_mm, fold)),
    ):
        facts[label] = f"{leaks.sum():,} {what}"
        if leaks.any():
            places = [images[int(row)] for row in np.flatnonzero(leaks)]
            fix = '`make folds ARGS="--strategy subject"` (or sequence) with another FOLDS=, or remove the copies'
            found.warnings.append(Fault(path, f"{what}: scores will be too good", fix, places))


def _check_images(folder: Path, images: Sequence[str], all_images: bool, advance: Advance, found: Findings) -> None:
    facts = found.facts["images"]
    if not folder.is_dir():
        found.problems.append(Fault(folder, f"no such folder, expected {len(images):,} images there", "copy it there"))
        return
    missing = missing_images(folder, images)
    if missing:
        found.problems.append(Fault(folder, "missing images", "copy them there, or correct the names", missing))
    present = sorted({*images}.difference(missing))
    step = 1 if all_images else max(1, -(-len(present) // SAMPLE))
    sample = present[::step]
    broken: dict[tuple[str, str], list[str]] = defaultdict(list)
    first: dict[bytes, str] = {}
    duplicates = []
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
    facts["decoded"] = f"{len(sample):,} of {len(images):,}" + ' (ARGS="--all" decodes all)' * (step > 1)
    facts["same bytes as another"] = f"{len(duplicates):,}"
    facts["not in any list"] = f"{sum(1 for _ in folder.iterdir()) - len(present):,}"


def _decode(path: Path) -> ImageFault | None:
    """Validate an image file's header and decode it; return what is wrong with it."""
    if (fault := find_image_fault(path)) is not None:
        return fault
    try:
        read_image(path)
    except DataError:
        return ImageFault("can't be decoded as an image", "copy it again")
    return None


def _counts(values: Any) -> str:
    return ", ".join(f"{value} {count:,}" for value, count in sorted(Counter(values).items()))
