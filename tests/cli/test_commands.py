"""What commands print at their end: the commands to run next, with everything that they need."""

import json
import re
import shutil
from pathlib import Path

import pytest

from competition.cli.main import main
from tests.helpers import Command


def _next_line(text: str) -> str:
    (line,) = (line for line in text.splitlines() if "next: " in line)
    return line.partition("next: ")[2]


@pytest.fixture
def other_data(own_data: Path) -> Path:
    """Return a competition with another list of images, and without hidden answers."""
    names = own_data / "annot/train_images.txt"
    lines = names.read_text().splitlines()
    names.write_text("\n".join(reversed(lines)) + "\n")
    shutil.rmtree(own_data / "solution")
    return own_data


def test_check_folds_and_train_use_the_same_folds(
    data: Path, other_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--data", str(other_data)]) == 0
    assert _next_line(capsys.readouterr().out) == f"`make folds DATA={other_data}`"
    assert main(["folds", "--data", str(data), "--k", "2"]) == 0
    assert _next_line(capsys.readouterr().out) == f"`make train DATA={data}`"
    expected = f"`make folds DATA={other_data} FOLDS=folds/own`"
    assert main(["check", "--data", str(other_data)]) == 0
    assert _next_line(capsys.readouterr().out) == expected
    assert main(["train", "--data", str(other_data), "--model", "3dhg-small"]) == 2
    assert _next_line(capsys.readouterr().err).strip() == expected
    assert main(["folds", "--data", str(other_data), "--folds", "folds/own", "--k", "2", "--seed", "3"]) == 0
    assert _next_line(capsys.readouterr().out) == f"`make train DATA={other_data} FOLDS=folds/own SEED=3`"
    assert main(["check", "--data", str(other_data), "--folds", "folds/own"]) == 0
    assert _next_line(capsys.readouterr().out) == f"`make train DATA={other_data} FOLDS=folds/own`"


def test_check_writes_its_findings_as_json(command: Command, own_data: Path, tmp_path: Path):
    image = next((own_data / "images").iterdir())
    image.unlink()
    file = tmp_path / "findings.json"
    assert command("check", "--json", str(file), data=own_data) == 2
    found = json.loads(file.read_text())
    assert list(found) == ["problems", "warnings", "facts"]
    (problem,) = found["problems"]
    assert list(problem) == ["what", "where", "fix"]
    assert problem["what"] == "missing images"
    assert image.name in problem["where"]
    assert found["facts"]


@pytest.mark.parametrize("answers", [True, False])
def test_blend_suggests_score_only_where_there_are_hidden_answers(
    command: Command, run: Path, own_data: Path, answers: bool, capsys: pytest.CaptureFixture[str]
):
    if not answers:
        shutil.rmtree(own_data / "solution")
    capsys.readouterr()
    assert command("blend", "--method", "mean", data=own_data) == 0
    line = _next_line(capsys.readouterr().out)
    assert [words.split()[1] for words in re.findall("`(.*?)`", line)] == ["score"] * answers + ["submit"]
    assert 'make submit COMPETITION=<name> MESSAGE="<text>" DATA=' in line


def test_a_blend_in_another_folder_is_suggested_as_a_file(command: Command, run: Path, tmp_path: Path, capsys):
    out = tmp_path / "runs/mine"
    assert command("blend", "--method", "mean", "--out", str(out)) == 0
    assert _next_line(capsys.readouterr().out).count(f" FILE={out}/submission.csv.gz ") == 2
