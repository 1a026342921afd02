"""Errors of models and memory are reported in one line."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import models
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
}


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
