"""The poster that this toolkit grew out of: what its models scored on the test set of its competition, Human3.6M."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class PosterRow:
    """A row of the poster's table."""

    entrant: str
    setting: str
    test_mm: float  # MPJPE
    averaged: bool  # whether its best prediction is part of the mean


POSTER: Final = (
    PosterRow(entrant="2dhg", setting="2D hourglass x8 + lifter, augmented", test_mm=109.02, averaged=True),
    PosterRow(entrant="2dhg-decay", setting="2D hourglass x4 + lifter, halving", test_mm=110.34, averaged=True),
    PosterRow(entrant="3dhg", setting="3D hourglass", test_mm=99.17, averaged=True),
    PosterRow(entrant="3dhg-aug", setting="3D hourglass, augmented, halving", test_mm=118.28, averaged=False),
)
POSTER_MEAN_MM: Final = 89.69  # of the per-coordinate mean
