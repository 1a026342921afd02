"""Killed at any moment until it ends, a run leaves the files of one that nothing disturbed."""

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
MOMENTS = ("before", "empty", "half", "whole", "after")  # of a file that is being written
PHASES = ("start", "folds", "train", "predict", "write", "blend")
TIMINGS = ("seconds", "images_per_second", "datetime_start", "datetime_complete", "worker_id")
CHAIN = (
    ("folds", "--k", "2"),
    ("train", *TINY, "--epochs", "3", "--augment", "--ema", "0.9", "--checkpoint-minutes", "0"),
    ("blend", "--granularity", "coordinate"),
)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _chain(data: Path, root: Path, phase: Any, number: int | None = None, moment: str = "") -> None:
    """Make folds, train and blend; tell in `phase` what is under way, and die at a moment of the number-th file."""
    provenance.code_commit = lambda: None  # type: ignore[assignment]  # others may commit meanwhile
    atomic, written = files.atomic, 0

    @contextmanager
    def dying(path: Path) -> Iterator[IO[bytes]]:
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
            if now in ("half", "whole"):
                _die()
        if now == "after":
            _die()
        phase.value = before

    def telling(name: str, work: Callable[..., object]) -> Callable[..., object]:
        def told(*arguments: object, **keywords: object) -> object:
            phase.value = PHASES.index(name)
            return work(*arguments, **keywords)

        return told

    for module in (files, runs, checkpoint):
        module.atomic = dying  # type: ignore[attr-defined]
    training.train_step = telling("train", training.train_step)  # type: ignore[assignment]
    training.predict_all = telling("predict", training.predict_all)  # type: ignore[assignment]
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    folders = ["--data", str(data), "--folds", str(root / "folds"), "--submissions", str(root / "runs")]
    for name, *more in CHAIN:
        phase.value = PHASES.index("start" if name == "train" else name)
        if code := cli.main([name, *folders, *more]):
            sys.exit(code)


def _left(root: Path) -> dict[str, object]:
    """Return every file's bytes; where timings stand, all but these."""
    found: dict[str, object] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name, content = str(path.relative_to(root)), path.read_bytes()
        if path.name in ("log.jsonl", "study.journal"):
            found[name] = [_untimed(json.loads(line)) for line in content.splitlines()]
        elif path.name in ("done.json", "blend.json"):
            found[name] = _untimed(json.loads(content))
        elif path.suffix != ".tmp":
            found[name] = content
    return found


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(item) for key, item in value.items() if key not in TIMINGS}
    return [_untimed(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_a_whole_run_killed_at_random_moments_ends_with_the_same_files(data: Path, tmp_path: Path):
    """Folds, two folds' training and a blend. A third of the kills hit a file that is written, the others at any time.

    The processes are forked from one that has loaded torch, so that a start costs half a second.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    chosen, phase = random.Random(0), context.RawValue(ctypes.c_int8)

    def start(root: Path, *dies: object) -> Any:
        phase.value = PHASES.index("start")
        process = context.Process(target=_chain, args=(data, root, phase, *dies))
        process.start()
        return process

    for name in ("first", "whole"):  # the first waits for torch
        begun = time.monotonic()
        whole = start(tmp_path / name)
        whole.join()
        seconds = time.monotonic() - begun
        assert whole.exitcode == 0
    expected = _left(tmp_path / "whole")
    assert _left(tmp_path / "first") == expected
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
            elif chosen.random() < 1 / 3:
                process = start(root, chosen.randint(1, 16), chosen.choice(MOMENTS))
                process.join()
            else:
                process = start(root)
                process.join(chosen.expovariate(5 / seconds))
                process.kill()
                process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            hits[PHASES[phase.value]] += 1
        assert _left(root) == expected
        assert not list(root.glob("runs/3dhg-small/fold*/.*"))
    print(f"{hits.total()} kills in {rounds} rounds: {', '.join(f'{name} {hits[name]}' for name in PHASES)}")
    assert min(hits["train"], hits["write"]) > 0
