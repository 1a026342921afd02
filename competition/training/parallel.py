"""Training the folds of a run, one after another or several at a time.

Small networks leave most of a processor waiting: two folds at a time on one core each take little longer than one fold
on two.
"""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import replace

from competition.common.console import Console
from competition.common.errors import UserError
from competition.common.stop import TERMINATED
from competition.common.workers import worker_processes
from competition.data.images import check_images
from competition.data.labels import read_labels, read_test
from competition.training.jobs import Job, recorded_precision


def is_torchrun_worker() -> bool:
    """Whether torchrun started this process, for another one that speaks for all."""
    return "RANK" in os.environ


def train_folds(
    jobs: Sequence[Job],
    console: Console,
    *,
    parallel: int = 1,
    gpus: int | None = None,
    arguments: Sequence[str] = (),
) -> None:
    """Train folds of one run or several, `parallel` of them at a time with a share of the cores, or a GPU, each.

    With `gpus` this command, its `arguments`, is run by torchrun on so many processes: each network on all of them.
    """
    if parallel < 1:
        raise UserError(f"--parallel {parallel}: expected at least 1")
    if gpus is not None and (gpus < 1 or parallel > 1 or jobs[0].recipe.batch % gpus):
        raise UserError(
            f"--gpus {gpus}: expected at least 1, a divisor of --batch {jobs[0].recipe.batch}, no --parallel"
        )
    data = jobs[0].workspace.data
    check_images(data, read_labels(data).images + read_test(data).images)
    if gpus is not None:
        for job in jobs:
            _under_torchrun(gpus, [*_without(arguments, "--gpus", "--fold"), "--fold", str(job.fold)])
        return
    parallel = min(parallel, len(jobs))
    if parallel == 1:
        from competition.training.loop import train

        for job in jobs:
            train(job, console)
        return

    with worker_processes(parallel, preload=["competition.training.loop"]) as pool:
        auto, cores = pool.submit(_look_around).result()  # measured once, the same for all folds
        recorded = [recorded_precision(job) for job in jobs]
        together = [
            replace(job, precision=auto if of == "auto" else of) for job, of in zip(jobs, recorded, strict=True)
        ]
        futures = [pool.submit(_train_beside, job, max(1, cores // parallel), parallel) for job in together]
        for future in as_completed(futures):
            future.result()


def _under_torchrun(gpus: int, arguments: Sequence[str]) -> None:
    """Run a command by torchrun; raise UserError with the first line of complaint of any of its processes.

    When one ends, torchrun ends all.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "-m", "--", "competition"]
    threads = str(max(1, (os.cpu_count() or 1) // gpus))
    debug = "--debug" in arguments
    complaints: list[str] = []
    last_words: deque[str] = deque(maxlen=40)
    with subprocess.Popen(
        [sys.executable, *torchrun, *arguments],
        stderr=None if debug else subprocess.PIPE,
        text=True,
        env={"OMP_NUM_THREADS": threads} | os.environ,
    ) as process:
        try:
            for line in process.stderr or ():
                last_words.append(line)
                if line.startswith("error: "):
                    complaints.append(line.removeprefix("error: ").strip())
            process.wait()
        except BaseException:
            process.terminate()
            raise
    if complaints:
        raise UserError(complaints[0])
    if process.returncode in (TERMINATED, -signal.SIGTERM):
        raise SystemExit(TERMINATED)
    if process.returncode:
        told = "".join(last_words)
        first = told.rpartition("Root Cause")[2]  # torchrun ends the others when one fails
        if re.search(rf"exitcode\s*: -{int(signal.SIGKILL)}\b", first):
            raise UserError(
                "a training process was ended by SIGKILL: out of memory? lower --gpus, or --batch in a new RUN=; the "
                "same command goes on after the last checkpoint"
            )
        raise RuntimeError(f"{told}\na training process died: the same command goes on after the last checkpoint")


def _without(arguments: Sequence[str], *flags: str) -> list[str]:
    """Leave out flags and their values."""
    rest: list[str] = []
    given = iter(arguments)
    for argument in given:
        if argument in flags:
            next(given, None)
        elif argument.partition("=")[0] not in flags:
            rest.append(argument)
    return rest


def _look_around() -> tuple[str, int]:
    """Return the precision that auto means here, and how many threads a process alone would use."""
    import torch

    from competition.training.device import choose_device, choose_precision

    return choose_precision("auto", choose_device()), torch.get_num_threads()


def _train_beside(job: Job, threads: int, parallel: int) -> None:
    """Train a fold beside others, on its threads; each process of the pool keeps to one GPU."""
    import torch

    from competition.training.loop import train

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        place = multiprocessing.current_process()._identity[-1] - 1
        torch.cuda.set_device(place % parallel % torch.cuda.device_count())
    train(job, Console(plain=True))
