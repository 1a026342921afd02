"""A look at a competition's folder before hours are spent on it: what is there, and what would make wrong results."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from competition.console import Advance
from competition.dataset import (
    IMAGE_PX,
    ImageName,
    Labels,
    image_complaint,
    parse_name,
    read_image,
    read_labels,
    read_test,
)
from competition.errors import DataError
from competition.skeleton import BONES, JOINTS

NAMED = 10  # of each kind of problem
SAMPLE = 20_000  # images decoded, unless all are asked for


@dataclass
class Findings:
    """What `check` found: facts to read, and problems that would make wrong results."""

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    names_parse: bool = True


def check(data: Path, *, everything: bool, advance: Advance) -> Findings:
    """Look through the labels, the names and the images (a sample of them, unless `everything`)."""
    found = Findings()
    labels = _try(lambda: read_labels(data), found)
    test = _try(lambda: read_test(data), found)
    images = (labels.images if labels else []) + (test.images if test else [])
    if labels is not None:
        _look_at_names(labels.images, "training", found)
        _look_at_poses(labels, found)
    if test is not None:
        _look_at_names(test.images, "test", found)
    if labels is not None and test is not None and (both := sorted(set(labels.images) & set(test.images))):
        found.problems.append(f"{len(both)} images are both training and test images, the first is {both[0]}")
    if images:
        _look_at_images(data / "images", images, everything, advance, found)
    return found


def _try(read: Callable[[], Any], found: Findings) -> Any:
    try:
        return read()
    except DataError as error:
        found.problems.append(str(error))
        return None


def _look_at_names(images: Sequence[str], what: str, found: Findings) -> None:
    names = [parse_name(image) for image in images]
    parsed = [name for name in names if name is not None]
    found.facts[f"{what} images"] = f"{len(images):,}"
    if len(parsed) < len(images):
        example = images[names.index(None)]
        found.names_parse = False
        found.facts[f"{what} names"] = (
            f"{len(images) - len(parsed)} aren't like S1_Directions_1.54138969_000001.jpg, first {example}: only "
            "--strategy holdout can make folds of them"
        )
    parts: dict[str, Callable[[ImageName], str]] = {
        "subjects": lambda name: name.subject,
        "cameras": lambda name: name.camera,
        "actions": lambda name: name.action,
    }
    for label, part in parts.items():
        counts = sorted(Counter(part(name) for name in parsed).items())
        found.facts[f"{what} {label}"] = ", ".join(f"{name} {count:,}" for name, count in counts)
    found.facts[f"{what} sequences"] = f"{len({name.sequence for name in parsed}):,}"


def _look_at_poses(labels: Labels, found: Findings) -> None:
    pose, pixels = labels.pose_mm.astype(np.float64), labels.pose2d_px.astype(np.float64)
    outside = ((pixels < -0.5) | (pixels > IMAGE_PX - 0.5)).any(axis=2)
    found.facts["joints outside the crop"] = f"{outside.sum():,} of {outside.size:,}"
    if outside.mean() > 0.2:
        found.problems.append(f"{outside.mean():.0%} of pose2d lies outside the {IMAGE_PX}-pixel image: other pixels?")
    right, shoulder = pixels[:, 1, 0] - pixels[:, 4, 0], pixels[:, 11, 0] - pixels[:, 14, 0]
    if len(pose) > 2 and right.std() > 0 and shoulder.std() > 0:
        sign = float(np.corrcoef(right, shoulder)[0, 1])
        order = "as named" if sign < 0 else "1-3 are the left leg, as in the real competition"
        found.facts["leg order"] = f"{order} (correlation {sign:+.2f})"
    subjects = np.array([name.subject if name else "?" for name in map(parse_name, labels.images)])
    lengths = np.stack([np.linalg.norm(pose[:, b] - pose[:, a], axis=1) for a, b in BONES], axis=1)  # [N, 16]
    spread = max(float(np.ptp(lengths[subjects == subject], axis=0).max()) for subject in set(subjects.tolist()))
    found.facts["bone lengths, mean mm"] = ", ".join(
        f"{JOINTS[a]}-{JOINTS[b]} {mean:.0f}" for (a, b), mean in zip(BONES, lengths.mean(axis=0), strict=True)
    )
    found.facts["bone lengths, largest change in a subject"] = f"{spread:.2g} mm"
    twice = len(pose) - len(np.unique(pose.reshape(len(pose), -1), axis=0))
    found.facts["poses that stand twice"] = f"{twice:,}"
    mean_pose = pose.mean(axis=0)
    found.facts["MPJPE of the mean pose"] = f"{np.linalg.norm(pose - mean_pose, axis=2).mean():.1f} mm"


def _look_at_images(folder: Path, images: Sequence[str], everything: bool, advance: Advance, found: Findings) -> None:
    missing = [name for name in images if not (folder / name).is_file()]
    _complain("missing", missing, found)
    present = sorted(set(images) - set(missing))
    step = 1 if everything else max(1, len(present) // SAMPLE)
    looked_at = present[::step]
    broken, hashes = [], Counter[bytes]()
    for name in looked_at:
        try:
            complaint = image_complaint(folder / name)
            if complaint is None:
                read_image(folder / name)
                hashes[hashlib.sha256((folder / name).read_bytes()).digest()] += 1
            else:
                broken.append(f"{name} {complaint}")
        except DataError as error:
            broken.append(str(error).removeprefix(f"{folder}/"))
        advance(1, "")
    _complain("unusable", broken, found)
    found.facts["images decoded"] = f"{len(looked_at):,} of {len(images):,}" + " (--all for all)" * (step > 1)
    found.facts["images with the same bytes as another"] = f"{sum(n - 1 for n in hashes.values()):,}"


def _complain(kind: str, names: Sequence[str], found: Findings) -> None:
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        found.problems.append(f"{len(names)} {kind} images: {'; '.join(names[:NAMED])}{more}")
