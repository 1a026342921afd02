"""All commands work with the names of other data sets, and with folds that were saved on Windows."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from competition.data.dataset import Dataset
from competition.data.names import NUMBERED_ACTIONS, ImageName, parse_name
from competition.notebook import read_labels, read_test, write_submission, write_valid
from tests.helpers import TINY, Command

CAMERAS = ("54138969", "55011271", "58860488", "60457274")


def _preprocessed(name: ImageName) -> str:
    number = next(int(number) for number, action in NUMBERED_ACTIONS.items() if action == name.action)
    take, camera = int(name.sequence.split("_")[2]), 1 + CAMERAS.index(name.camera)
    return f"s_{int(name.subject[1:]):02d}_act_{number:02d}_subact_{take:02d}_ca_{camera:02d}_{name.frame:06d}.jpg"


def _3dhp(name: ImageName) -> str:
    sequence = 1 + len(name.action) % 2
    return f"{name.subject}_Seq{sequence}_video_{CAMERAS.index(name.camera)}_{name.frame:06d}.JPG"


def _without_subject(name: ImageName) -> str:
    return f"{name.sequence.removeprefix('S')}_cam{CAMERAS.index(name.camera)}_{name.frame}"


SCHEMES: dict[str, tuple[Callable[[ImageName], str], str]] = {  # by name: the new name of an image, the best strategy
    "preprocessed Human3.6M": (_preprocessed, "subject"),
    "MPI-INF-3DHP": (_3dhp, "subject"),
    "no subject and extension": (_without_subject, "sequence"),
}


def rename(root: Path, scheme: Callable[[ImageName], str]) -> None:
    for file in ("train_images.txt", "valid_images.txt"):
        path = root / "annot" / file
        old = path.read_text().split()
        new = [scheme(parsed) for name in old if (parsed := parse_name(name)) is not None]
        assert len(set(new)) == len(old)
        for one, other in zip(old, new, strict=True):
            os.rename(root / "images" / one, root / "images" / other)
        path.write_text("\n".join(new) + "\n")


def write_run(root: Path, folds: Path, submissions: Path) -> None:
    """Write the run of a constant model with noise, in all folds."""
    labels, test = read_labels(root), read_test(root)
    fold = np.array([int(line.rsplit(",", 1)[1]) for line in (folds / "folds.csv").read_text().split("\n")[1:-1]])
    rng = np.random.default_rng(0)
    mean_mm = labels.pose_mm.mean(axis=0) + rng.normal(0, 20, (len(test.id), 17, 3)) * (np.arange(17) > 0)[:, None]
    for number in np.unique(fold):
        held_out, folder = fold == number, submissions / f"noisy/fold{number}"
        write_valid(folder / "valid_epoch01.npz", labels.id[held_out], mean_mm[rng.integers(12, size=held_out.sum())])
        write_submission(folder / "test_epoch01.csv.gz", test.id, mean_mm)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_commands_work_with_other_names(command: Command, own_data: Path, tmp_path: Path, capsys, scheme: str):
    sequences = Dataset(own_data).groups[1]
    assert sequences is not None
    change, strategy = SCHEMES[scheme]
    rename(own_data, change)
    assert command("check", data=own_data) == 0
    printed = capsys.readouterr().out
    assert ("no problems found" in printed) == (strategy == "subject")
    assert ("--strategy sequence" in printed) == (strategy == "sequence")
    assert command("folds", "--strategy", strategy, data=own_data) == 0
    renamed = Dataset(own_data).groups[1]
    assert renamed is not None
    assert len(set(renamed)) <= len(set(sequences))  # each once for all cameras
    write_run(own_data, tmp_path / "folds", tmp_path / "runs")
    assert command("blend", data=own_data) == 0
    blend = json.loads((tmp_path / "runs/blend/blend.json").read_text())
    assert blend["groups"]["by"] == strategy
    for name in ("board", "score", "report"):
        assert command(name, data=own_data) == 0
    assert "warning:" not in capsys.readouterr().out


def test_scores_by_action_have_the_names_of_the_actions(command: Command, own_data: Path, tmp_path: Path):
    rename(own_data, _preprocessed)
    assert command("folds", data=own_data) == 0
    write_run(own_data, tmp_path / "folds", tmp_path / "runs")
    file, scores = tmp_path / "runs/noisy/fold0/test_epoch01.csv.gz", tmp_path / "scores.json"
    assert command("score", "--file", str(file), "--json", str(scores), data=own_data) == 0
    actions = json.loads(scores.read_text())["action"]
    assert actions
    assert set(actions) <= set(NUMBERED_ACTIONS.values())


def test_folds_saved_on_windows_work_everywhere(command: Command, run: Path, tmp_path: Path, capsys):
    path = tmp_path / "folds/folds.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert command("folds", "--k", "2") == 0
    assert "already exists with the same folds" in capsys.readouterr().out
    for arguments in (["check"], ["train", *TINY, "--epochs", "1"], ["blend"], ["board"], ["verify", str(run)]):
        assert command(*arguments) == 0
    printed = capsys.readouterr()
    assert "warning:" not in printed.out + printed.err
