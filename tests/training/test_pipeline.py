"""The pipeline on forty images: folds, training, blending, scores; each user error is reported in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from timm.utils import ModelEmaV3

import models
from competition.common.metrics import mpjpe
from competition.common.pose_csv import read_poses
from competition.common.workspace import Workspace
from competition.data.labels import read_labels
from competition.runs.candidates import candidates, read_test_poses
from competition.runs.folders import read_valid
from competition.runs.record import read_log
from competition.training import loop as training
from competition.training.checkpoint import load_checkpoint
from competition.training.cost import estimate_seconds
from competition.training.jobs import Job, open_data
from tests.helpers import N_TEST, TINY, Command, N, contents
from tests.training.helpers import DIVERGING


def test_the_pipeline_from_folds_to_board(command: Command, folds: None, data: Path, tmp_path: Path, capsys):
    runs = tmp_path / "runs"
    assert command("train", *TINY, "--epochs", "2") == 0
    assert command("train", *TINY, "--epochs", "1", "--run", "other", "--lr", "3e-3", "--augment") == 0
    for fold in (0, 1):
        names = {path.name for path in (runs / f"3dhg-small/fold{fold}").iterdir()}
        epochs = {f"{kind}_epoch0{e}.{end}" for e in (1, 2) for kind, end in (("valid", "npz"), ("test", "csv.gz"))}
        assert names == epochs | {"config.json", "log.jsonl", "last.pt", "best.pt", "done.json"}

    # every training row is held out once; the log has the score of the written poses
    labels = read_labels(data)
    ids = []
    for fold in (0, 1):
        folder = runs / f"3dhg-small/fold{fold}"
        poses = read_valid(folder / "valid_epoch02.npz")
        ids += poses.id.tolist()
        row = read_log(folder)[1]
        assert row.valid_mpjpe == pytest.approx(mpjpe(poses.pose_mm, labels.pose_mm[poses.id - 1]))
        assert row.valid_mpjpe_joint is not None
        assert np.mean(row.valid_mpjpe_joint) == pytest.approx(row.valid_mpjpe)
    assert sorted(ids) == list(range(1, N + 1))
    table = pd.read_csv(tmp_path / "folds/folds.csv")
    assert set(table.loc[table["fold"] == 1, "Id"]) == set(ids[-(table["fold"] == 1).sum() :])

    # the mean blend is the mean of the runs' test poses
    assert command("blend", "--method", "mean") == 0
    best = {c.run: c for c in candidates(runs)}
    assert command("blend", "--method", "mean", "--epochs", "last", "--out", str(runs / "last")) == 0
    members = [read_test_poses(best[run], np.arange(1, N_TEST + 1)) for run in ("3dhg-small", "other")]
    blended = read_poses(runs / "last/submission.csv.gz", range(1, N_TEST + 1))
    np.testing.assert_allclose(blended.pose_mm, np.mean(members, axis=0), atol=0.00051)

    assert command("blend", "--method", "exact") == 0
    assert command("score", "--json", str(tmp_path / "score.json")) == 0
    assert command("score", "--file", str(runs / "other/submission.csv.gz"), "--strict") == 0
    scores = json.loads((tmp_path / "score.json").read_text())
    assert scores["all"] == pytest.approx(np.mean(list(scores["joint"].values())))
    assert set(scores) == {"all", "public", "private", "joint", "axis", "action"}

    capsys.readouterr()
    assert command("board", "--json", str(tmp_path / "board.json")) == 0
    board = {row["name"]: row for row in json.loads((tmp_path / "board.json").read_text())}
    assert board["blend"]["all"] == pytest.approx(scores["all"], abs=1e-3)
    assert board["3dhg-small"]["folds"] == 2
    assert board["3dhg-small"]["all"] is None  # not scored
    assert board["other"]["out_of_fold"] > 0
    assert "3dhg-small" in capsys.readouterr().out


def test_results_do_not_depend_on_the_number_of_workers(command: Command, folds: None, tmp_path: Path):
    train = ("train", *TINY, "--epochs", "2", "--fold", "1", "--augment")
    assert command(*train, "--run", "none") == 0
    assert command(*train, "--run", "two", "--workers", "2") == 0
    assert contents(tmp_path / "runs/two/fold1") == contents(tmp_path / "runs/none/fold1")


def test_the_weights_of_the_best_epoch_are_saved(
    command: Command, folds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    errors = iter((70.0, 60.0, 60.0))
    monkeypatch.setattr(training, "mpjpe", lambda *_: next(errors))
    assert command("train", *TINY, "--epochs", "3", "--fold", "0") == 0
    folder = tmp_path / "runs/3dhg-small/fold0"
    assert [load_checkpoint(folder / f"{name}.pt").epoch for name in ("best", "last")] == [2, 3]
    assert json.loads((folder / "done.json").read_text())["best_epoch"] == 2


def test_fold_full_trains_on_all_images_and_is_not_a_candidate(command: Command, folds: None, tmp_path: Path):
    assert command("train", *TINY, "--epochs", "1", "--fold", "full") == 0
    folder = tmp_path / "runs/3dhg-small/foldfull"
    assert not list(folder.glob("valid*"))
    assert (folder / "test_epoch01.csv.gz").exists()
    assert read_log(folder)[0].valid_mpjpe is None
    assert candidates(tmp_path / "runs") == []


def test_training_can_start_from_another_run(command: Command, run: Path, tmp_path: Path, capsys):
    run.rename(tmp_path / "runs/first")
    # a tiny learning rate leaves the weights unchanged
    tail = ("--epochs", "1", "--fold", "0", "--run", "second", "--lr", "1e-30", "--optimizer", "sgd")
    assert command("train", *TINY, *tail, "--init", "first") == 0
    first, second = (torch.load(tmp_path / f"runs/{run}/fold0/best.pt")["model"] for run in ("first", "second"))
    weights = [name for name in first if name.endswith(".weight")]
    assert weights
    assert all(torch.equal(first[name], second[name]) for name in weights)
    assert command("train", *TINY, *tail, "--init", "nobody", "--run", "third") == 2
    assert "nobody" in capsys.readouterr().err
    assert command("folds", "--k", "3", "--force") == 0  # other images are held out now
    assert command("train", *TINY, *tail, "--init", "first", "--run", "third") == 2
    assert "trained on other folds" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch.compile reads it itself
def test_compile_is_recorded_and_a_failed_compilation_is_reported_in_one_line(
    command: Command, folds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    train = ("train", *TINY, "--epochs", "1", "--fold", "0", "--compile")
    compiled = torch.nn.Module.compile

    def compiler(network: torch.nn.Module, **_: object) -> None:
        compiled(network, backend=backend)

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        if graphs is None:
            raise RuntimeError("no compiler\nanywhere")
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", compiler)
    graphs: list[torch.fx.GraphModule] | None = None
    assert command(*train, "--run", "fails") == 2
    error = capsys.readouterr().err
    assert "--compile failed" in error
    assert error.strip().splitlines()[-1].endswith("train without it")
    graphs = []
    assert command(*train) == 0
    assert graphs
    assert json.loads((tmp_path / "runs/3dhg-small/fold0/config.json").read_text())["settings"]["compile"]


def test_folds_train_in_parallel(command: Command, folds: None, tmp_path: Path, capfd):
    assert command("train", *TINY, "--epochs", "1", "--parallel", "2") == 0
    assert "out-of-fold MPJPE" in capfd.readouterr().out
    for fold in ("fold0", "fold1"):
        assert (tmp_path / "runs/3dhg-small" / fold / "done.json").exists()
    assert command("train", *TINY, "--epochs", "1", "--run", "b", "--parallel", "2", *DIVERGING) == 2
    assert "no longer finite" in capfd.readouterr().err


@pytest.mark.parametrize("work", ["models.three_d.ThreeDHourglass.loss", "competition.training.predict.predict_images"])
def test_out_of_memory_is_reported_with_a_fix(command: Command, folds: None, work: str, monkeypatch, capsys):
    """During training, and during prediction."""

    def allocate(*_: object) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr(work, allocate)
    assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 2
    assert "out of memory: set --micro-batch below 8" in capsys.readouterr().err


def test_the_estimated_duration_includes_the_averaged_weights(
    command: Command, folds: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    update = Mock()
    monkeypatch.setattr(ModelEmaV3, "update", update)
    recipe = models.recipe("3dhg-small", channels=16, depths=(1, 8), batch=8, ema=0.9)
    workspace = Workspace(data=data, folds=tmp_path / "folds", submissions=tmp_path / "runs")
    job = Job(workspace=workspace, name="3dhg-small", recipe=recipe, fold=0, run="estimated")
    assert estimate_seconds([job], open_data(workspace), parallel=1) > 0
    assert update.call_count == 2  # steps of the 16 training images


def test_a_loss_that_is_not_finite_stops_the_run(command: Command, folds: None, tmp_path: Path, capsys):
    assert command("train", *TINY, "--epochs", "1", "--fold", "0", *DIVERGING) == 2
    error = capsys.readouterr().err
    assert "no longer finite in epoch 1" in error
    assert not (tmp_path / "runs/3dhg-small/fold0/last.pt").exists()


WRONG = {
    "unknown model": (["train", "--model", "3dgh", "--epochs", "3"], "did you mean '3dhg'"),
    "unknown setting": (["train", *TINY, "--lrate", "1"], "unknown flag '--lrate'"),
    "setting of another model": (["train", *TINY, "--backbone", "resnet18"], "unknown flag '--backbone'"),
    "impossible setting": (["train", *TINY, "--epochs", "0"], "epochs"),
    "not a number": (["train", *TINY, "--lr", "fast"], "--lr 'fast': expected a number"),
    "unknown optimizer": (["train", *TINY, "--optimizer", "adamm"], "adamm"),
    "fold out of range": (["train", *TINY, "--fold", "2"], "expected 0 to 1"),
    "unknown precision": (["train", *TINY, "--precision", "fp8"], "did you mean"),
    "run outside the folder": (["train", *TINY, "--run", "../up"], "run '../up'"),
    "unknown run": (["predict", "--run", "nobody"], "no run at"),
    "nothing to blend": (["blend"], "nothing to blend"),
    "unknown method": (["blend", "--method", "exakt"], "did you mean 'exact'"),
    "nothing on the board": (["board"], "no runs under"),
    "no file to score": (["score", "--file", "none.csv"], "none.csv"),
    "unknown strategy": (["folds", "--strategy", "subjects"], "did you mean 'subject'"),
    "no images": (["data", "--n", "0"], "at least 1"),
    "fewer than no loader processes": (["train", *TINY, "--workers", "-1"], "--workers '-1': expected a whole number"),
    "too many loader processes": (["train", *TINY, "--workers", "100000"], "from 0 to 512"),
    "half a loader process": (["train", *TINY, "--workers", "1.5"], "--workers '1.5': expected a whole number"),
    "no folds at a time": (["train", *TINY, "--parallel", "0"], "--parallel '0': expected a whole number from 1"),
    "checkpoints in the past": (["train", *TINY, "--checkpoint-minutes", "-1"], "a number of at least 0"),
    "checkpoints never": (["train", *TINY, "--checkpoint-minutes", "inf"], "a number of at least 0"),
    "checkpoints at no time": (["train", *TINY, "--checkpoint-minutes", "nan"], "a number of at least 0"),
    "no GPUs": (["train", *TINY, "--gpus", "-1"], "--gpus -1: expected a positive"),
    "no networks at a time": (["reproduce", "--parallel", "0"], "--parallel '0': expected a whole number from 1"),
    "prediction without processes": (["predict", "--run", "a", "--workers", "-2"], "--workers '-2'"),
    "no processes that draw": (["data", "--workers", "0"], "--workers '0': expected a whole number from 1"),
    "unknown subcommand": (["trian"], "trian"),
    "shares without files": (["blend", "--shares", "1,2"], "--shares without --files"),
}


@pytest.mark.parametrize("name", WRONG)
def test_user_errors_are_one_line_and_exit_code_2(command: Command, folds: None, name: str, capsys):
    arguments, message = WRONG[name]
    capsys.readouterr()
    assert command(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_of_two_model_flags_the_last_is_trained_with_its_own_recipe(command: Command, folds: None, tmp_path: Path):
    tail = ("--model", "integral-small", "--epochs", "1", "--fold", "0", "--bins", "8")
    assert command("train", "--model", "3dhg-small", *tail) == 0
    settings = json.loads((tmp_path / "runs/integral-small/fold0/config.json").read_text())["settings"]
    assert settings["backbone"] == "test_resnet"
