"""The whole competition on forty images: folds, training, blending, scoring; resuming; one line for what is wrong."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import models
from competition.common.errors import RunError
from competition.common.files import locked, sha256_file
from competition.common.metrics import mpjpe
from competition.common.pose_csv import read_poses, write_poses
from competition.common.workspace import Workspace
from competition.data.labels import read_labels
from competition.runs.candidates import candidates, read_test_poses
from competition.runs.folders import read_valid
from competition.runs.record import read_log
from competition.training import loop as training
from competition.training import trainer
from competition.training.checkpoint import load_checkpoint
from competition.training.jobs import Job, open_data
from competition.training.loader import KeyedBatches
from competition.training.predict import images_at_once
from competition.training.world import World, join_world
from tests.helpers import N_TEST, TINY, N, contents

Command = Callable[..., int]
DIVERGING = ("--optimizer", "sgd", "--lr", "1e30")  # refused only when training has begun
ALONE = World()


@pytest.fixture
def folds(command: Command) -> None:
    assert command("folds", "--k", "2") == 0


def test_the_chain_from_folds_to_board(command: Command, folds: None, data: Path, tmp_path: Path, capsys):
    runs = tmp_path / "runs"
    assert command("train", *TINY, "--epochs", "2") == 0
    assert command("train", *TINY, "--epochs", "1", "--run", "other", "--lr", "3e-3", "--augment") == 0
    for fold in (0, 1):
        names = {path.name for path in (runs / f"3dhg-small/fold{fold}").iterdir()}
        epochs = {f"{kind}_epoch0{e}.{end}" for e in (1, 2) for kind, end in (("valid", "npz"), ("test", "csv.gz"))}
        assert names == epochs | {"config.json", "log.jsonl", "last.pt", "best.pt", "done.json"}

    # every training row is held out once, the log tells the files' score
    labels = read_labels(data)
    ids = []
    for fold in (0, 1):
        folder = runs / f"3dhg-small/fold{fold}"
        poses = read_valid(folder / "valid_epoch02.npz")
        ids += poses.id.tolist()
        row = read_log(folder)[1]
        assert row["valid_mpjpe"] == pytest.approx(mpjpe(poses.pose_mm, labels.pose_mm[poses.id - 1]))
        assert np.mean(row["valid_mpjpe_joint"]) == pytest.approx(row["valid_mpjpe"])
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
    assert board["3dhg-small"]["all"] is None  # never scored
    assert board["other"]["out_of_fold"] > 0
    assert "3dhg-small" in capsys.readouterr().out


def test_the_same_command_again_changes_nothing(command: Command, folds: None, tmp_path: Path, capsys):
    train = ("train", *TINY, "--epochs", "1", "--fold", "0")
    assert command(*train) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/3dhg-small/fold0").iterdir()}
    assert command(*train) == 0
    assert "finished already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    config = tmp_path / "runs/3dhg-small/fold0/config.json"
    older = json.loads(config.read_text())
    del older["settings"]["compile"], older["labels_sha256"], older["test_images_sha256"]  # which came later
    config.write_text(json.dumps(older))
    assert command(*train) == 0


STEPS = ("write_valid", "write_poses", "append_log", "save_checkpoint", "write_json")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_between_any_two_files_ends_with_the_same_files(
    command: Command, folds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
):
    train = ("train", *TINY, "--epochs", "2", "--fold", "0", "--augment")
    assert command(*train, "--run", "whole") == 0

    module = trainer if step == "save_checkpoint" else training
    write, calls = getattr(module, step), 0

    def killed(*arguments, **keywords):
        nonlocal calls
        calls += 1
        last_call = calls == (1 if step == "write_json" else 2)
        if last_call and when == "before":
            raise KeyboardInterrupt
        write(*arguments, **keywords)
        if last_call:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, step, killed)
    assert command(*train, "--run", "killed") == 130
    monkeypatch.undo()
    assert command(*train, "--run", "killed") == 0
    assert contents(tmp_path / "runs/killed/fold0") == contents(tmp_path / "runs/whole/fold0")


def test_results_do_not_depend_on_the_number_of_workers(command: Command, folds: None, tmp_path: Path):
    train = ("train", *TINY, "--epochs", "2", "--fold", "1", "--augment")
    assert command(*train, "--run", "none") == 0
    assert command(*train, "--run", "two", "--workers", "2") == 0
    assert contents(tmp_path / "runs/two/fold1") == contents(tmp_path / "runs/none/fold1")


def test_more_epochs_go_on_where_the_rate_is_constant_and_are_refused_elsewhere(
    command: Command, folds: None, tmp_path: Path, capsys
):
    train = ("train", *TINY, "--fold", "0")
    assert command(*train, "--epochs", "2", "--run", "whole") == 0
    assert command(*train, "--epochs", "1", "--run", "more") == 0
    assert command(*train, "--epochs", "2", "--run", "more") == 0
    more, whole = (contents(tmp_path / f"runs/{run}/fold0") for run in ("more", "whole"))
    for files in (more, whole):  # where the first epoch was the best, its network's settings say one epoch
        del files["best.pt"]
        assert files["done.json"][0]["files"].pop("best.pt")  # type: ignore[index]
    assert more == whole
    best, expected = (load_checkpoint(tmp_path / f"runs/{run}/fold0/best.pt")["model"] for run in ("more", "whole"))
    assert all(torch.equal(best[name], weight) for name, weight in expected.items())

    assert command(*train, "--epochs", "1", "--run", "whole") == 2
    assert "epochs 2 -> 1" in capsys.readouterr().err
    assert command(*train, "--epochs", "2", "--run", "whole", "--lr", "0.5") == 2
    error = capsys.readouterr().err
    assert "lr 0.001 -> 0.5" in error
    assert "--run" in error
    assert command(*train, "--epochs", "1", "--run", "falling", "--schedule", "halve") == 0
    assert command(*train, "--epochs", "2", "--run", "falling", "--schedule", "halve") == 2


def test_the_weights_of_the_best_epoch_are_kept(
    command: Command, folds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    errors = iter((70.0, 60.0, 60.0))
    monkeypatch.setattr(training, "mpjpe", lambda *_: next(errors))
    assert command("train", *TINY, "--epochs", "3", "--fold", "0") == 0
    folder = tmp_path / "runs/3dhg-small/fold0"
    assert [load_checkpoint(folder / f"{kept}.pt")["epoch"] for kept in ("best", "last")] == [2, 3]
    assert json.loads((folder / "done.json").read_text())["best_epoch"] == 2


def test_a_run_that_goes_on_downloads_no_weights(command: Command, folds: None, monkeypatch: pytest.MonkeyPatch):
    create, asked = models.create, []

    def offline(name: str, **settings: Any) -> object:
        asked.append(settings["pretrained"])
        return create(name, **settings | {"pretrained": False})

    monkeypatch.setattr(models, "create", offline)
    for epochs in ("1", "2"):
        tail = ("--bins", "8", "--fold", "0", "--pretrained", "--epochs", epochs)
        assert command("train", "--model", "integral-small", *tail) == 0
    assert asked == [True, False]


def test_fold_full_trains_on_everything_and_is_no_candidate(command: Command, folds: None, tmp_path: Path):
    assert command("train", *TINY, "--epochs", "1", "--fold", "full") == 0
    folder = tmp_path / "runs/3dhg-small/foldfull"
    assert not list(folder.glob("valid*"))
    assert (folder / "test_epoch01.csv.gz").exists()
    assert read_log(folder)[0]["valid_mpjpe"] is None
    assert candidates(tmp_path / "runs") == []


def test_training_can_start_from_another_run(command: Command, folds: None, tmp_path: Path, capsys):
    assert command("train", *TINY, "--epochs", "1", "--fold", "0", "--run", "first") == 0
    # a learning rate of next to nothing leaves the weights where they began
    tail = ("--epochs", "1", "--fold", "0", "--run", "second", "--lr", "1e-30", "--optimizer", "sgd")
    assert command("train", *TINY, *tail, "--init", "first") == 0
    first, second = (torch.load(tmp_path / f"runs/{run}/fold0/best.pt")["model"] for run in ("first", "second"))
    weights = [name for name in first if name.endswith(".weight")]
    assert weights
    assert all(torch.equal(first[name], second[name]) for name in weights)
    assert command("train", *TINY, *tail, "--init", "nobody", "--run", "third") == 2
    assert "nobody" in capsys.readouterr().err
    assert command("folds", "--k", "3", "--force") == 0  # what was held out isn't any more
    assert command("train", *TINY, *tail, "--init", "first", "--run", "third") == 2
    assert "trained on other folds" in capsys.readouterr().err


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


def _start(tmp_path: Path, data: Path, *arguments: str) -> "subprocess.Popen[str]":
    folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
    return subprocess.Popen(
        [sys.executable, "-m", "competition", "train", *folders, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


DROPPING = ["--model", "2dhg-small", "--channels", "16", "--input-size", "64", "--lifter-dropout", "0.5"]
DROPPING += ["--schedule", "constant", "--precision", "fp32"]


@pytest.mark.parametrize(("number", "code", "tiny"), [(signal.SIGTERM, 143, DROPPING), (signal.SIGINT, 130, TINY)])
def test_told_to_end_it_keeps_the_steps_taken_and_goes_on_to_the_same_files(
    command: Command, folds: None, data: Path, tmp_path: Path, number: int, code: int, tiny: list[str]
):
    train = (*tiny, "--epochs", "3", "--fold", "1", "--augment", "--ema", "0.9", "--batch", "4")
    assert command("train", *train, "--run", "whole") == 0
    threads = json.loads((tmp_path / "runs/whole/fold1/config.json").read_text())["threads"]
    process = _start(tmp_path, data, *train, "--run", "told")
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 1/3" in line:  # the second epoch is under way
            process.send_signal(number)
            break
    process.communicate(timeout=120)
    assert process.returncode == code
    state = torch.load(tmp_path / "runs/told/fold1/last.pt", weights_only=True)
    assert state["epoch"] == 1
    assert state["part"]["step"] > 0
    assert not (tmp_path / "runs/told/fold1/test_epoch02.csv.gz").exists()
    assert json.loads((tmp_path / "runs/told/fold1/config.json").read_text())["threads"] == threads
    assert command("train", *train, "--run", "told") == 0
    assert contents(tmp_path / "runs/told/fold1") == contents(tmp_path / "runs/whole/fold1")


@pytest.mark.parametrize(("device", "whole"), [("cpu", 32), ("cuda", 64)])
def test_no_more_images_are_predicted_at_a_time_than_trained_on(device: str, whole: int):
    recipe = models.recipe("3dhg-small")
    assert images_at_once(torch.device(device), recipe) == whole
    assert images_at_once(torch.device(device), replace(recipe, micro_batch=3)) == 3


def test_a_folder_that_is_being_trained_is_locked(command: Command, folds: None, tmp_path: Path, capsys):
    with locked(tmp_path / "runs/3dhg-small/fold0", "taken"):
        assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 2
    assert "being trained by another process" in capsys.readouterr().err
    assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 0


def test_parts_of_a_batch_make_the_step_of_the_whole(command: Command, folds: None, data: Path, tmp_path: Path):
    """Without batch statistics; with them parts are normalised each by themselves."""
    whole, parts = (_gradients(data, tmp_path, micro_batch) for micro_batch in (None, 3))
    for name, gradient in whole.items():
        np.testing.assert_allclose(parts[name], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_compiled_training_is_recorded_and_a_compiler_that_fails_is_one_line(
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
    assert "--compile fails here" in (said := capsys.readouterr().err)
    assert said.strip().splitlines()[-1].endswith("leave it out")
    graphs = []
    assert command(*train) == 0
    assert graphs
    assert json.loads((tmp_path / "runs/3dhg-small/fold0/config.json").read_text())["settings"]["compile"]


def test_gradients_of_two_processes_are_those_of_one_with_the_whole_batch(
    command: Command, folds: None, data: Path, tmp_path: Path
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    whole = _gradients(data, tmp_path, None)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(_gradients_of_rank, (0, 1), [port] * 2, [data] * 2, [tmp_path] * 2))
    for name, gradient in whole.items():
        np.testing.assert_array_equal(parts[0][name], parts[1][name])
        np.testing.assert_allclose(parts[0][name], gradient, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())


def _gradients_of_rank(rank: int, port: int, data: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with join_world(torch.device("cpu")) as world:
        return _gradients(data, tmp_path, 3, world)  # a share of 4 images, in two parts


def _gradients(data: Path, tmp_path: Path, micro_batch: int | None, world: World = ALONE) -> dict[str, np.ndarray]:
    recipe = models.recipe("3dhg-small", channels=16, depths=(1, 8), batch=8, micro_batch=micro_batch, optimizer="sgd")
    workspace = Workspace(data=data, folds=tmp_path / "folds", submissions=tmp_path / "runs")
    job = Job(workspace=workspace, name="3dhg-small", recipe=recipe, fold=0, run="parts")
    opened = open_data(job)
    pose_mm = torch.from_numpy(opened.labels.pose_mm[opened.train_rows])
    made = trainer.build(job, opened.train_rows, pose_mm, torch.device("cpu"), "fp32", world)
    made.model.eval()
    _, loader = training.training_loader(job, opened, made)
    training.train_step(made, next(iter(loader)), 1)
    return {name: p.grad.numpy().copy() for name, p in made.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_share_every_batch_and_every_row(size: int):
    rows = np.arange(10, 41)
    whole = KeyedBatches(rows, 6, shuffle_seed=3)
    shares = [KeyedBatches(rows, 6, shuffle_seed=3, share=(rank, size)) for rank in range(size)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(key for part in parts for key in part) == sorted(batch)
    predicted = [key for rank in range(size) for keys in KeyedBatches(rows[rank::size], 4) for key in keys]
    assert sorted(row for _, row in predicted) == rows.tolist()


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


def test_an_array_file_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez_compressed(tmp_path / "bomb.npz", id=np.arange(9), pose=np.zeros((9, 17, 3)))
    assert len(read_valid(tmp_path / "bomb.npz").id) == 9
    monkeypatch.setattr("competition.runs.folders.MAX_NPZ_BYTES", 1000)
    with pytest.raises(RunError, match="when decompressed"):
        read_valid(tmp_path / "bomb.npz")


def test_a_run_is_not_overwritten_by_predicting_again(command: Command, folds: None, tmp_path: Path, capsys):
    assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 0
    assert command("train", *TINY, "--epochs", "1", "--fold", "0", "--run", "3dhg-small-dark") == 0
    capsys.readouterr()
    assert command("predict", "--run", "3dhg-small", "--decoder", "dark") == 2
    assert "is a trained run" in capsys.readouterr().err


def test_the_folds_of_a_run_share_one_configuration(command: Command, folds: None, tmp_path: Path, capsys):
    assert command("train", *TINY, "--epochs", "1", "--fold", "0", "--precision", "bf16") == 0
    capsys.readouterr()
    assert command("train", *TINY, "--epochs", "1", "--fold", "1", "--precision", "bf16", "--sigma", "1.1") == 2
    assert "fold0 was trained with another configuration (sigma 1.5 -> 1.1)" in capsys.readouterr().err
    assert not (tmp_path / "runs/3dhg-small/fold1/config.json").exists()
    assert command("train", *TINY, "--epochs", "1", "--fold", "1", "--precision", "auto") == 0
    settings = json.loads((tmp_path / "runs/3dhg-small/fold1/config.json").read_text())["settings"]
    assert settings["precision"] == "bf16"  # auto takes over what the other fold has


def test_folds_train_side_by_side(command: Command, folds: None, tmp_path: Path, capfd):
    assert command("train", *TINY, "--epochs", "1", "--parallel", "2") == 0
    assert "out-of-fold MPJPE" in capfd.readouterr().out
    for fold in ("fold0", "fold1"):
        assert (tmp_path / "runs/3dhg-small" / fold / "done.json").exists()
    assert command("train", *TINY, "--epochs", "1", "--run", "b", "--parallel", "2", *DIVERGING) == 2
    assert "no longer finite" in capfd.readouterr().err


def test_a_run_of_other_images_is_not_blended(command: Command, folds: None, own_data: Path, capsys):
    assert command("train", *TINY, "--epochs", "1") == 0
    names = own_data / "annot/train_images.txt"
    lines = names.read_text().splitlines()
    names.write_text("\n".join(reversed(lines)) + "\n")
    assert command("blend", data=own_data) == 2
    assert "trained on other images" in capsys.readouterr().err


@pytest.mark.parametrize("work", ["models.three_d.ThreeDHourglass.loss", "competition.training.predict.predict_images"])
def test_running_out_of_memory_is_one_line(command: Command, folds: None, work: str, monkeypatch, capsys):
    """In training, and in prediction."""

    def greedy(*_: object) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr(work, greedy)
    assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 2
    assert "out of memory: set --micro-batch below 8" in capsys.readouterr().err


def test_a_loss_that_is_no_longer_finite_stops_the_run(command: Command, folds: None, tmp_path: Path, capsys):
    assert command("train", *TINY, "--epochs", "1", "--fold", "0", *DIVERGING) == 2
    error = capsys.readouterr().err
    assert "no longer finite in epoch 1" in error
    assert not (tmp_path / "runs/3dhg-small/fold0/last.pt").exists()


def test_a_teammates_run_without_configuration_is_blended(command: Command, folds: None, data: Path, tmp_path, capsys):
    assert command("train", *TINY, "--epochs", "1") == 0
    mate = tmp_path / "runs/mate/fold0"
    mate.mkdir(parents=True)
    labels = read_labels(data)
    np.savez(mate / "valid_epoch01.npz", id=labels.id, pose=labels.pose_mm + 30 * (np.arange(17) > 0)[:, None])
    shutil.copy(tmp_path / "runs/3dhg-small/fold0/test_epoch01.csv.gz", mate / "test_epoch01.csv.gz")
    capsys.readouterr()
    assert command("blend", "--method", "exact") == 0
    said = capsys.readouterr().out
    assert "mate: its folds can't be verified" in said
    assert "are missing" not in said  # nothing is known of an outsider's folds


def test_files_alone_are_blended_by_mean_median_or_shares(command: Command, folds: None, data: Path, tmp_path, capsys):
    poses = np.random.default_rng(0).normal(0, 300, (3, N_TEST, 17, 3)).round(3)
    files = [str(tmp_path / f"{name}.csv") for name in "abc"]
    for file, pose in zip(files, poses, strict=True):
        write_poses(Path(file), np.arange(1, N_TEST + 1), pose)
    expected = {(): poses.mean(axis=0), ("--method", "median"): np.median(poses, axis=0)}
    expected["--shares", "2,1,1"] = poses[0] / 2 + poses[1] / 4 + poses[2] / 4
    for arguments, pose in expected.items():
        assert command("blend", "--files", *files, *arguments) == 0
        written = read_poses(tmp_path / "runs/blend/submission.csv.gz").pose_mm
        np.testing.assert_allclose(written, pose, atol=0.00051)
    wrong = {"1,x,2": "numbers separated", "1,2": "expected 3 numbers", "-1,2,3": "at least 0"}
    for shares, message in wrong.items():
        capsys.readouterr()
        assert command("blend", "--files", *files, f"--shares={shares}") == 2
        assert message in capsys.readouterr().err
    assert command("blend", "--files", *files, "--method", "exact") == 2
    (tmp_path / "runs/blend/weights.csv").write_text("of runs")
    capsys.readouterr()
    assert command("blend", "--files", *files) == 2
    assert "holds a blend of runs" in capsys.readouterr().err
    assert command("blend", "--files", *files, "--out", str(tmp_path / "runs/blend-files")) == 0
    assert (tmp_path / "runs/blend/weights.csv").read_text() == "of runs"


WRONG = {
    "unknown model": (["train", "--model", "3dgh", "--epochs", "3"], "did you mean '3dhg'"),
    "unknown setting": (["train", *TINY, "--lrate", "1"], "unknown flag '--lrate'"),
    "setting of another model": (["train", *TINY, "--backbone", "resnet18"], "unknown flag '--backbone'"),
    "impossible setting": (["train", *TINY, "--epochs", "0"], "epochs"),
    "no number": (["train", *TINY, "--lr", "fast"], "invalid float value: 'fast'"),
    "unknown optimiser": (["train", *TINY, "--optimizer", "adamm"], "adamm"),
    "fold out of range": (["train", *TINY, "--fold", "2"], "expected 0 to 1"),
    "unknown precision": (["train", *TINY, "--precision", "fp8"], "did you mean"),
    "run that escapes": (["train", *TINY, "--run", "../up"], "run '../up'"),
    "run unknown": (["predict", "--run", "nobody"], "no run at"),
    "nothing to blend": (["blend"], "nothing to blend"),
    "unknown method": (["blend", "--method", "exakt"], "did you mean 'exact'"),
    "nothing on the board": (["board"], "no runs under"),
    "no file to score": (["score", "--file", "none.csv"], "none.csv"),
    "unknown strategy": (["folds", "--strategy", "subjects"], "did you mean 'subject'"),
    "no images": (["data", "--n", "0"], "at least 1"),
    "unknown subcommand": (["trian"], "trian"),
    "shares of nothing": (["blend", "--shares", "1,2"], "--shares without --files"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(command: Command, folds: None, name: str, capsys):
    arguments, message = WRONG[name]
    capsys.readouterr()
    assert command(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_an_attempt_that_left_nothing_behind_does_not_bind_the_name(command: Command, folds: None, capsys):
    train = ("train", *TINY, "--epochs", "1", "--fold", "0")
    assert command(*train, *DIVERGING) == 2
    assert command(*train) == 0


def test_the_last_of_two_models_named_is_trained_with_its_own_recipe(command: Command, folds: None, tmp_path: Path):
    tail = ("--model", "integral-small", "--epochs", "1", "--fold", "0", "--bins", "8")
    assert command("train", "--model", "3dhg-small", *tail) == 0
    settings = json.loads((tmp_path / "runs/integral-small/fold0/config.json").read_text())["settings"]
    assert settings["backbone"] == "test_resnet"


def test_a_half_trained_run_is_named_with_the_folds_it_lacks(command: Command, folds: None, tmp_path: Path, capsys):
    (tmp_path / "runs/3dhg-small/fold0").mkdir(parents=True)
    begun = {"folds_sha256": sha256_file(tmp_path / "folds/folds.csv"), "recipe": "3dhg-small"}
    (tmp_path / "runs/3dhg-small/fold0/config.json").write_text(json.dumps(begun))
    for arguments in ((), ("--runs", "3dhg-small")):
        capsys.readouterr()
        assert command("blend", *arguments) == 2
        assert "3dhg-small has no epoch of all its folds: 2 of 2 are missing (fold0, fold1)" in capsys.readouterr().err
    assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 0
    assert command("blend", "--method", "mean") == 0
    assert "3dhg-small is blended on the folds it has: 1 of 2 are missing (fold1)" in capsys.readouterr().out
