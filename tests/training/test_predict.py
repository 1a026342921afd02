"""Predicting again with the networks of a run."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from competition.runs.candidates import candidates
from competition.runs.folders import read_valid
from competition.training.capacity import prediction_batch
from tests.helpers import TINY, Command


def test_predicting_again_gives_the_same_poses_and_another_decoder_different_ones(command: Command, run: Path):
    runs = run.parent
    assert command("predict", "--run", "3dhg-small") == 0
    assert command("predict", "--run", "3dhg-small", "--decoder", "argmax") == 0
    valid = [read_valid(runs / f"3dhg-small{end}/fold0/valid_epoch01.npz") for end in ("", "-again", "-argmax")]
    np.testing.assert_array_equal(valid[0].pose_mm, valid[1].pose_mm)
    assert not np.array_equal(valid[0].pose_mm, valid[2].pose_mm)
    scores = {c.run: c.valid_mpjpe for c in candidates(runs)}
    assert set(scores) == {"3dhg-small", "3dhg-small-again", "3dhg-small-argmax"}
    assert scores["3dhg-small"] == pytest.approx(scores["3dhg-small-again"], abs=1e-9)
    assert (runs / "3dhg-small-argmax/submission.csv.gz").exists()


@pytest.mark.parametrize(
    ("model", "device", "batch"),
    [("3dhg-small", "cpu", 32), ("2dhg-small", "cpu", 16), ("3dhg", "cpu", 4), ("3dhg", "cuda", 64)],
)
def test_the_prediction_batch_fits_the_caches_and_is_at_most_the_micro_batch(model: str, device: str, batch: int):
    recipe = models.recipe(model)
    assert prediction_batch(torch.device(device), recipe) == batch
    assert prediction_batch(torch.device(device), replace(recipe, micro_batch=3)) == 3


def test_predicting_again_uses_averaged_weights_and_flip(command: Command, folds: None, tmp_path: Path):
    assert command("train", *TINY, "--epochs", "2", "--fold", "0", "--ema", "0.9", "--flip-test") == 0
    assert command("predict", "--run", "3dhg-small", "--epoch", "2") == 0
    first, again = (
        read_valid(tmp_path / f"runs/{run}/fold0/valid_epoch02.npz") for run in ("3dhg-small", "3dhg-small-again")
    )
    np.testing.assert_array_equal(first.pose_mm, again.pose_mm)
    assert command("predict", "--run", "3dhg-small", "--epoch", "2", "--no-flip") == 0
    not_flipped = read_valid(tmp_path / "runs/3dhg-small-noflip/fold0/valid_epoch02.npz")
    assert not np.array_equal(first.pose_mm, not_flipped.pose_mm)


def test_predicting_again_does_not_overwrite_a_trained_run(command: Command, run: Path, capsys):
    shutil.copytree(run, run.parent / "3dhg-small-dark")
    assert command("predict", "--run", "3dhg-small", "--decoder", "dark") == 2
    assert "is a trained run" in capsys.readouterr().err
