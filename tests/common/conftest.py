"""Poses, and a valid CSV of them."""

import numpy as np
import pytest


@pytest.fixture
def pose_mm() -> np.ndarray:
    pose = np.random.default_rng(0).normal(0, 300, (5, 17, 3)).round(3)
    pose[:, 0] = 0
    return pose
