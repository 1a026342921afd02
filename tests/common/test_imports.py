"""A package of the user called `models`, and errors in the files of ours, are reported in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELP = ["-m", "competition", "--help"]
NOTEBOOK = ["-c", "import competition.notebook as nb; print(nb.names())"]
AFTER = ["-c", "import models, competition.notebook"]


def _python(folder: Path, *arguments: str, path: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("file", ["models/__init__.py", "models.py"])
@pytest.mark.parametrize("arguments", [HELP, NOTEBOOK, AFTER], ids=["command line", "notebook", "imported before"])
def test_another_package_called_models_is_named(tmp_path: Path, file: str, arguments: list[str]):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("def create(): ...\ndef names(): ...\ndef recipe(): ...\n")
    done = _python(tmp_path, *arguments)
    line = done.stderr.splitlines()[-1]
    assert f"import models: Python finds {tmp_path}/{file.removesuffix('/__init__.py')}, expected {ROOT}/models" in line
    if arguments == HELP:
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["models", "competition"])
def test_a_folder_that_is_no_package_hides_nothing(tmp_path: Path, name: str):
    (tmp_path / name).mkdir()
    (tmp_path / name / "weights.pt").touch()
    done = _python(tmp_path, *NOTEBOOK)
    assert "3dhg-small" in done.stdout, done.stderr


OWN = "\nclass Mean(Recipe):\n    size: int = 3\n"
BROKEN = {  # file, code appended to it, the line that is named, and the error
    "a dataclass that isn't frozen": (
        "recipes.py",
        f"@dataclass{OWN}",
        "'class Mean(Recipe):': TypeError: cannot inherit non",
    ),
    "a list as default": (
        "recipes.py",
        "@dataclass(frozen=True, kw_only=True)\nclass Mean(Recipe):\n    sizes: list = []\n",
        "'class Mean(Recipe):': ValueError: mutable default",
    ),
    "no dataclass": (
        "__init__.py",
        "class Mean:\n    ...\nmean = Mean(epochs=2)\n",
        "'mean = Mean(epochs=2)': TypeError: Mean()",
    ),
    "an impossible value": (
        "__init__.py",
        "MODELS['mean'] = TwoD(lr=-1.0)\n",
        'TwoD(lr=-1.0)": ValueError: lr must be above 0',
    ),
    "a setting that isn't there": (
        "__init__.py",
        "MODELS['a'] = TwoD(size=1)\n",
        'TwoD(size=1)": TypeError: TwoD.__init__() got',
    ),
    "a syntax error": ("recipes.py", "class Mean(:\n", "'class Mean(:': SyntaxError: "),
    "a missing name": ("__init__.py", "MODELS['mean'] = Mean()\n", "Mean()\": NameError: name 'Mean' is not defined"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the code, for tests that restore what they change."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("competition", "models"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("name", BROKEN)
def test_an_error_in_the_list_of_models_is_reported_in_one_line(copy: Path, name: str):
    file, code, expected = BROKEN[name]
    path = copy / "models" / file
    before = path.read_text()
    path.write_text(before + code)
    done, debug = _python(copy, *HELP, path=copy), _python(copy, *HELP, "--debug", path=copy)
    path.write_text(before)
    assert done.returncode == debug.returncode == 2
    assert done.stderr.startswith(f"error: models/{file}:")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert ("kw_only=True" in done.stderr) == ("TypeError" in expected)
    assert "Traceback" in debug.stderr
