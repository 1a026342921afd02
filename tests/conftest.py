"""Shared fixtures: a small synthetic competition, made once per session, and folders for commands."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from competition.cli.main import main
from competition.synthetic.generate import generate
from tests.helpers import N_TEST, TINY, Command, N

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, by timm or models.kernels


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where there is none."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("no GPU")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate a synthetic competition, which tests only read."""
    root = tmp_path_factory.mktemp("data") / "competition"
    generate(root, N, N_TEST, seed=1, workers=1)
    return root


@pytest.fixture
def own_data(data: Path, tmp_path: Path) -> Path:
    """Copy the competition for a test that changes it; images are hard links, to be unlinked before a change."""
    root = tmp_path / "own"
    for path in data.rglob("*"):
        target = root / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.suffix == ".jpg":
            os.link(path, target)
        elif path.is_file():
            target.write_bytes(path.read_bytes())
    return root


@pytest.fixture
def command(data: Path, tmp_path: Path) -> Command:
    """Return a function that runs a subcommand on the small competition, with the test's own folds and submissions."""

    def run(name: str, *arguments: str, data: Path = data) -> int:
        folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
        return main([name, *folders, *arguments])

    return run


@pytest.fixture
def folds(command: Command) -> None:
    """Make two folds of the small competition."""
    assert command("folds", "--k", "2") == 0


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the tiny network once, for one epoch on two folds; tests copy the folders folds and runs."""
    root = tmp_path_factory.mktemp("finished")
    folders = ["--data", str(data), "--folds", str(root / "folds"), "--submissions", str(root / "runs")]
    assert main(["folds", *folders, "--k", "2"]) == 0
    assert main(["train", *folders, *TINY, "--epochs", "1"]) == 0
    return root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Copy the finished run and its folds for one test; return the run's folder."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs/3dhg-small"


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """Return the folder that `Evil` makes when it is unpickled."""
    return tmp_path / "trap"


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for property-based tests, which can't use tmp_path."""
    return tmp_path_factory.mktemp("hostile")
