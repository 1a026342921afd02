"""Ground truth and runs with known errors for the tests of blending."""

from pathlib import Path

import numpy as np
import pytest

from competition.bench.simulator import simulate
from competition.blending import search
from competition.common.pose_csv import Poses
from tests.blending.helpers import ROWS, TEST_ROWS, write_run


@pytest.fixture
def true() -> Poses:
    pose = np.random.default_rng(1).normal(0, 300, (ROWS, 17, 3))
    pose[:, 0] = 0
    return Poses(np.arange(1, ROWS + 1), pose)


@pytest.fixture
def submissions(tmp_path: Path, true: Poses) -> Path:
    """Make runs a, b and c with correlated errors on the training and the test set."""
    error = simulate(ROWS + TEST_ROWS, members=3, seed=2).residual.transpose(2, 3, 0, 1)
    for name, member in zip("cab", error, strict=True):
        test = member[ROWS:].round(3)
        write_run(tmp_path / "submissions", name, true.id, true.pose_mm + member[:ROWS], test)
    return tmp_path / "submissions"


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the search early, as these tests check only how its result is used."""
    monkeypatch.setattr(search, "GAP", 0.002)
