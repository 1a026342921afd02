"""Reproducing the poster's table."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models
from competition.common.pose_csv import read_poses
from competition.training import capacity
from tests.helpers import Command


def test_the_posters_models_are_trained_averaged_and_blended(command: Command, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    small = {"epochs": 1, "channels": 16, "input_size": 64, "batch": 8}
    for name in ("2dhg-small", "2dhg-decay-small", "3dhg-small", "3dhg-aug-small"):
        recipe = models.recipe(name)
        depths = {"depths": (1, 8)} if name.startswith("3") else {"lifter_width": 16}
        monkeypatch.setitem(models.MODELS, name, replace(recipe, **small, **depths))
    monkeypatch.setattr(capacity, "usable_cores", lambda: 2)
    assert command("folds", "--k", "2") == 0
    table = tmp_path / "table.json"
    assert command("reproduce", "--scale", "small", "--json", str(table)) == 0
    output = capsys.readouterr().out
    assert "compare ratios, not mm" in output
    assert re.search(r"about \d+ s .*2 networks at a time", output)
    rows = json.loads(table.read_text())
    assert [row["poster"] for row in rows] == [109.02, 110.34, 99.17, 118.28, 89.69, None]
    assert rows[4]["poster_ratio"] == pytest.approx(0.904, abs=5e-4)
    assert min(row["ratio"] for row in rows[:4]) == 1
    runs = tmp_path / "runs"
    members = [read_poses(runs / f"{name}-small/submission.csv.gz").pose_mm for name in ("2dhg", "2dhg-decay", "3dhg")]
    mean = read_poses(runs / "reproduce-small-mean/submission.csv.gz").pose_mm
    np.testing.assert_allclose(mean, np.mean(members, axis=0), atol=0.0011)
    assert {folder.name for folder in (runs / "3dhg-small").glob("fold*")} == {"fold0"}
    assert command("reproduce", "--scale", "small") == 0
    output = capsys.readouterr().out
    assert output.count("finished") == 4
    assert "about" not in output  # no estimate, as nothing is left to train
    (runs / "2dhg-small/fold1").mkdir()
    (runs / "2dhg-small/fold1/config.json").write_text("{}")
    assert command("reproduce", "--scale", "small") == 2
    assert "run 2dhg-small has no epoch that is complete" in capsys.readouterr().err
    assert command("reproduce", "--scale", "small", "--fold", "2") == 2
    assert "fold 2: expected 0 to 1, or all" in capsys.readouterr().err
    assert command("reproduce", "--scale", "tiny") == 2
