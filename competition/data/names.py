"""Parse image file names: subject, action, sequence, camera and frame."""

import re
from collections.abc import Sequence
from typing import NamedTuple

_IMAGE_NAME = re.compile(r"((S\d+)_([A-Za-z]+)(?:[ _](\d+))?)\.(\w+)_(\d+)\.jpe?g", re.ASCII)
FRAME_NAME = re.compile(
    r"(.+?)(?:\.(\w+))?[._ -]\d+\.jpe?g", re.ASCII
)  # other names: sequence and camera, without a subject


class ImageName(NamedTuple):
    """Parts of a file name such as S1_Directions_1.54138969_000001.jpg."""

    sequence: str  # subject_action_subaction, the same for all cameras
    subject: str
    action: str
    camera: str
    frame: int


def parse_name(name: str) -> ImageName | None:
    """Split a file name into its parts; return None when it doesn't follow the competition's pattern."""
    match = _IMAGE_NAME.fullmatch(name)
    if match is None:
        return None
    sequence, subject, action, _, camera, frame = match.groups()
    return ImageName(sequence, subject, action, camera, int(frame))


def subjects_and_sequences(images: Sequence[str]) -> tuple[list[str] | None, list[str] | None]:
    """Return the subjects and the sequences of images; None for either when a name doesn't contain it."""
    names = [parse_name(image) for image in images]
    subjects = [name.subject for name in names if name is not None]
    others = [FRAME_NAME.fullmatch(image) if name is None else None for name, image in zip(names, images, strict=True)]
    known = [name.sequence if name else other[1] if other else None for name, other in zip(names, others, strict=True)]
    sequences = [sequence for sequence in known if sequence is not None]
    n = len(images)
    return subjects if len(subjects) == n else None, sequences if len(sequences) == n else None
