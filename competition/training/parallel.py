"""Train the folds of a run, one after another, several in parallel, or each on several GPUs (DDP via torchrun).

Small networks use several cores badly: it is faster to train several folds in parallel, on fewer cores each.
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
    """Whether torchrun started this process; the process that runs torchrun reports the results."""
    return "RANK" in os.environ


def train_folds(
    jobs: Sequence[Job],
    console: Console,
    *,
    parallel: int = 1,
    gpus: int | None = None,
    arguments: Sequence[str] = (),
) -> None:
    """Train folds of one or several runs, `parallel` of them at a time, dividing the cores or GPUs among them.

    With `gpus`, torchrun runs this command with its `arguments` on that many processes for each fold in turn (DDP).
    """
    if parallel < 1:
        raise UserError(f"--parallel {parallel}: expected at least 1")
    if gpus is not None and (gpus < 1 or parallel > 1 or jobs[0].recipe.batch % gpus):
        raise UserError(
            f"--gpus {gpus}: expected a positive divisor of --batch {jobs[0].recipe.batch}, and no --parallel"
        )
    data = jobs[0].workspace.data
    check_images(data, read_labels(data).images + read_test(data).images)
    if gpus is not None:
        for job in jobs:
            _run_torchrun(gpus, [*_remove_flags(arguments, "--gpus", "--fold"), "--fold", str(job.fold)])
        return
    parallel = min(parallel, len(jobs))
    if parallel == 1:
        from competition.training.loop import train

        for job in jobs:
            train(job, console)
        return

    with worker_processes(parallel, preload=["competition.training.loop"]) as pool:
        auto, cores = pool.submit(_auto_precision_and_threads).result()  # measured once for all folds
        recorded = [recorded_precision(job) for job in jobs]
        resolved = [
            replace(job, precision=auto if precision == "auto" else precision)
            for job, precision in zip(jobs, recorded, strict=True)
        ]
        futures = [pool.submit(_train_in_pool, job, max(1, cores // parallel), parallel) for job in resolved]
        for future in as_completed(futures):
            future.result()


def _run_torchrun(gpus: int, arguments: Sequence[str]) -> None:
    """Run this command with torchrun; raise UserError with the first error line of any process.

    If one process fails, torchrun ends the others.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "-m", "--", "competition"]
    threads = str(max(1, (os.cpu_count() or 1) // gpus))
    debug = "--debug" in arguments
    errors: list[str] = []
    last_lines: deque[str] = deque(maxlen=40)
    with subprocess.Popen(
        [sys.executable, *torchrun, *arguments],
        stderr=None if debug else subprocess.PIPE,
        text=True,
        env={"OMP_NUM_THREADS": threads} | os.environ,
    ) as process:
        try:
            for line in process.stderr or ():
                last_lines.append(line)
                if line.startswith("error: "):
                    errors.append(line.removeprefix("error: ").strip())
            process.wait()
        except BaseException:
            process.terminate()
            raise
    if errors:
        raise UserError(errors[0])
    if process.returncode in (TERMINATED, -signal.SIGTERM):
        raise SystemExit(TERMINATED)
    if process.returncode:
        output = "".join(last_lines)
        first_failure = output.rpartition("Root Cause")[2]  # then torchrun ended the other processes
        if re.search(rf"exitcode\s*: -{int(signal.SIGKILL)}\b", first_failure):
            raise UserError(
                "a training process was killed by SIGKILL: out of memory? lower --gpus, or --batch in a new RUN=; the "
                "same command resumes from the last checkpoint"
            )
        raise RuntimeError(f"{output}\na training process died: the same command resumes from the last checkpoint")


def _remove_flags(arguments: Sequence[str], *flags: str) -> list[str]:
    """Return the arguments without these flags and their values."""
    kept: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument in flags:
            next(remaining, None)
        elif argument.partition("=")[0] not in flags:
            kept.append(argument)
    return kept


def _auto_precision_and_threads() -> tuple[str, int]:
    """Return the precision that auto resolves to on this machine, and the number of threads of a single process."""
    import torch

    from competition.training.device import choose_device, choose_precision

    return choose_precision("auto", choose_device()), torch.get_num_threads()


def _train_in_pool(job: Job, threads: int, parallel: int) -> None:
    """Train a fold in a pool process with a number of threads; each process always uses the same GPU."""
    import torch

    from competition.training.loop import train

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        process = multiprocessing.current_process()._identity[-1] - 1
        torch.cuda.set_device(process % parallel % torch.cuda.device_count())
    train(job, Console(plain=True))
