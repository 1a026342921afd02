"""A run that is killed at any moments and restarted ends with the same files as an uninterrupted run."""

import ctypes
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from competition.cli import main as cli
from competition.common import files
from competition.runs import folders as runs
from competition.runs import provenance
from competition.training import checkpoint
from competition.training import loop as training
from competition.training.trainer import Trainer
from tests.helpers import TINY

KILLS = 30
PRELOAD = [
    "pytest",
    "pandas",
    "competition.cli.tables",
    "competition.training.parallel",
    "competition.synthetic.generate",
    "competition.training.loop",
    "competition.blending.blend",
]
MOMENTS = ("before", "empty", "half", "complete", "after")  # while a file is written
PHASES = ("start", "folds", "train", "predict", "write", "blend")
TIMINGS = ("seconds", "images_per_second", "datetime_start", "datetime_complete", "worker_id")
CHAIN = (
    ("folds", "--k", "2"),
    ("train", *TINY, "--epochs", "3", "--augment", "--ema", "0.9", "--checkpoint-minutes", "0", "--parallel", "1"),
    ("blend", "--granularity", "coordinate"),
)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _chain(data: Path, root: Path, phase: Any, number: int | None = None, moment: str = "") -> None:
    """Make folds, train and blend; store the current phase in `phase`; die at `moment` of the number-th file."""
    provenance.code_commit = lambda: None  # type: ignore[assignment]  # the commit may change during the test
    atomic, written = files.atomic, 0

    @contextmanager
    def dying_atomic(path: Path) -> Iterator[IO[bytes]]:
        nonlocal written
        written += 1
        before, phase.value = phase.value, PHASES.index("write")
        now = moment if written == number else None
        if now == "before":
            _die()
        with atomic(path) as handle:
            if now == "empty":
                _die()
            yield handle
            handle.flush()
            if now == "half":
                handle.truncate(handle.tell() // 2)
            if now in ("half", "complete"):
                _die()
        if now == "after":
            _die()
        phase.value = before

    def in_phase(name: str, work: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **keywords: object) -> object:
            phase.value = PHASES.index(name)
            return work(*arguments, **keywords)

        return wrapped

    for module in (files, runs, checkpoint):
        module.atomic = dying_atomic  # type: ignore[attr-defined]
    Trainer.update_weights = in_phase("train", Trainer.update_weights)  # type: ignore[method-assign]
    training.predict_all = in_phase("predict", training.predict_all)  # type: ignore[assignment]
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    folders = ["--data", str(data), "--folds", str(root / "folds"), "--submissions", str(root / "runs")]
    for name, *more in CHAIN:
        phase.value = PHASES.index("start" if name == "train" else name)
        if code := cli.main([name, *folders, *more]):
            sys.exit(code)


def _contents(root: Path) -> dict[str, object]:
    """Return the content of every file without timings."""
    found: dict[str, object] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name, content = str(path.relative_to(root)), path.read_bytes()
        if path.name in ("log.jsonl", "study.journal"):
            found[name] = [_without_timings(json.loads(line)) for line in content.splitlines()]
        elif path.name in ("done.json", "blend.json"):
            found[name] = _without_timings(json.loads(content))
        elif path.suffix != ".tmp":
            found[name] = content
    return found


def _without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_timings(item) for key, item in value.items() if key not in TIMINGS}
    return [_without_timings(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_folds_training_and_blend_killed_at_random_moments_end_with_the_same_files(data: Path, tmp_path: Path):
    """A third of the kills happen while a file is written, the others at any time.

    The processes are forked from one that has already imported torch, so that they start within half a second.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    rng, phase = random.Random(0), context.RawValue(ctypes.c_int8)

    def start(root: Path, *kill: object) -> Any:
        phase.value = PHASES.index("start")
        process = context.Process(target=_chain, args=(data, root, phase, *kill))
        process.start()
        return process

    for name in ("first", "second"):  # the first includes the import of torch
        started = time.monotonic()
        process = start(tmp_path / name)
        process.join()
        seconds = time.monotonic() - started
        assert process.exitcode == 0
    expected = _contents(tmp_path / "second")
    assert _contents(tmp_path / "first") == expected
    assert {"folds/folds.csv", "runs/3dhg-small/fold1/done.json", "runs/blend/study.journal"} <= set(expected)

    hits: Counter[str] = Counter()
    rounds = 0
    while hits.total() < KILLS:
        rounds += 1
        root = tmp_path / "killed"
        shutil.rmtree(root, ignore_errors=True)
        while True:
            if hits.total() == KILLS:
                process = start(root)
                process.join()
            elif rng.random() < 1 / 3:
                process = start(root, rng.randint(1, 16), rng.choice(MOMENTS))
                process.join()
            else:
                process = start(root)
                process.join(rng.expovariate(5 / seconds))
                process.kill()
                process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            hits[PHASES[phase.value]] += 1
        assert _contents(root) == expected
        assert not list(root.glob("runs/3dhg-small/fold*/.*"))
    print(f"{hits.total()} kills in {rounds} rounds: {', '.join(f'{name} {hits[name]}' for name in PHASES)}")
    assert min(hits["train"], hits["write"]) > 0
