"""Correlated members of an ensemble, as residuals: a shared error (hard images), own errors, own biases, own flips."""

import numpy as np

JOINT_MM = np.array([0, 30, 60, 80, 30, 60, 80, 40, 50, 60, 70, 55, 85, 110, 55, 85, 110])


def simulate(rows: int, *, candidates: int = 6, seed: int = 0) -> np.ndarray:
    """Draw residuals float32 [17, 3, candidates, rows] in mm.

    Images are hard or easy (heavy tails); members differ by coordinate in skill and bias; depth is harder; now and
    then a member alone takes the left for the right, a gross error that squares overweigh and distances don't.
    """
    random = np.random.default_rng(seed)
    scale = JOINT_MM[:, None] * np.array([0.6, 0.5, 1.1])
    shared = random.standard_normal((17, 3, rows), np.float32)
    hard = np.exp(0.5 * random.standard_normal(rows, np.float32))
    residual = np.empty((17, 3, candidates, rows), np.float32)
    for member in range(candidates):
        correlation = random.uniform(0.5, 0.75)
        skill = random.uniform(0.8, 1.25, (17, 3)) * scale
        bias = random.normal(0, 0.15, (17, 3, 1))
        own = random.standard_normal((17, 3, rows), np.float32) * np.exp(0.4 * random.standard_normal(rows, np.float32))
        own[0:7, 0] += np.where(random.random(rows) < 0.02, 4, 0)
        error = (correlation * shared + bias) * hard + np.sqrt(1 - correlation**2) * own
        residual[:, :, member] = skill[..., None] * error
    return residual
