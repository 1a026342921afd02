"""Predicting with the networks of a run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from competition.runs.candidates import candidates
from competition.runs.folders import read_valid
from competition.training.predict import images_at_once
from tests.helpers import TINY, Command


def test_predicting_again_repeats_the_run_and_another_decoder_changes_it(command: Command, folds: None, tmp_path: Path):
    assert command("train", *TINY, "--epochs", "1") == 0
    runs = tmp_path / "runs"
    assert command("predict", "--run", "3dhg-small") == 0
    assert command("predict", "--run", "3dhg-small", "--decoder", "argmax") == 0
    valid = [read_valid(runs / f"3dhg-small{end}/fold0/valid_epoch01.npz") for end in ("", "-again", "-argmax")]
    np.testing.assert_array_equal(valid[0].pose_mm, valid[1].pose_mm)
    assert not np.array_equal(valid[0].pose_mm, valid[2].pose_mm)
    scores = {c.run: c.valid_mpjpe for c in candidates(runs)}
    assert set(scores) == {"3dhg-small", "3dhg-small-again", "3dhg-small-argmax"}
    assert scores["3dhg-small"] == pytest.approx(scores["3dhg-small-again"], abs=1e-9)
    assert (runs / "3dhg-small-argmax/submission.csv.gz").exists()


@pytest.mark.parametrize(("device", "whole"), [("cpu", 32), ("cuda", 64)])
def test_no_more_images_are_predicted_at_a_time_than_trained_on(device: str, whole: int):
    recipe = models.recipe("3dhg-small")
    assert images_at_once(torch.device(device), recipe) == whole
    assert images_at_once(torch.device(device), replace(recipe, micro_batch=3)) == 3


def test_averaged_weights_predict_again_what_they_predicted(command: Command, folds: None, tmp_path: Path):
    assert command("train", *TINY, "--epochs", "2", "--fold", "0", "--ema", "0.9", "--flip-test") == 0
    assert command("predict", "--run", "3dhg-small", "--epoch", "2") == 0
    first, again = (
        read_valid(tmp_path / f"runs/{run}/fold0/valid_epoch02.npz") for run in ("3dhg-small", "3dhg-small-again")
    )
    np.testing.assert_array_equal(first.pose_mm, again.pose_mm)
    assert command("predict", "--run", "3dhg-small", "--epoch", "2", "--no-flip") == 0
    plain = read_valid(tmp_path / "runs/3dhg-small-noflip/fold0/valid_epoch02.npz")
    assert not np.array_equal(first.pose_mm, plain.pose_mm)


def test_a_run_is_not_overwritten_by_predicting_again(command: Command, folds: None, tmp_path: Path, capsys):
    assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 0
    assert command("train", *TINY, "--epochs", "1", "--fold", "0", "--run", "3dhg-small-dark") == 0
    capsys.readouterr()
    assert command("predict", "--run", "3dhg-small", "--decoder", "dark") == 2
    assert "is a trained run" in capsys.readouterr().err
