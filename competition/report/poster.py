"""The poster that this toolkit reproduces: its models' scores on the competition's test set, from Human3.6M."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class PosterRow:
    """A row of the poster's table."""

    model: str
    setting: str
    test_mm: float  # MPJPE
    averaged: bool  # whether its best prediction is part of the poster's mean


POSTER: Final = (
    PosterRow(model="2dhg", setting="2D hourglass x8 + lifter, augmented", test_mm=109.02, averaged=True),
    PosterRow(model="2dhg-decay", setting="2D hourglass x4 + lifter, halving", test_mm=110.34, averaged=True),
    PosterRow(model="3dhg", setting="3D hourglass", test_mm=99.17, averaged=True),
    PosterRow(model="3dhg-aug", setting="3D hourglass, augmented, halving", test_mm=118.28, averaged=False),
)
POSTER_MEAN_MM: Final = 89.69  # MPJPE of the per-coordinate mean
