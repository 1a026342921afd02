"""A look at a competition's folder before hours are spent on it: what is there, what is wrong, and what to do."""

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
from competition.data.faults import Fault, are_finite, axis_agreement, is_bare, mean_distance, outside_image
from competition.data.folds import read_folds
from competition.data.images import Complaint, image_complaint, missing_images, read_image
from competition.data.labels import TEST_LIST, TRAIN_LIST, look_at_labels, look_at_list
from competition.data.leaks import NEAR_MM, near_copies, split_groups
from competition.data.names import ImageName, parse_name

SAMPLE = 20_000  # images decoded, unless all are asked for
BONE_CHANGE_MM = 20.0  # within a subject; rigid people change by rounding only


@dataclass
class Findings:
    """What `check` found: facts to read, faults that would make wrong results, and what is merely odd."""

    facts: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))  # by section
    problems: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    names_match: bool = True
    folds_match: bool = False  # those in FOLDS were made for these images


def check(data: Path, folds: Path, *, all_images: bool, advance: Advance) -> Findings:
    """Look through names, labels, images (a sample of them, unless `all_images`) and the folds, if there are any.

    Raise DataError when the folder is no competition's at all.
    """
    annotations = data / "annot"
    if not any((annotations / file).is_file() for file in (TRAIN_LIST, TEST_LIST, "train.h5")):
        raise DataError(
            f"no competition at {data}: expected images/*.jpg, annot/{TRAIN_LIST}, annot/train.h5 and "
            f"annot/{TEST_LIST} there: run `make data` for the embedded one, or set DATA="
        )
    found = Findings()
    train, faults = look_at_list(data, TRAIN_LIST)
    found.problems += faults
    test, faults = look_at_list(data, TEST_LIST)
    found.problems += faults
    parsed = _look_at_names(train, "training", annotations / TRAIN_LIST, found)
    _look_at_names(test, "test", annotations / TEST_LIST, found)
    names = [name for name in (*train, *test) if is_bare(name)]
    if both := sorted(set(train) & set(test) & set(names)):
        found.problems.append(Fault(annotations / TEST_LIST, "training images as test images", "remove them", both))
    pose2d_px, pose_mm, faults = look_at_labels(data, len(train) or None)
    found.problems += faults
    whole = not found.problems
    if pose2d_px is not None and pose_mm is not None and len(pose2d_px) == len(pose_mm):
        rows = np.flatnonzero(are_finite(pose2d_px) & are_finite(pose_mm))
        if len(rows) > 1:
            _look_at_poses(pose2d_px[rows], pose_mm[rows], found)
            people = [parsed[row] for row in rows] if len(train) == len(pose_mm) else []
            _look_at_bones(annotations / "train.h5", people, pose_mm[rows], found)
    if whole and pose_mm is not None:
        _look_at_folds(folds, train, parsed, pose_mm, found)
    _look_at_images(data / "images", sorted(set(names)), all_images, advance, found)
    return found


def _look_at_names(images: Sequence[str], what: str, path: Path, found: Findings) -> list[ImageName | None]:
    names = [parse_name(image) for image in images]
    parsed = [name for name in names if name is not None]
    facts = found.facts[what]
    facts["images"] = f"{len(images):,}"
    if odd := [image for image, name in zip(images, names, strict=True) if name is None and is_bare(image)]:
        found.names_match = False
        what_to_do = '`make folds ARGS="--strategy sequence"` (by what precedes the frame number) or holdout'
        found.warnings.append(Fault(path, "names not like S1_Directions_1.54138969_000001.jpg", what_to_do, odd))
    parts: dict[str, Callable[[ImageName], str]] = {
        "subjects": lambda name: name.subject,
        "actions": lambda name: name.action,
        "cameras": lambda name: name.camera,
    }
    for label, part in parts.items():
        facts[label] = _counts(map(part, parsed)) or "the names don't tell"
    facts["sequences"] = f"{len({name.sequence for name in parsed}):,}, all cameras together"
    return names


def _look_at_poses(pose2d_px: Floats, pose_mm: Floats, found: Findings) -> None:
    facts = found.facts["labels"]
    size_mm = mean_distance(pose_mm)
    least, most, mean = (f"{size:.4g}" for size in (size_mm.min(), size_mm.max(), size_mm.mean()))
    facts["units"] = f"the joints lie {mean} from the root on average, {least} to {most}: mm expected"
    facts["root"] = f"at most {np.abs(pose_mm[:, ROOT]).max():.2g} mm off (0, 0, 0)"
    x, y = (axis_agreement(pose2d_px, pose_mm, axis) for axis in (0, 1))
    facts["axes"] = f"correlation of pose2d and pose3d {x:+.2f} in x (to the right), {y:+.2f} in y (down)"
    hips, shoulders = (pose2d_px[:, a, 0] - pose2d_px[:, b, 0] for a, b in ((1, 4), (11, 14)))
    if hips.std() > 0 and shoulders.std() > 0:
        sign = float(np.corrcoef(hips, shoulders)[0, 1])
        order = "as named" if sign < 0 else "1-3 are the left leg, as in the real competition; nothing depends on it"
        facts["leg order"] = f"{order} (correlation {sign:+.2f})"
    outside = outside_image(pose2d_px, IMAGE_PX)
    facts["joints outside the crop"] = f"{outside.sum():,} of {outside.size:,}, in {outside.any(axis=1).sum():,} images"
    twice = len(pose_mm) - len({row.tobytes() for row in pose_mm})
    facts["poses that stand twice"] = f"{twice:,}"
    mean_mm = pose_mm.mean(axis=0, dtype=np.float64)
    facts["MPJPE of the mean pose"] = f"{np.linalg.norm(pose_mm - mean_mm, axis=2).mean():.1f} mm: what to be below"


