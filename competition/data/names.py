"""What the file names of images say: subject, action, sequence, camera and frame."""

import re
from collections.abc import Sequence
from typing import NamedTuple

_IMAGE_NAME = re.compile(r"((S\d+)_([A-Za-z]+)(?:[ _](\d+))?)\.(\w+)_(\d+)\.jpe?g", re.ASCII)
FRAME = re.compile(r"(.+?)(?:\.(\w+))?[._ -]\d+\.jpe?g", re.ASCII)  # sequence, camera; no subject


class ImageName(NamedTuple):
    """What a file name says: S1_Directions_1.54138969_000001.jpg."""

    sequence: str  # subject_action_subaction, over all cameras
    subject: str
    action: str
    camera: str
    frame: int


def parse_name(name: str) -> ImageName | None:
    """Split an image's file name into its parts; None when it doesn't follow the competition's pattern."""
    match = _IMAGE_NAME.fullmatch(name)
    if match is None:
        return None
    sequence, subject, action, _, camera, frame = match.groups()
    return ImageName(sequence, subject, action, camera, int(frame))


def subjects_and_sequences(images: Sequence[str]) -> tuple[list[str] | None, list[str] | None]:
    """Return the subject and the sequence of each image by its name; None where a name doesn't tell one of them."""
    names = [parse_name(image) for image in images]
    subjects = [name.subject for name in names if name is not None]
    loose = [FRAME.fullmatch(image) if name is None else None for name, image in zip(names, images, strict=True)]
    known = [name.sequence if name else other[1] if other else None for name, other in zip(names, loose, strict=True)]
    sequences = [sequence for sequence in known if sequence is not None]
    whole = len(images)
    return subjects if len(subjects) == whole else None, sequences if len(sequences) == whole else None
