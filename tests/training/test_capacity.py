"""Folds at the same time, threads and loader processes follow from the model and the machine, not from its load."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

import models
from competition.common.workspace import Workspace
from competition.training import capacity, parallel
from competition.training.device import fold_threads
from competition.training.jobs import Job
from tests.helpers import TINY, Command, contents

MB = 10**6
BATCH = 64 * capacity.sample_bytes(256)  # 12.6 MB
ROOM: dict[
    str, tuple[int, int, int, int, int, tuple[str, ...]]
] = {  # free MB, files, wanted, trainings: granted, words
    "enough": (1000, 1024, 8, 1, 8, ()),
    "no processes wanted": (0, 10, 0, 1, 0, ()),
    "the default of Docker": (64, 1024, 8, 1, 1, ("1 instead of 8", "/dev/shm has 64.0 MB free", "expected 226.9")),
    "two trainings share it": (256, 1024, 8, 2, 4, ("4 instead of 8", "128.0 MB", "each of 2 trainings")),
    "a full /dev/shm": (0, 1024, 2, 1, 0, ("0 instead of 2", "0.0 MB", "--workers 0")),
    "few descriptors": (1000, 140, 8, 1, 3, ("3 instead of 8", "file descriptors are free, expected 224", "ulimit -n")),
    "no descriptors": (1000, 20, 1, 1, 0, ("0 instead of 1", "ulimit -n")),
    "neither": (64, 80, 8, 1, 0, ("/dev/shm", "--shm-size", "ulimit -n")),
}


@pytest.mark.parametrize("name", ROOM)
def test_loader_processes_are_limited_to_the_room_for_them(name: str, monkeypatch: pytest.MonkeyPatch):
    free, files, wanted, trainings, granted, words = ROOM[name]
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free * MB, f_frsize=1))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    monkeypatch.setattr(os, "listdir", lambda _: ["0"] * 12)
    messages: list[str] = []
    monkeypatch.setattr(capacity.log, "warning", messages.append)
    assert capacity.affordable_workers(wanted, BATCH, trainings=trainings) == granted
    assert len(messages) == (granted < wanted)
    assert all(word in messages[0] for word in words)


def test_without_shared_memory_or_a_limit_on_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capacity, "SHARED_MEMORY", "/nowhere")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert capacity.free_shared_memory() == 0
    assert capacity.free_descriptors() > 10_000


CPU, GPU = torch.device("cpu"), torch.device("cuda")
SMALL, LARGE = ["2dhg-small"], ["3dhg"]
AT_ONCE = {  # models, device, cores, OMP_NUM_THREADS, --parallel: at once, threads and loader processes of the first
    "two folds on two cores": (SMALL * 2, CPU, 2, None, None, 2, 1, 0),
    "five folds on two cores": (SMALL * 5, CPU, 2, None, None, 2, 1, 0),
    "five folds on eight cores": (SMALL * 5, CPU, 8, None, None, 5, 1, 0),
    "five folds on sixteen cores": (SMALL * 5, CPU, 16, None, None, 5, 1, 1),
    "a single fold": (SMALL, CPU, 2, None, None, 1, 1, 1),
    "a single core": (SMALL * 2, CPU, 1, None, None, 1, 1, 0),
    "one after another as asked": (SMALL * 2, CPU, 2, None, 1, 1, 1, 1),
    "more than cores as asked": (SMALL * 4, CPU, 2, None, 3, 3, 1, 0),
    "more than folds": (SMALL * 2, CPU, 8, None, 5, 2, 1, 1),
    "several small models": (["2dhg-small", "integral-small"], CPU, 2, None, None, 2, 1, 0),
    "two threads as asked": (SMALL * 5, CPU, 8, "2", None, 4, 2, 0),
    "large models": (LARGE * 5, CPU, 8, None, None, 1, 8, 0),
    "a large one among small ones": (SMALL + LARGE, CPU, 8, None, None, 1, 1, 1),
    "a GPU": (SMALL * 5, GPU, 8, None, None, 1, 8, 7),
    "a GPU, two threads as asked": (SMALL * 5, GPU, 8, "2", None, 1, 2, 7),
    "a GPU with many cores": (LARGE * 5, GPU, 32, None, 2, 2, 32, 8),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_small_models_train_on_a_cpu_with_one_thread_and_as_many_at_a_time_as_there_are_cores(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    chosen, device, cores, omp, wanted, at_once, threads, workers = AT_ONCE[name]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    monkeypatch.setattr(torch, "get_num_threads", lambda: int(omp or cores))
    monkeypatch.setattr(capacity, "usable_cores", lambda: cores)
    monkeypatch.setattr(capacity, "choose_device", lambda _: device)
    monkeypatch.setattr(capacity, "free_shared_memory", lambda: 10**12)
    jobs, planned_at_once = capacity.plan_jobs(_jobs(chosen, tmp_path, workers=None), wanted)
    assert (planned_at_once, jobs[0].workers) == (at_once, workers)
    assert fold_threads(chosen[0], device) == threads


@pytest.mark.parametrize(
    ("device", "cores", "finished", "wanted", "started"),
    [
        (CPU, 2, 0, None, 1),
        (CPU, 8, 3, None, 1),
        (CPU, 8, 4, None, 0),
        (CPU, 1, 0, None, 0),
        (CPU, 8, 0, 1, 0),
        (CPU, 8, 5, 2, 0),
        (GPU, 8, 0, None, 1),  # torch, which knows the device, isn't imported yet
        (GPU, 8, 0, 2, 1),
    ],
)
def test_processes_are_preloaded_only_if_folds_may_train_at_the_same_time(
    device: torch.device, cores: int, finished: int, wanted: int | None, started: int, tmp_path: Path, monkeypatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(capacity, "choose_device", lambda _: device)
    monkeypatch.setattr(capacity, "usable_cores", lambda: cores)
    monkeypatch.setattr(parallel, "usable_cores", lambda: cores)
    monkeypatch.setattr(parallel, "preload", preload := MagicMock())
    monkeypatch.setattr(parallel, "check_images", MagicMock(side_effect=KeyboardInterrupt))
    jobs = _jobs(SMALL * 5, tmp_path)
    for job in jobs[:finished]:
        job.folder.mkdir(parents=True)
        (job.folder / "done.json").write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        parallel.train_folds(jobs, MagicMock(), parallel=wanted)
    assert preload.call_count == started


def _jobs(chosen: list[str], submissions: Path, workers: int | None = 0) -> list[Job]:
    """Return a job for each model; fold i is that of model i."""
    workspace = Workspace(submissions=submissions)
    return [
        Job(workspace=workspace, name=name, recipe=models.recipe(name), fold=fold, run=name, workers=workers)
        for fold, name in enumerate(chosen)
    ]


def test_a_fold_has_the_same_files_alone_and_beside_others(
    command: Command, folds: None, tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    train = ("train", *TINY, "--epochs", "1")
    ways = {"alone": ("--fold", "1"), "beside": (), "after": ("--parallel", "1")}
    for run, flags in ways.items():
        assert command(*train, "--run", run, *flags) == 0
    output = capfd.readouterr().out
    assert output.count("training 2 of 2 folds at the same time") == (len(os.sched_getaffinity(0)) > 1)
    alone, *others = (contents(tmp_path / "runs" / run / "fold1") for run in ways)
    assert others == [alone, alone]
    assert json.loads((tmp_path / "runs/alone/fold1/config.json").read_text())["threads"] == 1
    assert command(*train, "--run", "alone") == 0
    output = capfd.readouterr().out
    assert "at the same time" not in output
    assert "alone fold 1: already finished" in output


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_training_process_that_is_killed_is_reported(
    command: Command, folds: None, monkeypatch: pytest.MonkeyPatch, capfd
):
    monkeypatch.setattr(parallel, "_train_in_pool", _die)
    assert command("train", *TINY, "--epochs", "1", "--parallel", "2") == 2
    error = capfd.readouterr().err
    assert error.startswith("error: a training process was killed")
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "warnings"), [(40, 1), (64, 1), (90, 1), (1024, 0)])
def test_training_with_few_file_descriptors_ends(
    command: Command, folds: None, data: Path, tmp_path: Path, limit: int, warnings: int
):
    folders = ["--data", str(data), "--folds", str(tmp_path / "folds"), "--submissions", str(tmp_path / "runs")]
    train = ["train", *folders, *TINY, "--epochs", "1", "--fold", "0", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "competition", *train], cwd=Path(__file__).parents[2], timeout=100, text=True,
        capture_output=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("warning: ") == warnings
    assert done.stderr == ""
