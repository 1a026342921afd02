"""Simulated views: one rotation per subject and pair of cameras aligns the true poses, and errors keep their size."""

import numpy as np
import pytest

from competition.bench.simulator import CAMERAS, simulate, simulate_views
from competition.runs.fusion import rotations


def test_the_views_of_an_instant_show_the_same_pose():
    simulated = simulate_views(800, members=2, sequences=20, seed=3)
    assert simulated.true_mm is not None
    assert simulated.views is not None
    turns = rotations(simulated.true_mm.astype(np.float64), simulated.views)
    images = simulated.views.images()
    assert (images >= 0).all()
    assert (simulated.sequence[images] == simulated.sequence[:, None]).all()
    for camera in range(CAMERAS):
        turn = turns[simulated.views.subject, simulated.views.camera, camera]
        turned_mm = simulated.true_mm[images[:, camera]] @ turn.swapaxes(1, 2)
        np.testing.assert_allclose(turned_mm, simulated.true_mm, atol=0.01)


def test_views_have_errors_as_large_as_those_of_one_camera_and_partly_the_same():
    one = simulate(8000, members=3, sequences=2000, seed=3)
    several = simulate_views(8000, members=3, sequences=2000, seed=3)
    np.testing.assert_allclose(several.problem.single_mm, one.problem.single_mm, rtol=0.06)
    assert several.views is not None
    error_mm = several.residual[16, :, 0].T  # [N, 3]
    beside = several.views.images()[np.arange(len(error_mm)), (several.views.camera + 1) % CAMERAS]
    correlation = np.corrcoef(error_mm[:, 1], error_mm[beside, 1])[0, 1]  # of y, the axis of the cameras' rotations
    assert correlation == pytest.approx(0.5, abs=0.1)
    depth, side = np.square(error_mm).mean(axis=0)[[2, 0]]
    assert depth > 1.5 * side
