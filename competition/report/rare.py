"""How rare a pose is: its distance to the nearest pose of another subject."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from competition.common.arrays import Float32, Float64, Int64
from competition.common.seeds import generator
from competition.data.labels import Labels
from competition.data.names import ImageName

MOST_ROWS: Final = 2000
MOST_REFERENCES: Final = 5000


@dataclass(frozen=True, kw_only=True)
class Rarity:
    """Distances of n poses to the nearest of `references` poses of other subjects, by ascending training Id."""

    id: Int64  # [n]
    distance_mm: Float64  # [n] MPJPE
    references: int


def find_rarity(labels: Labels, names: Sequence[ImageName] | None, ids: Int64, seed: int) -> Rarity | str:
    """Measure the rarity of at most MOST_ROWS of the poses `ids`; return the reason if it can't be measured."""
    if names is None:
        return "The image names don't contain the subjects."
    subject = np.array([name.subject for name in names])
    if len(np.unique(subject)) < 2:
        return "There is only one subject, and rarity compares different subjects."
    draw = generator(seed, "report", "rarity")
    ids = np.sort(draw.permutation(ids)[:MOST_ROWS])
    others = np.sort(draw.permutation(len(subject))[:MOST_REFERENCES])
    pose_mm = labels.pose_mm
    distance_mm = nearest_of_others(pose_mm[ids - 1], subject[ids - 1], pose_mm[others], subject[others])
    if not np.isfinite(distance_mm).all():
        return f"There are only {len(subject)} labelled images, too few of other subjects."
    return Rarity(id=ids, distance_mm=distance_mm, references=len(others))


def nearest_of_others(
    pose_mm: Float32,
    subject: npt.NDArray[np.str_],
    reference_mm: Float32,
    reference_subject: npt.NDArray[np.str_],
) -> Float64:
    """Return each pose's MPJPE in mm to the nearest reference pose of another subject, infinity without one: [n].

    pose_mm [n, 17, 3] and subject [n]; reference_mm [m, 17, 3] and reference_subject [m].
    """
    by_axis = np.ascontiguousarray(
        reference_mm.transpose(2, 1, 0), np.float32
    )  # [3, 17, m]: sums over long rows are fastest
    nearest = np.full(len(pose_mm), np.inf)
    for row, pose in enumerate(pose_mm.transpose(0, 2, 1).astype(np.float32)):  # [3, 17]
        squared = np.square(by_axis - pose[:, :, None]).sum(axis=0)
        distance = np.sqrt(squared).mean(axis=0)[reference_subject != subject[row]]
        if len(distance):
            nearest[row] = distance.min()
    return nearest
