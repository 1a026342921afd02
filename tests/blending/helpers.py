"""Helpers for the tests of blending: data sizes, and runs written without training."""

from pathlib import Path

import numpy as np

from competition.common.files import write_json
from competition.common.pose_csv import write_poses
from competition.runs.folders import write_valid

ROWS, TEST_ROWS = 120, 11
TEST_IDS = np.arange(1, TEST_ROWS + 1)


def write_run(
    root: Path,
    name: str,
    ids: np.ndarray,
    pose: np.ndarray,
    test: np.ndarray,
    *,
    epoch: int = 1,
    folds: str | None = "f",
) -> None:
    """Write a run of two folds with alternating rows; the folds' test poses are `test` - 5 mm and + 5 mm (root: 0)."""
    shift = np.where(np.arange(17) == 0, 0.0, 5.0)[:, None]
    for fold in range(2):
        folder = root / name / f"fold{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        rows = ids % 2 == fold
        write_valid(folder / f"valid_epoch{epoch:02d}.npz", ids[rows], pose[rows])
        write_poses(folder / f"test_epoch{epoch:02d}.csv.gz", TEST_IDS, test + (shift if fold else -shift))
        if folds is not None:
            write_json(folder / "config.json", {"recipe": name, "folds_sha256": folds})


def write_nan(file: Path) -> None:
    """Replace one coordinate in a file of out-of-fold poses with NaN."""
    with np.load(file) as arrays:
        ids, pose = arrays["id"], arrays["pose"]
    pose[3, 5, 1] = np.nan
    np.savez(file, id=ids, pose=pose)
