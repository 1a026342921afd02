"""Poses for the tests of this folder."""

import numpy as np
import pytest


@pytest.fixture
def pose_mm() -> np.ndarray:
    """Return random poses [5, 17, 3] in mm with the root at the origin and three decimals."""
    pose = np.random.default_rng(0).normal(0, 300, (5, 17, 3)).round(3)
    pose[:, 0] = 0
    return pose
