"""Wrong inputs of newcomers: the message names what is wrong and what to write instead."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from competition import notebook as nb
from competition.cli.search import parse_search
from competition.common.errors import UserError
from competition.data.matching import find_pose_mismatches
from models import recipe
from tests.data.damage import change_lines
from tests.helpers import Command

SEARCHES = {
    "lr=1e-3:": ("--search lr=1e-3:: expected two ends", "lr=1:2"),
    "lr=:1e-3": ("expected two ends", "lr=1:2"),
    "lr=nan:1": ("expected two finite numbers", "lr=1:2"),
    "lr=": ("--search lr=: no range or values", "lr alone"),
    "lr ema": ("without a comma", "write lr,ema"),
    "schedule=0:1": ("schedule=0:1: expected different values", "write schedule=0/1"),
    "lr,lr": ("lr is there twice", "once"),
    "lr,,ema": ("a setting without a name", "lr=1e-4:1e-2"),
}


@pytest.mark.parametrize("text", SEARCHES)
def test_a_malformed_search_is_explained(text: str):
    with pytest.raises(UserError) as error:
        parse_search(text, recipe("3dhg-small"))
    for part in SEARCHES[text]:
        assert part in str(error.value)
    assert not any(word in str(error.value) for word in ("None", "True", "False", "(", "["))


@pytest.mark.parametrize("line", ["NA", "image", "1,S1_Directions_1.54138969_000001.jpg"])
def test_folds_names_the_wrong_line(command: Command, own_data: Path, capsys, line: str):
    change_lines(lambda lines: [*lines[:4], line, *lines[5:]])(own_data)
    assert command("folds", data=own_data) == 2
    message = capsys.readouterr().err
    assert "train_images.txt:5" in message
    assert line in message
    assert "--strategy" not in message


def test_folds_in_the_place_of_a_file_are_rejected(command: Command, tmp_path: Path, capsys):
    (tmp_path / "folds").write_text("")
    for arguments in (["folds"], ["train", "--model", "3dhg-small"]):
        assert command(*arguments) == 2
        message = capsys.readouterr().err
        assert "is a file, expected a folder" in message
        assert "disk space" not in message


POSES = np.zeros((3, 17, 3))
CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "mpjpe of NaN": (lambda: nb.mpjpe(np.where(np.arange(3)[:, None, None] == 1, np.nan, POSES), POSES), "row 1 "),
    "poses of other Ids": (lambda: nb.Poses(np.arange(2), POSES), r"\(2,\) and poses \(3, 17, 3\)"),
    "out-of-fold poses as CSV": (lambda: nb.write_valid(Path("x.csv"), np.arange(3), POSES), r"\.npz"),
    "images as text": (lambda: nb.make_folds("S1_Directions_1.54138969_000001.jpg"), "list of image names"),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_in_a_notebook_are_explained(name: str):
    call, message = CALLS[name]
    with pytest.raises((UserError, ValueError), match=message):
        call()
    assert not Path("x.csv").exists()


@pytest.mark.parametrize("axes", [[1, 0, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_advice_for_swapped_axes_restores_the_poses(data: Path, axes: list[int], sign: int):
    labels = nb.read_labels(data)
    parity = np.linalg.det(np.eye(3)[axes])
    pose3d = labels.pose_mm[..., axes] * np.array([sign, 1, sign * parity], np.float32)  # a rotation
    for _ in range(2):
        faults = find_pose_mismatches(Path("train.h5"), labels.pose2d_px, pose3d)
        advice = [fault.fix for fault in faults if "set pose3d = " in fault.fix]
        if not advice:
            break
        pose3d = eval(advice[0].split("set pose3d = ")[1].removesuffix(", and check again"), {"pose3d": pose3d})
    assert not [
        fault for fault in find_pose_mismatches(Path("train.h5"), labels.pose2d_px, pose3d) if "axes" in fault.fix
    ]


def test_the_advice_for_exchanged_arms_names_the_joints(data: Path):
    labels = nb.read_labels(data)
    swapped = labels.pose2d_px[:, [*range(11), 14, 15, 16, 11, 12, 13]]
    (fault,) = find_pose_mismatches(Path("train.h5"), swapped, labels.pose_mm)
    assert "exchange joints 11 and 14, 12 and 15, 13 and 16 of pose2d, otherwise those of pose3d" in fault.fix
