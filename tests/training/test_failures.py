"""Errors of models and memory are reported in one line."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import models
from competition.cli.main import main
from competition.common.errors import RunError
from competition.training import loop
from competition.training.failures import report_out_of_memory
from models.recipes import ThreeD, require
from tests.helpers import Command
from tests.training.helpers import TRAIN


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), MemoryError()])
def test_out_of_memory_errors_of_gpu_and_python_become_one_line(error: Exception):
    with pytest.raises(RunError, match=r"^out of memory: use less$"), report_out_of_memory("use less"):
        raise error


BROKEN = {
    "a syntax error": ("class Own(:\n    pass\n", "SyntaxError at models/own.py:1"),
    "an import of a missing module": ("\nimport nowhere_to_be_found\n", "ModuleNotFoundError at models/own.py:2"),
    "a constructor that fails": ("def Own(recipe):\n    return int('wide')\n", "ValueError at models/own.py:2"),
    "a forward pass that fails": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def forward(self, images):
        return super().forward(images.flatten())
""",
        "at models/own.py:5",
    ),
    "a loss that fails": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def loss(self, output, target):
        return {"total": output.poses_mm}
""",
        "AttributeError at models/own.py:5",
    ),
    "a forward pass that fails only for prediction": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def forward(self, images):
        return super().forward(images if self.training else images.flatten())
""",
        "at models/own.py:5",
    ),
    "a forward pass that returns a tensor": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def forward(self, images):
        return super().forward(images).pose_mm
""",
        "forward returned Tensor [8, 17, 3], expected an Output",
    ),
    "a forward pass that returns nothing, only for prediction": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def forward(self, images):
        return super().forward(images) if self.training else None
""",
        "forward returned NoneType, expected an Output",
    ),
    "a loss without total": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def loss(self, output, target):
        return {"pose": output.pose_mm.sum()}
""",
        "loss returned a dict of 'pose': Tensor [], expected a dict with a scalar tensor 'total'",
    ),
    "a loss that isn't reduced": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def loss(self, output, target):
        return {"total": output.pose_mm}
""",
        "loss returned a dict of 'total': Tensor [8, 17, 3], expected",
    ),
    "a loss that is a number": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def loss(self, output, target):
        return float(output.pose_mm.sum())
""",
        "loss returned float, expected a dict",
    ),
    "poses without a batch": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def forward(self, images):
        return super().forward(images)._replace(pose_mm=self.pose_mean_mm)
""",
        "forward returned pose_mm [17, 3] of torch.float32, expected [8, 17, 3] of floats",
    ),
    "poses of another batch": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def forward(self, images):
        return super().forward(images[:1])
""",
        "forward returned pose_mm [1, 17, 3] of torch.float32, expected [8, 17, 3]",
    ),
    "flat poses": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def forward(self, images):
        output = super().forward(images)
        return output._replace(pose_mm=output.pose_mm.flatten(1))
""",
        "forward returned pose_mm [8, 51] of torch.float32, expected [8, 17, 3]",
    ),
    "poses without the root, only for prediction": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def forward(self, images):
        output = super().forward(images)
        return output if self.training else output._replace(pose_mm=output.pose_mm[:, 1:])
""",
        "16, 3] of torch.float32, expected [",
    ),
    "poses of whole numbers": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def forward(self, images):
        output = super().forward(images)
        return output._replace(pose_mm=output.pose_mm.long())
""",
        "forward returned pose_mm [8, 17, 3] of torch.int64, expected [8, 17, 3] of floats",
    ),
    "a loss that is NaN at once": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def loss(self, output, target):
        return {"total": super().loss(output, target)["total"] * float("nan")}
""",
        "the loss of the first step is nan (Ids [",
    ),
    "poses that are NaN": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def forward(self, images):
        output = super().forward(images)
        return output._replace(pose_mm=output.pose_mm * float("nan"))
""",
        "the predicted pose of Id ",
    ),
    "a loss that depends on no parameter": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def loss(self, output, target):
        return {"total": target.pose_mm.mean()}
""",
        "the loss 'total' depends on no parameter",
    ),
    "a loss that has no gradient": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def loss(self, output, target):
        total = output.maps[0].sigmoid()
        total.mul_(2)
        return {"total": total.mean()}
""",
        "RuntimeError in the backward pass",
    ),
    "no Module": (
        "import torch\ndef Own(recipe):\n    return torch.nn.Linear(3, 3)\n",
        "models.own:Own is Linear, expected a subclass of models.contract.Module",
    ),
    "no parameters": (
        """
from models.contract import Module
class Own(Module):
    def __init__(self, recipe):
        super().__init__(recipe, 64)
""",
        "models.own:Own has no parameters to train",
    ),
    "no class of that name": (
        "",
        "expected network = \"models.file:Class\" in ThreeD, but got network='models.own:Own'",
    ),
}