def _look_at_bones(path: Path, names: Sequence[ImageName | None], pose_mm: Floats, found: Findings) -> None:
    facts = found.facts["labels"]
    lengths_mm = np.stack([np.linalg.norm(pose_mm[:, b] - pose_mm[:, a], axis=1) for a, b in BONES], axis=1)  # [N, 16]
    means = zip(BONES, lengths_mm.mean(axis=0), strict=True)
    facts["bones, mm"] = ", ".join(f"{JOINTS[joint]} {mean:.0f}" for (_, joint), mean in means)
    subjects = np.array([name.subject if name else "" for name in names])
    known = sorted(set(subjects.tolist()) - {""})
    change = {subject: float(np.ptp(lengths_mm[subjects == subject], axis=0).max()) for subject in known}
    if change:
        facts["bones change by"] = ", ".join(f"{subject} {mm:.2f} mm" for subject, mm in change.items())
    if loose := [f"{subject} by {mm:.0f} mm" for subject, mm in change.items() if mm > BONE_CHANGE_MM]:
        fix = (
            "lines of the list out of step with train.h5, several people under one name, or noisy labels? look at some"
        )
        found.warnings.append(Fault(path, "bones that change their length within a subject", fix, loose))


def _look_at_folds(
    folder: Path, images: Sequence[str], names: Sequence[ImageName | None], pose_mm: Floats, found: Findings
) -> None:
    facts = found.facts["folds"]
    path = folder / "folds.csv"
    if not path.exists():
        facts[str(folder)] = "none yet: `make folds`"
        return
    try:
        fold, meta = read_folds(folder, sha256_lines(images))
    except FoldsError as error:
        facts[str(folder)] = str(error)
        return
    found.folds_match = True
    held_out = Counter(fold[fold >= 0].tolist())
    facts[str(folder)] = f"by {meta['strategy']}; held out: {_counts(held_out.elements())}"
    sequences = [name.sequence if name else None for name in names]
    for label, what, leaks in (
        ("split sequences", "held-out images of a sequence that is also trained on", split_groups(sequences, fold)),
        ("near copies", f"held-out poses within {NEAR_MM:g} mm of one that is trained on", near_copies(pose_mm, fold)),
    ):
        facts[label] = f"{leaks.sum():,} {what}"
        if leaks.any():
            places = [images[int(row)] for row in np.flatnonzero(leaks)]
            fix = '`make folds ARGS="--strategy subject"` (or sequence), in another FOLDS=; remove copies'
            found.warnings.append(Fault(path, f"{what}: scores flatter", fix, places))


def _look_at_images(folder: Path, images: Sequence[str], all_images: bool, advance: Advance, found: Findings) -> None:
    facts = found.facts["images"]
    if not folder.is_dir():
        found.problems.append(Fault(folder, f"no such folder, expected {len(images):,} images there", "copy it there"))
        return
    missing = missing_images(folder, images)
    if missing:
        found.problems.append(Fault(folder, "missing images", "copy them there, or mend the names", missing))
    present = sorted({*images}.difference(missing))
    step = 1 if all_images else max(1, -(-len(present) // SAMPLE))
    looked_at = present[::step]
    broken: dict[tuple[str, str], list[str]] = defaultdict(list)
    first: dict[bytes, str] = {}
    twice = []
    for name in looked_at:
        if (complaint := _complaint(folder / name)) is not None:
            broken[complaint.what, complaint.fix].append(name + complaint.detail)
        else:
            digest = hashlib.sha256((folder / name).read_bytes()).digest()
            if first.setdefault(digest, name) != name:
                twice.append(f"{name} as {first[digest]}")
        advance(1, "")
    found.problems += [Fault(folder, what, fix, names) for (what, fix), names in broken.items()]
    if twice:
        fix = "keep one of each, or leave them: each counts twice"
        found.warnings.append(Fault(folder, "images with the same bytes as another", fix, twice))
    facts["decoded"] = f"{len(looked_at):,} of {len(images):,}" + ' (all by ARGS="--all")' * (step > 1)
    facts["same bytes as another"] = f"{len(twice):,}"
    facts["in no list"] = f"{sum(1 for _ in folder.iterdir()) - len(present):,}"


def _complaint(path: Path) -> Complaint | None:
    """Say what makes a file unusable, by its ends and by decoding it."""
    if (complaint := image_complaint(path)) is not None:
        return complaint
    try:
        read_image(path)
    except DataError:
        return Complaint("can't be decoded as an image", "copy it again")
    return None


def _counts(values: Any) -> str:
    return ", ".join(f"{value} {count:,}" for value, count in sorted(Counter(values).items()))
