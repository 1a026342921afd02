"""Simulated views: one rotation per subject and pair of cameras aligns the true poses, and errors keep their size."""

import numpy as np
import pytest

from competition.bench.simulator import Simulated, simulate
from competition.runs.fusion import rotations

CAMERAS = 4


def turned(simulated: Simulated, values: np.ndarray, beside: int) -> np.ndarray:
    """Return values [N, 17, 3] of the image that the camera `beside` places further took, in the own camera's axes."""
    views = simulated.views
    other = (views.camera + beside) % CAMERAS
    turn = rotations(simulated.true_mm.astype(np.float64), views)[views.subject, views.camera, other]
    image = views.images()[np.arange(len(values)), other]
    assert (image >= 0).all()
    assert (simulated.sequence[image] == simulated.sequence).all()
    return values[image] @ turn.swapaxes(1, 2)


def test_the_views_of_an_instant_show_the_same_pose():
    simulated = simulate(800, members=2, sequences=20, cameras=CAMERAS, seed=3)
    for beside in range(CAMERAS):
        np.testing.assert_allclose(turned(simulated, simulated.true_mm, beside), simulated.true_mm, atol=0.01)
    other = simulate(800, members=2, sequences=20, cameras=CAMERAS, seed=3, draw=1)
    assert abs(other.true_mm - simulated.true_mm).mean() > 50
    assert len(np.unique(simulated.subject)) == 5


def test_every_camera_has_the_errors_of_one_camera_and_half_of_them_in_common():
    one = simulate(4000, members=3, sequences=1000, seed=3)
    several = simulate(16000, members=3, sequences=1000, cameras=CAMERAS, subjects=50, seed=3)
    np.testing.assert_allclose(several.problem.single_mm, one.problem.single_mm, rtol=0.06)
    error_mm = several.residual[:, :, 0].transpose(2, 0, 1)  # [N, 17, 3]
    spread_mm = error_mm.std(axis=0)
    for camera in range(CAMERAS):
        np.testing.assert_allclose(error_mm[several.views.camera == camera].std(axis=0), spread_mm, rtol=0.15)
    np.testing.assert_allclose(spread_mm[1:], one.residual[:, :, 0].std(axis=2)[1:], rtol=0.15)
    unit = error_mm / np.maximum(spread_mm, 1e-9)  # so that axes are alike
    for beside in (1, 2, 3):
        other = turned(several, unit, beside)
        for axis in range(3):
            correlation = np.corrcoef(unit[:, 13:, axis].ravel(), other[:, 13:, axis].ravel())[0, 1]
            assert correlation == pytest.approx(0.5, abs=0.1), (beside, axis)
