"""Untrusted checkpoints: no code in them is executed, and each fault is reported in one line."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import models
from competition.common.errors import Command as NextCommand
from competition.common.errors import RunError
from competition.training.checkpoint import FORMAT, checkpoint_of, load_checkpoint, load_model, save_checkpoint
from tests.helpers import TINY, Command, Evil, assert_read_or_one_line_error, damaged


@pytest.fixture(scope="session")
def checkpoint(scratch: Path) -> bytes:
    model = models.create("3dhg-small", channels=16, depths=(1, 8), input_size=64)
    save_checkpoint(scratch / "last.pt", checkpoint_of("3dhg-small", model, epoch=1))
    return (scratch / "last.pt").read_bytes()


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_code_is_rejected_without_executing_it(
    tmp_path: Path, trap: Path, zipped: bool, protocol: int
):
    state = {"format": FORMAT, "recipe": "3dhg-small", "model": Evil(trap)}
    if zipped:
        torch.save(state, tmp_path / "last.pt", pickle_protocol=protocol)
    else:
        (tmp_path / "last.pt").write_bytes(pickle.dumps(state, protocol=protocol))
    with pytest.raises(RunError, match=r"last\.pt is not a readable checkpoint .*: delete it to train again$"):
        load_checkpoint(tmp_path / "last.pt")
    assert not trap.exists()


def test_training_does_not_resume_from_a_checkpoint_with_code(command: Command, tmp_path: Path, trap: Path, capsys):
    assert command("folds", "--k", "2") == 0
    folder = tmp_path / "runs/3dhg-small/fold0"
    folder.mkdir(parents=True)
    torch.save(Evil(trap), folder / "last.pt")
    assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 2
    error = capsys.readouterr().err
    assert "last.pt is not a readable checkpoint" in error
    assert error.count("\n") == 1
    assert not trap.exists()


def test_training_does_not_resume_from_a_checkpoint_of_another_optimizer_or_a_damaged_part(
    command: Command, run: Path, capsys
):
    train = ("train", *TINY, "--fold", "0", "--epochs")
    last = run / "fold0/last.pt"
    state = torch.load(last, weights_only=True)
    sums = {"loss_sum": torch.zeros(()), "rng": torch.get_rng_state()}
    for wrong in (
        {"optimizer": {"state": {}, "param_groups": []}},
        {"optimizer": {}},
        {"part": {"step": 1}},
        {"part": {"step": "1"} | sums},
        {"part": {"step": 1} | sums | {"loss_sum": 0.0}},
        {"part": {"step": 1} | sums | {"rng": None}},
    ):
        torch.save(state | wrong, last)
        capsys.readouterr()
        assert command(*train, "2") == 2
        error = capsys.readouterr().err
        assert "last.pt is damaged" in error
        assert ("belongs to another optimizer" in error) == ("optimizer" in wrong)
        assert error.count("\n") == 1


WRONG_STATES = {
    "a list": [1, 2],
    "another format": {"format": 1},
    "only a format": {"format": FORMAT},
    "another recipe": {"recipe": "3dgh-small"},
    "settings that are a list": {"settings": [1]},
    "settings of no recipe": {"settings": {"colour": "red"}},
    "impossible settings": {"settings": {"channels": -1}},
    "weights of another network": {"settings": {"channels": 8, "depths": (1, 4), "input_size": 64}},
    "weights that are numbers": {"model": {"a": 1}},
    "averaged weights that are a number": {"ema": 3},
}


@pytest.mark.parametrize("name", WRONG_STATES)
def test_a_checkpoint_with_unsuitable_content_is_rejected(checkpoint: bytes, tmp_path: Path, name: str):
    wrong = WRONG_STATES[name]
    state = torch.load(io.BytesIO(checkpoint), weights_only=True)
    is_change = isinstance(wrong, dict) and "format" not in wrong
    torch.save(state | wrong if is_change else wrong, tmp_path / "best.pt")
    with pytest.raises(RunError, match=r"best\.pt") as caught:
        load_model(tmp_path / "best.pt")
    assert "\n" not in str(caught.value)


CHANGES: dict[str, Callable[[dict[str, object]], object]] = {
    **{f"no {key}": lambda state, key=key: state.pop(key) for key in ("ema", "optimizer", "part", "recipe", "epoch")},
    "a later format": lambda state: state.update(format=FORMAT + 1),
    "an epoch as text": lambda state: state.update(epoch="one"),
    "a recipe as a number": lambda state: state.update(recipe=3),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_with_one_missing_or_wrong_key_is_rejected(checkpoint: bytes, tmp_path: Path, name: str):
    state = torch.load(io.BytesIO(checkpoint), weights_only=True)
    CHANGES[name](state)
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(RunError, match=r"last\.pt is not a checkpoint of this toolkit"):
        load_checkpoint(tmp_path / "last.pt")


@given(data=st.data())
def test_a_damaged_checkpoint_is_read_or_rejected_in_one_line(scratch: Path, checkpoint: bytes, data: st.DataObject):
    (scratch / "damaged.pt").write_bytes(damaged(checkpoint, data))
    assert_read_or_one_line_error(lambda: load_checkpoint(scratch / "damaged.pt"))


def test_a_compressed_checkpoint_is_not_decompressed(checkpoint: bytes, tmp_path: Path):
    """Torch would decompress ten megabytes to ten gigabytes of zeros."""
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as original:
        entries = {entry.filename: original.read(entry) for entry in original.infolist()}
    for name, method in (("compressed.pt", zipfile.ZIP_DEFLATED), ("plain.pt", zipfile.ZIP_STORED)):
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for entry, content in entries.items():
                archive.writestr(entry, bytes(len(content)) if "/data/" in entry else content)
    assert len(torch.load(tmp_path / "compressed.pt", weights_only=True)["model"]) > 10
    load_checkpoint(tmp_path / "plain.pt")
    with pytest.raises(RunError, match=r"compressed\.pt is not a readable checkpoint .*[\d,]+ bytes when decompressed"):
        load_checkpoint(tmp_path / "compressed.pt")


def test_a_missing_checkpoint_names_the_run_to_train(tmp_path: Path):
    with pytest.raises(RunError, match="no checkpoint at") as caught:
        load_checkpoint(tmp_path / "a/fold0/best.pt")
    assert caught.value.command == NextCommand("train", {"model": None, "run": "a"})


def test_a_checkpoint_of_a_network_with_other_weights_is_rejected_in_one_line(command: Command, run: Path, capsys):
    """For example of an earlier version, whose convolutions had biases."""
    for name in ("last.pt", "best.pt"):
        state = torch.load(run / "fold0" / name, weights_only=True)
        state["model"]["hourglass.stem.0.bias"] = torch.zeros(4)
        torch.save(state, run / "fold0" / name)
    for arguments in (
        ("train", *TINY, "--fold", "0", "--epochs", "2"),
        ("train", *TINY, "--fold", "0", "--epochs", "1", "--init", run.name, "--run", "next"),
        ("predict", "--run", run.name),
    ):
        assert command(*arguments) == 2
        error = capsys.readouterr().err
        assert "of another version of this network, with 1 other weights (hourglass.stem.0.bias, ...)" in error
        assert "train it again as a new run, or use the code at the commit in its config.json" in error
        assert error.count("\n") == 1
