"""What a model or its memory raises, as one line."""

import sys
from pathlib import Path

import pytest
import torch

import models
from competition.common.errors import RunError
from competition.training.failures import told_when_out_of_memory
from models.recipes import ThreeD
from tests.helpers import Command
from tests.training.helpers import TRAIN


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), MemoryError()])
def test_memory_that_runs_out_elsewhere_is_told(error: Exception):
    with pytest.raises(RunError, match=r"^out of memory: take less$"), told_when_out_of_memory("take less"):
        raise error


BROKEN = {
    "a file that can't be read as Python": ("class Own(:\n    pass\n", "SyntaxError at models/own.py:1"),
    "another module that is missing": ("\nimport nowhere_to_be_found\n", "ModuleNotFoundError at models/own.py:2"),
    "a network that can't be made": ("def Own(recipe):\n    return int('wide')\n", "ValueError at models/own.py:2"),
    "a step that can't be taken": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def forward(self, images):
        return super().forward(images.flatten())
""",
        "at models/own.py:5",
    ),
    "a loss that isn't there": (
        """
from models.three_d import ThreeDHourglass
class Own(ThreeDHourglass):
    def loss(self, output, target):
        return {"total": output.poses_mm}
""",
        "AttributeError at models/own.py:5",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_of_ones_own_is_named_with_its_line(
    command: Command, folds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, name: str
):
    code, where = BROKEN[name]
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "own.py").write_text(code)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(folder)])
    monkeypatch.setattr(ThreeD, "network", "models.own:Own")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    capsys.readouterr()
    try:
        assert command(*TRAIN) == 2
        told = capsys.readouterr().err
        assert command(*TRAIN, "--debug") == 2
    finally:
        sys.modules.pop("models.own", None)
    assert told.startswith("error: model 3dhg-small: ")
    assert told.count("\n") == 1
    assert where in told
    assert "Traceback" in capsys.readouterr().err
