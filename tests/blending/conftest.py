"""Ground truth and runs with known errors for the tests of blending."""

from pathlib import Path

import numpy as np
import pytest

from competition.bench.simulator import simulate
from competition.blending import search
from competition.common.pose_csv import Poses
from competition.data.labels import read_labels
from tests.blending.helpers import ROWS, TEST_ROWS, write_run
from tests.helpers import N


@pytest.fixture(scope="session")
def every_true_mm() -> np.ndarray:
    """Return true poses of the training and the test set, [ROWS + TEST_ROWS, 17, 3]."""
    pose = np.random.default_rng(1).normal(0, 300, (ROWS + TEST_ROWS, 17, 3))
    pose[:, 0] = 0
    return pose


@pytest.fixture
def true(every_true_mm: np.ndarray) -> Poses:
    return Poses(np.arange(1, ROWS + 1), every_true_mm[:ROWS].copy())


@pytest.fixture
def true_test_mm(every_true_mm: np.ndarray) -> np.ndarray:
    return every_true_mm[ROWS:].copy()


@pytest.fixture
def submissions(tmp_path: Path, true: Poses, true_test_mm: np.ndarray) -> Path:
    """Make runs a, b and c with correlated errors on the training and the test set."""
    error = simulate(ROWS + TEST_ROWS, members=3, seed=2).residual.transpose(2, 3, 0, 1)
    for name, member in zip("cab", error, strict=True):
        test = (true_test_mm + member[ROWS:]).round(3)
        write_run(tmp_path / "submissions", name, true.id, true.pose_mm + member[:ROWS], test)
    return tmp_path / "submissions"


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the search early, as these tests check only how its result is used."""
    monkeypatch.setattr(search, "GAP", 0.002)


@pytest.fixture(scope="session")
def people(data: Path) -> tuple[Poses, np.ndarray]:
    """Return 400 training poses and 240 test poses [n, 17, 3] of people turned to random directions."""
    random = np.random.default_rng(5)
    pose = read_labels(data).pose_mm[random.integers(0, N, 640)].astype(np.float64)
    angle = random.uniform(0, 2 * np.pi, 640)
    x, z = pose[..., 0].copy(), pose[..., 2].copy()
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    pose[..., 0], pose[..., 2] = cosine * x - sine * z, sine * x + cosine * z
    return Poses(np.arange(1, 401), pose[:400]), pose[400:]
