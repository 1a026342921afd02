"""An interrupted or killed run resumes and ends with the same files; another configuration is refused."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import models
from competition.cli.main import main
from competition.common.files import locked
from competition.training import loop as training
from competition.training import trainer
from competition.training.checkpoint import load_checkpoint
from tests.helpers import TINY, Command, contents
from tests.training.helpers import DIVERGING


def test_repeating_the_command_of_a_finished_run_changes_nothing(command: Command, run: Path, capsys):
    before = {path: path.stat().st_mtime_ns for path in (run / "fold0").iterdir()}
    assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 0
    assert "already finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_checkpoint_within_an_epoch_holds_the_random_state_of_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Dropout draws its masks there: resumed without it, training would continue with other masks."""
    model = models.create("3dhg-small", channels=4)
    main = SimpleNamespace(is_main_process=True, size=1, rank=0)

    def make() -> Any:
        return trainer.Trainer(
            job=SimpleNamespace(folder=tmp_path, name="3dhg-small", workspace=SimpleNamespace(seed=0)), model=model,
            gradients=None, ema=None, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), scheduler=None, steps=9,
            device=SimpleNamespace(type="cuda"), precision="fp32", world=main, step=3,
        )  # fmt: skip

    state, restored = torch.arange(16, dtype=torch.uint8), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.append(state))
    make().save()
    resumed = make()
    resumed.resume(load_checkpoint(tmp_path / "last.pt"))
    assert torch.equal(resumed.gpu_rng, state)
    resumed.device, resumed.loss_sum = torch.device("cuda"), SimpleNamespace(to=lambda device: torch.zeros(()))
    resumed.start_epoch()
    assert [torch.equal(found, state) for found in restored] == [True]


