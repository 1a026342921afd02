"""What tests share: a small competition, made once, and the folders to work on it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from competition.cli import main
from competition.synthetic.generate import generate

N, N_TEST = 40, 12

# A network of the real code that trains in a second.
TINY = ["--model", "3dhg-small", "--channels", "16", "--depths", "1,8", "--input-size", "64", "--batch", "8"]
TINY += ["--schedule", "constant", "--lr", "1e-3", "--precision", "fp32"]
TIMINGS = ("seconds", "images_per_second")


def without_make() -> dict[str, str]:
    """Return the environment without what a make that runs the tests left in it."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}


def contents(folder: Path) -> dict[str, object]:
    """Return every file's bytes; of the log and the manifest all but the timings."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.name in ("log.jsonl", "done.json"):
            rows = [json.loads(line) for line in path.read_text().replace("\n  ", "").replace("\n}", "}").splitlines()]
            found[path.name] = [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


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
def command(data: Path, tmp_path: Path) -> Callable[..., int]:
    """Run a subcommand on the small competition, with folds and submissions of this test's own."""

    def run(name: str, *arguments: str, data: Path = data) -> int:
        folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
        return main([name, *folders, *arguments])

    return run