@pytest.mark.parametrize("network", ["", "models.own", "models.own:", ":Own", "models.nowhere:Own", "nowhere.own:Own"])
def test_a_recipe_that_names_no_network_is_reported_in_one_line(
    command: Command, folds: None, monkeypatch: pytest.MonkeyPatch, capsys, network: str
):
    monkeypatch.setattr(ThreeD, "network", network)
    assert command(*TRAIN) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: model 3dhg-small: expected network = ")
    assert f"but got network={network!r}" in error
    assert error.count("\n") == 1


class NoRecipe:
    """Not derived from Recipe."""


class Undecorated(ThreeD):
    """Its setting isn't a field, so that it couldn't be set."""

    width: int = 3


@dataclass
class Entry:
    """A dataclass, but no recipe."""

    epochs: int = 2


ENTRIES = {
    "a dict": ({"epochs": 2}, "MODELS has a dict, expected an instance of a recipe: @dataclass(frozen=True, kw_only"),
    "another class": (NoRecipe(), "MODELS has a NoRecipe, expected an instance of a recipe"),
    "another dataclass": (Entry(), "MODELS has a Entry, expected an instance of a recipe"),
    "the class": (ThreeD, "MODELS has the class ThreeD, expected an instance of a recipe"),
    "None": (None, "MODELS has a NoneType, expected an instance of a recipe"),
    "no dataclass": (Undecorated(), "kw_only=True) above the class Undecorated, which has settings (width)"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_model_without_a_recipe_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys, name: str):
    entry, expected = ENTRIES[name]
    monkeypatch.setitem(models.MODELS, "own", entry)
    assert main(["train", "--model", "own"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: model own: ")
    assert expected in error
    assert error.count("\n") == 1


def test_a_recipe_without_settings_of_its_own_needs_no_decorator(monkeypatch: pytest.MonkeyPatch):
    class Plain(ThreeD):
        network: ClassVar[str] = "models.own:Own"

    monkeypatch.setitem(models.MODELS, "own", Plain())
    assert models.recipe("own", epochs=3).epochs == 3


@pytest.fixture
def own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a function that replaces the network of 3dhg-small by the class Own of a module with the given code."""
    folder = tmp_path / "models"

    def replace(code: str) -> None:
        folder.mkdir()
        (folder / "own.py").write_text(code)
        monkeypatch.setattr(models, "__path__", [*models.__path__, str(folder)])
        monkeypatch.setattr(ThreeD, "network", "models.own:Own")
        monkeypatch.setattr(sys, "dont_write_bytecode", True)

    yield replace
    sys.modules.pop("models.own", None)


@pytest.mark.parametrize("name", BROKEN)
def test_an_error_in_the_users_model_is_reported_in_one_line(
    command: Command, folds: None, own_model: Callable[[str], None], capsys, name: str
):
    code, where = BROKEN[name]
    own_model(code)
    capsys.readouterr()
    assert command(*TRAIN) == 2
    error = capsys.readouterr().err
    assert command(*TRAIN, "--debug") == 2
    assert error.startswith("error: model 3dhg-small: ")
    assert error.count("\n") == 1
    assert where in error
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("photo", [False, True])
def test_an_error_in_the_users_model_is_reported_in_one_line_by_predict(
    command: Command, run: Path, data: Path, own_model: Callable[[str], None], capsys, photo: bool
):
    """The model's file was changed after the training."""
    own_model("def Own(recipe):\n    return recipe.no_such_setting\n")
    capsys.readouterr()
    image = ("--image", str(next((data / "images").iterdir()))) if photo else ()
    assert command("predict", "--run", run.name, *image) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: model 3dhg-small: ")
    assert error.count("\n") == 1
    assert "AttributeError at models/own.py:2" in error


def test_a_bug_in_the_toolkit_is_not_taken_for_the_users(command: Command, folds: None, monkeypatch):
    """Even if it raises an error in models/; the interpreter prints the traceback and exits with 1."""

    def call_a_model_wrongly(*_: object) -> float:
        require(False, "the bug", "absent", "here")
        return 0.0

    monkeypatch.setattr(loop, "mpjpe", call_a_model_wrongly)
    with pytest.raises(ValueError, match="the bug must be absent"):
        command(*TRAIN)