AUGMENTED = (*TINY, "--epochs", "2", "--fold", "0", "--augment")
KILLS = [  # the files are the same before a step as after the step before it
    ("before", "write_valid"),
    *(("after", step) for step in ("write_valid", "write_poses", "append_log", "save_checkpoint", "write_done")),
]


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a fold without interruption; return its folder."""
    root = tmp_path_factory.mktemp("reference")
    folders = ["--data", str(data), "--folds", str(root / "folds"), "--submissions", str(root / "runs")]
    assert main(["folds", *folders, "--k", "2"]) == 0
    assert main(["train", *folders, *AUGMENTED]) == 0
    return root / "runs/3dhg-small/fold0"


@pytest.mark.parametrize(("when", "step"), KILLS)
def test_a_run_killed_between_any_two_files_ends_with_the_same_files(
    command: Command,
    folds: None,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    step: str,
):
    module = trainer if step == "save_checkpoint" else training
    write, calls = getattr(module, step), 0

    def killed(*arguments, **keywords):
        nonlocal calls
        calls += 1
        last_call = calls == (1 if step == "write_done" else 2)
        if last_call and when == "before":
            raise KeyboardInterrupt
        write(*arguments, **keywords)
        if last_call:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, step, killed)
    assert command("train", *AUGMENTED) == 130
    monkeypatch.undo()
    assert command("train", *AUGMENTED) == 0
    assert contents(tmp_path / "runs/3dhg-small/fold0") == contents(reference)


def test_more_epochs_continue_a_run_only_at_a_constant_learning_rate(
    command: Command, folds: None, tmp_path: Path, capsys
):
    train = ("train", *TINY, "--fold", "0")
    assert command(*train, "--epochs", "2", "--run", "reference") == 0
    assert command(*train, "--epochs", "1", "--run", "more") == 0
    assert command(*train, "--epochs", "2", "--run", "more") == 0
    more, reference = (contents(tmp_path / f"runs/{run}/fold0") for run in ("more", "reference"))
    for files in (more, reference):  # its settings contain the number of epochs
        del files["best.pt"]
        assert files["done.json"][0]["files"].pop("best.pt")  # type: ignore[index]
    assert more == reference
    best, expected = (load_checkpoint(tmp_path / f"runs/{run}/fold0/best.pt").model for run in ("more", "reference"))
    assert all(torch.equal(best[name], weight) for name, weight in expected.items())

    assert command(*train, "--epochs", "1", "--run", "reference") == 2
    assert "epochs 2 -> 1" in capsys.readouterr().err
    assert command(*train, "--epochs", "2", "--run", "reference", "--lr", "0.5") == 2
    error = capsys.readouterr().err
    assert "lr 0.001 -> 0.5" in error
    assert "another name for the run" in error
    assert command(*train, "--epochs", "1", "--run", "falling", "--schedule", "halve") == 0
    assert command(*train, "--epochs", "2", "--run", "falling", "--schedule", "halve") == 2


def test_resuming_does_not_download_pretrained_weights(command: Command, folds: None, monkeypatch: pytest.MonkeyPatch):
    create, pretrained = models.create, []

    def offline(name: str, **settings: Any) -> object:
        pretrained.append(settings["pretrained"])
        return create(name, **settings | {"pretrained": False})

    monkeypatch.setattr(models, "create", offline)
    for epochs in ("1", "2"):
        tail = ("--bins", "8", "--fold", "0", "--pretrained", "--epochs", epochs)
        assert command("train", "--model", "integral-small", *tail) == 0
    assert pretrained == [True, False]


def _start(tmp_path: Path, data: Path, *arguments: str) -> "subprocess.Popen[str]":
    folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
    return subprocess.Popen(
        [sys.executable, "-m", "competition", "train", *folders, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


DROPOUT = ["--model", "2dhg-small", "--channels", "16", "--input-size", "64", "--lifter-dropout", "0.5"]
DROPOUT += ["--schedule", "constant", "--precision", "fp32"]


@pytest.mark.parametrize(
    ("number", "code", "model"),
    [(signal.SIGTERM, 143, DROPOUT), pytest.param(signal.SIGINT, 130, TINY, marks=pytest.mark.slow)],
)
def test_after_a_signal_training_resumes_within_the_epoch_and_ends_with_the_same_files(
    command: Command, folds: None, data: Path, tmp_path: Path, number: int, code: int, model: list[str]
):
    train = (*model, "--epochs", "3", "--fold", "1", "--augment", "--ema", "0.9", "--batch", "4")
    assert command("train", *train, "--run", "reference") == 0
    threads = json.loads((tmp_path / "runs/reference/fold1/config.json").read_text())["threads"]
    for _ in range(5):  # the signal can come before the first step of the second epoch
        shutil.rmtree(tmp_path / "runs/stopped", ignore_errors=True)
        process = _start(tmp_path, data, *train, "--run", "stopped")
        assert process.stdout is not None
        for line in process.stdout:
            if "epoch 1/3" in line:  # the second epoch is running
                process.send_signal(number)
                break
        process.communicate(timeout=120)
        assert process.returncode == code
        state = torch.load(tmp_path / "runs/stopped/fold1/last.pt", weights_only=True)
        assert state["epoch"] == 1
        if state["part"] is not None:
            break
    assert state["part"]["step"] > 0
    assert not (tmp_path / "runs/stopped/fold1/test_epoch02.csv.gz").exists()
    assert json.loads((tmp_path / "runs/stopped/fold1/config.json").read_text())["threads"] == threads
    assert command("train", *train, "--run", "stopped") == 0
    assert contents(tmp_path / "runs/stopped/fold1") == contents(tmp_path / "runs/reference/fold1")


def test_a_folder_that_is_being_trained_is_locked(command: Command, folds: None, tmp_path: Path, capsys):
    with locked(tmp_path / "runs/3dhg-small/fold0", "taken"):
        assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 2
    assert "being trained by another process" in capsys.readouterr().err
    assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 0


def test_the_folds_of_a_run_share_one_configuration(command: Command, folds: None, tmp_path: Path, capsys):
    assert command("train", *TINY, "--epochs", "1", "--fold", "0", "--precision", "bf16") == 0
    capsys.readouterr()
    assert command("train", *TINY, "--epochs", "1", "--fold", "1", "--precision", "bf16", "--sigma", "1.1") == 2
    error = capsys.readouterr().err
    assert "fold0" in error
    assert "(sigma 1.5 -> 1.1)" in error
    assert not (tmp_path / "runs/3dhg-small/fold1/config.json").exists()
    assert command("train", *TINY, "--epochs", "1", "--fold", "1", "--precision", "auto") == 0
    settings = json.loads((tmp_path / "runs/3dhg-small/fold1/config.json").read_text())["settings"]
    assert settings["precision"] == "bf16"  # auto uses the other fold's precision


def test_a_failed_attempt_without_results_does_not_reserve_the_name(command: Command, folds: None, capsys):
    train = ("train", *TINY, "--epochs", "1", "--fold", "0")
    assert command(*train, *DIVERGING) == 2
    assert command(*train) == 0
