"""The READMEs' commands, flags and links are valid, and the example of a new model trains as written.

The notebook example is tested in test_notebook.py.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import models
from competition.cli.main import main
from competition.cli.parser import parse
from competition.runs.record import read_log
from tests.helpers import without_make

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
OTHERS = ("models", "competition/blending", "competition/bench", "folds", "submissions")
TEXT = "\n".join([README, *((ROOT / folder / "README.md").read_text() for folder in OTHERS)])
NOT_OF_MAKE = {"OMP_NUM_THREADS", "KAGGLE_API_TOKEN"}

# flags that the READMEs mention without a command, and a command that accepts them
ALONE = {
    'ARGS="--strategy sequence --k 5"': "folds",
    'ARGS="--decoder argmax"': "predict RUN=3dhg-small",
    'ARGS="--json FILE"': "bench",
    'ARGS="--granularity coordinate"': "blend",
    'ARGS="--runs a,b"': "blend",
    "ARGS=--stack": "blend",
    "ARGS=--no-stack": "blend",
    "ARGS=--views": "blend",
    "ARGS=--refit": "blend",
    'ARGS="--checkpoint-minutes 10"': "train",
    'ARGS="--sort private"': "board",
    'ARGS="--search lr,ema"': "tune",
    'ARGS="--search lr=1e-3:1e-2,schedule=constant/cosine,ema"': "tune",
}


def _commands() -> list[str]:
    """Return every command in the READMEs: lines of indented blocks, and commands in backticks."""
    lines = re.findall(r"^    ((?:make|\.venv/bin/python -m competition) .*)$", TEXT, re.MULTILINE)
    inline = re.findall(r"`((?:\w+=\S+ )?make [^`]*)`", TEXT)
    joined = [line.partition(" #")[0] for line in [*lines, *inline]]
    return sorted({command.strip() for line in joined for command in line.split(" && ")})


def _arguments(command: str) -> list[list[str]]:
    """Return the arguments of the command lines that a command would run."""
    words = shlex.split(command)
    if words[0] != "make":
        assert words[:3] == [".venv/bin/python", "-m", "competition"]
        return [words[3:]]
    command_line = ["make", "-n", "-f", str(ROOT / "Makefile"), "-o", "setup", *words[1:]]
    done = subprocess.run(command_line, cwd=ROOT, env=without_make(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    commands = [line for line in lines if "-m competition" in line and not line.startswith("for ")]
    return [shlex.split(line)[3:] for line in commands]


@pytest.mark.parametrize("command", [*_commands(), *(f"make {command} {flag}" for flag, command in ALONE.items())])
def test_every_command_exists(command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(models.MODELS, "mean-small", models.recipe("2dhg-small"))  # in the example
    for arguments in _arguments(re.sub(r"^\w+=\S+ (?=make )", "", command)):
        if "--help" in arguments:
            with pytest.raises(SystemExit, match=r"^0$"):
                parse(arguments)
        else:
            parse(arguments)


def test_every_flag_in_the_readmes_is_tested():
    assert len(_commands()) > 25
    named = set(re.findall(r"ARGS=(?:\"[^\"]*\"|--[\w-]+)", TEXT))
    assert {flag for flag in named if not any(flag in command for command in _commands())} == set(ALONE)


@pytest.mark.parametrize("model", ["2dhg-small", "3dhg-small", "integral-small"])
def test_settings_in_the_tables_of_measurements_exist(model: str):
    tables = (ROOT / "models/README.md").read_text().partition(f"### {model}")[2].partition("\n### ")[0]
    settings = re.findall(r"`(--[^`]*)`", tables)
    assert len(settings) > 3
    for flags in settings:
        parse(["train", "--model", model, *shlex.split(flags)])


def test_variables_in_the_readmes_exist():
    known = re.search(r"^override VARIABLES = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert known is not None
    named = set(re.findall(r"\b([A-Z][A-Z_]+)=", TEXT)) - NOT_OF_MAKE
    assert named <= {*known[1].split()}


def test_the_table_of_commands_lists_every_target():
    table = README.partition("## Commands\n")[2].partition("\n## ")[0]
    listed = [
        name for cell in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE) for name in re.findall(r"`(.*?)`", cell)
    ]
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert sorted(listed) == sorted(phony[1].split())


def test_link_targets_exist():
    for folder in ("", *OTHERS):
        text = (ROOT / folder / "README.md").read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        for target in re.findall(r"\]\(([^)]*)\)", text):
            assert target[1:] in anchors if target.startswith("#") else (ROOT / folder / target).exists(), target


def test_the_example_of_a_new_model_trains_as_written(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    (block,) = re.findall(r"```python\n(# models/recipes.py.*?)```", README, re.DOTALL)
    recipe, model, entry = re.split(r"^# models/(?:mean|__init__)\.py.*\n", block, flags=re.MULTILINE)
    shutil.copytree(ROOT / "models", tmp_path / "models")
    (tmp_path / "competition").symlink_to(ROOT / "competition")
    (tmp_path / "models/mean.py").write_text(model)
    with open(tmp_path / "models/recipes.py", "a") as recipes:
        recipes.write(recipe.removeprefix("# models/recipes.py"))
    package = (tmp_path / "models/__init__.py").read_text()
    package = package.replace("import Integral, ", "import Integral, Mean, ")
    (tmp_path / "models/__init__.py").write_text(re.sub(r"(?m)^(MODELS: .*\n)", lambda line: line[0] + entry, package))
    folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
    assert main(["folds", *folders, "--k", "2"]) == 0
    command = [sys.executable, "-m", "competition", "train", *folders, "--model", "mean-small"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "next: `make board" in done.stdout
    for fold in (0, 1):
        log = read_log(tmp_path / f"runs/mean-small/fold{fold}")
        assert [row.epoch for row in log] == [1, 2]
        first, second = (row.valid_mpjpe or 0.0 for row in log)
        assert second < first
