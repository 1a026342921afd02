"""Misnamed and missing files, and predicted runs: what `blend` and `board` print about what they leave out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from competition.common.errors import RunError
from competition.notebook import candidates, select
from competition.runs.folders import read_valid, write_valid
from tests.helpers import Command, contents


def printed(capsys: pytest.CaptureFixture[str], start: str = "warning:") -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(start)]


def copy(run: Path, name: str) -> Path:
    return Path(shutil.copytree(run, run.parent / name))


def external(run: Path, name: str) -> Path:
    """Copy a run's poses without what else it has."""
    target = copy(run, name)
    for path in target.rglob("*"):
        if path.is_file() and "_epoch" not in path.name:
            path.unlink()
    return target


@pytest.mark.parametrize("command_name", ["blend", "board", "report"])
def test_misnamed_files_are_warned_about_once_per_run(command: Command, run: Path, command_name: str, capsys):
    mate = external(run, "mate")
    for fold in (0, 1):
        (mate / f"fold{fold}").rename(mate / f"fold_{fold}")
    (external(run, "other") / "fold0/valid_epoch1.npz").touch()
    assert command(command_name) == 0
    lines = printed(capsys)
    assert len(lines) == 2 + (command_name == "blend")  # other is a copy
    assert f"run mate: {mate}/fold_0 and 1 more are ignored" in lines[0]
    assert "other/fold0/valid_epoch1.npz is ignored" in lines[1]


def test_a_named_run_with_misnamed_files_only_is_refused_with_their_names(command: Command, run: Path, capsys):
    (external(run, "mate") / "fold0").rename(run.parent / "mate/fold_0")
    shutil.rmtree(run.parent / "mate/fold1")
    assert command("blend", "--runs", "mate,3dhg-small") == 2
    error = capsys.readouterr().err
    assert "mate/fold_0 is ignored because of the name" in error
    assert "fold0/valid_epoch01.npz" in error
    assert command("blend", "--runs", "3dhg-small") == 0
    assert printed(capsys) == []


def test_a_fold_with_two_names_counts_once(command: Command, run: Path, capsys):
    shutil.copytree(run / "fold0", run / "fold00")
    assert command("blend") == 0
    (line,) = printed(capsys)
    assert "3dhg-small/fold00 is ignored" in line
    inputs = json.loads((run.parent / "blend/blend.json").read_text())["inputs"]
    assert {name.split("/")[1] for name in inputs} == {"fold0", "fold1"}


def add_epoch(run: Path, epoch: int, mpjpe: float) -> None:
    for fold in (0, 1):
        folder = run / f"fold{fold}"
        for name in ("valid_epoch{:02d}.npz", "test_epoch{:02d}.csv.gz"):
            shutil.copy(folder / name.format(1), folder / name.format(epoch))
        with open(folder / "log.jsonl", "a") as log:
            log.write(json.dumps({"epoch": epoch, "valid_mpjpe": mpjpe}) + "\n")


def test_a_missing_file_of_the_best_epoch_is_warned_about(command: Command, run: Path, capsys, monkeypatch):
    monkeypatch.setattr("competition.blending.join.LOGGED_MM", np.inf)  # the logged score is invented
    add_epoch(run, 2, 10.0)
    assert command("blend") == command("board") == 0
    assert printed(capsys) == []
    (run / "fold1/test_epoch02.csv.gz").unlink()
    for name in ("blend", "board", "report"):
        assert command(name) == 0
        (line,) = printed(capsys)
        assert "run 3dhg-small: " in line
        assert "3dhg-small/fold1/test_epoch02.csv.gz is missing" in line
    assert json.loads((run.parent / "blend/blend.json").read_text())["candidates"] == ["3dhg-small:1"]
    assert command("blend", "--epochs", "1") == 0
    assert printed(capsys) == []


def test_a_run_without_a_numbered_epoch_is_noted(command: Command, run: Path, capsys):
    assert command("blend", "--epochs", "1,7") == 0
    (line,) = printed(capsys, "skipped")
    assert line.endswith(": 3dhg-small:7")


def test_a_run_left_out_as_a_fold_lacks_all_files_is_noted(command: Command, run: Path, capsys):
    shutil.rmtree(copy(run, "b") / "fold1")
    (run.parent / "b/fold1").mkdir()
    shutil.copy(run / "fold1/config.json", run.parent / "b/fold1")  # it is being trained
    assert command("blend") == 0
    output = capsys.readouterr().out
    assert "warning:" not in output
    assert "run b is left out, as no epoch is complete in all its folds: 1 of 2 folds missing (fold1)" in output


def test_predicted_runs_are_blended_only_by_name(command: Command, run: Path, tmp_path: Path, capsys):
    assert command("predict", "--run", "3dhg-small") == 0
    capsys.readouterr()
    assert command("blend") == 0
    output = capsys.readouterr().out
    assert "skipped, as predicted with the networks of other runs: 3dhg-small-again (from 3dhg-small)" in output
    assert "warning:" not in output
    blend = run.parent / "blend/blend.json"
    assert json.loads(blend.read_text())["candidates"] == ["3dhg-small:1"]
    assert [c.name for c in select(candidates(run.parent))] == ["3dhg-small:1"]
    assert command("blend", "--runs", "3dhg-small-again") == 0
    assert json.loads(blend.read_text())["candidates"] == ["3dhg-small-again:1"]
    assert command("board", "--json", str(tmp_path / "board.json")) == 0
    kinds = {row["name"]: row["kind"] for row in json.loads((tmp_path / "board.json").read_text())}
    assert kinds["3dhg-small-again"] == "run (predicted from 3dhg-small)"
    assert command("report") == 0
    assert "3dhg-small-again, epoch 1" in (run.parent / "report.html").read_text()
    shutil.rmtree(run)
    capsys.readouterr()
    assert command("blend") == 2
    assert "3dhg-small-again (from 3dhg-small)" in capsys.readouterr().err
    with pytest.raises(RunError, match="select them by name"):
        select(candidates(run.parent))


def test_exchanged_files_and_a_shortened_log_are_named(command: Command, run: Path, capsys):
    other = run / "fold1/valid_epoch01.npz"
    poses = read_valid(other)
    write_valid(other, poses.id, poses.pose_mm + np.linspace(0, 99, 17)[:, None])
    assert command("blend", "--method", "mean") == 0
    assert any("3dhg-small:1: its error out of fold is " in line and "log.jsonl" in line for line in printed(capsys))
    log = run / "fold0/log.jsonl"
    log.write_text("")
    for name in ("blend", "board"):
        assert command(name) == 0
        assert any(f"{log} lacks epochs" in line for line in printed(capsys))


def test_a_blend_never_replaces_a_run(command: Command, run: Path, capsys):
    before = contents(run)
    for out in (run, run.parent):
        assert command("blend", "--method", "mean", "--out", str(out)) == 2
        assert "holds a run" in capsys.readouterr().err
    assert contents(run) == before


def test_files_are_not_given_twice_or_written_over_a_run(command: Command, run: Path, capsys):
    file, link = run / "fold0/test_epoch01.csv.gz", run.parent / "link.csv.gz"
    link.symlink_to(file)
    for arguments, message in (
        (("--files", str(file), str(link)), "is given twice"),
        (("--files", str(file), "--out", str(run)), "holds a run"),
    ):
        assert command("blend", *arguments) == 2
        assert message in capsys.readouterr().err
