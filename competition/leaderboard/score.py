"""Scoring against the hidden answers of the synthetic competition.

Only this module opens DATA/solution, and only for the command `score`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from competition.common.arrays import Float64
from competition.common.errors import Command, DataError, SubmissionError
from competition.common.files import AnyPath, read_text, to_path
from competition.common.metrics import joint_errors, mean_absolute_axis
from competition.common.pose_csv import Poses, check_plausible, parse_poses, read_poses
from competition.common.skeleton import AXES, JOINTS
from competition.data.dataset import Dataset
from competition.data.names import parse_name
from competition.runs.origin import check_test_set


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of a file on the hidden answers, in mm; None for a part without rows."""

    all: float  # MPJPE, as are those that follow
    public: float | None
    private: float | None
    joint: dict[str, float]
    axis: dict[str, float]  # mean |error|
    action: dict[str, float]


def score(dataset: Dataset, file: AnyPath, *, strict: bool = False) -> Scores:
    """Score a submission: MPJPE of all, public and private rows, per joint and action; mean |error| per axis.

    Raises DataError without hidden answers (a real competition), SubmissionError for an invalid file, and RunError for
    a file of a run or a blend that was made for another test set.
    """
    file = to_path(file)
    names = [parse_name(image) for image in dataset.test.images]
    truth, usage = read_solution(dataset.folder)
    check_test_set(file, dataset)
    if len(truth.id) != len(names):
        raise DataError(
            f"{dataset.folder}: {len(truth.id)} hidden answers, but {len(names)} names in annot/valid_images.txt",
            fix="restore the list of the test images",
        )
    poses = read_poses(file, truth.id)
    if strict:
        check_plausible(poses, file)
    errors = joint_errors(poses.pose_mm, truth.pose_mm)  # [N, 17]
    actions = np.array(["unknown" if name is None else name.action for name in names])
    return Scores(
        all=float(errors.mean()),
        public=_mean(errors[usage == "Public"]),
        private=_mean(errors[usage == "Private"]),
        joint=dict(zip(JOINTS, errors.mean(axis=0).tolist(), strict=True)),
        axis=dict(zip(AXES, mean_absolute_axis(poses.pose_mm, truth.pose_mm).tolist(), strict=True)),
        action={action: float(errors[actions == action].mean()) for action in sorted(set(actions.tolist()))},
    )


def has_answers(data: Path) -> bool:
    """Return whether the hidden answers exist, as in a synthetic competition."""
    return (data / "solution" / "test.csv").exists()


def read_solution(data: Path) -> tuple[Poses, npt.NDArray[np.str_]]:
    """Read the hidden answers: poses by Id, and the usage of each row [N], Public or Private."""
    path = data / "solution" / "test.csv"
    if not path.exists():
        raise DataError(
            f"no hidden answers at {path}",
            fix="only a synthetic competition has them; submit the file to the real competition",
            command=Command("submit"),
        )
    lines = read_text(path, what="solution").rstrip("\n").split("\n")
    cells = [line.rpartition(",") for line in lines]
    if cells[0][2] != "Usage":
        raise DataError(f"{path}:1: the last column is {cells[0][2]!r}, expected 'Usage'")
    try:
        poses = parse_poses("\n".join(head for head, _, _ in cells), path)
    except SubmissionError as error:
        raise error.as_(DataError) from None
    ids = np.array([int(head.partition(",")[0]) for head, _, _ in cells[1:]])
    usage = np.array([last for _, _, last in cells[1:]])[np.argsort(ids)]
    return poses, usage


def _mean(errors: Float64) -> float | None:
    return float(errors.mean()) if len(errors) else None
