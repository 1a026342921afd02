"""What tests share: a small competition, made once, and the folders to work on it."""

import os
from pathlib import Path

import pytest

from competition.cli.main import main
from competition.synthetic.generate import generate
from tests.helpers import N_TEST, Command, N


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an embedded competition; tests only read it."""
    root = tmp_path_factory.mktemp("data") / "competition"
    generate(root, N, N_TEST, seed=1, workers=1)
    return root


@pytest.fixture
def own_data(data: Path, tmp_path: Path) -> Path:
    """Copy the competition for a test that breaks it; the images are links until they are replaced."""
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
    """Run a subcommand on the small competition, with folds and submissions of this test's own."""

    def run(name: str, *arguments: str, data: Path = data) -> int:
        folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
        return main([name, *folders, *arguments])

    return run


@pytest.fixture
def folds(command: Command) -> None:
    """Make two folds of the small competition."""
    assert command("folds", "--k", "2") == 0


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    return tmp_path / "trap"


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")
