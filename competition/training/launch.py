"""Start the processes that train one network together, with PyTorch's elastic launcher, in a world of this machine."""

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import NoReturn, TypeAlias

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from competition.common.console import Console
from competition.common.errors import UserError
from competition.common.stop import INTERRUPTED, TERMINATED
from competition.common.workers import preload, usable_cores
from competition.training.jobs import Data, Job
from competition.training.loop import train

Reports: TypeAlias = "SimpleQueue[tuple[UserError | OSError, str]]"  # errors and their tracebacks
FIRST_SECONDS = 2.0  # by which the launcher notices the process that died first
LAST_LETTERS = 4000  # of a process's standard error


def train_on_gpus(job: Job, data: Data, gpus: int) -> None:
    """Train a fold with `gpus` processes; raise the first UserError or OSError of any of them.

    If one process fails, the launcher ends the others. A signal is passed on to all, which save a checkpoint.
    """
    context = multiprocessing.get_context("forkserver")
    preload(["competition.training.loop"])
    reports: Reports = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder, _quiet_launcher():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=gpus,
            run_id=os.path.basename(folder),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            start_method="forkserver",
            signals_to_handle="SIGTERM,SIGINT",
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=Std.ERR),
        )
        try:
            elastic_launch(config, _train_rank)(job, data, max(1, usable_cores() // gpus), reports)
        except SignalException as error:
            raise SystemExit(TERMINATED) if error.sigval == signal.SIGTERM else KeyboardInterrupt from None
        except ChildFailedError as error:
            _raise_failure(error, reports, Path(folder))


def _raise_failure(error: ChildFailedError, reports: Reports, logs: Path) -> NoReturn:
    """Raise the error that a process reported, or one for the way in which the first process ended.

    `logs` contains what the processes wrote to their standard errors.
    """
    if not reports.empty():
        reported, trace = reports.get()
        raise reported from RuntimeError(trace)
    _, failure = error.get_first_failure()
    if failure.exitcode in (TERMINATED, -signal.SIGTERM):
        raise SystemExit(TERMINATED)
    if failure.exitcode in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    if failure.exitcode == -signal.SIGKILL:
        raise UserError(
            "a training process was killed by SIGKILL",
            fix="out of memory? lower --gpus, or --batch in a new run; the same command resumes from the last "
            "checkpoint",
        )
    output = "".join(path.read_text(errors="replace")[-LAST_LETTERS:] for path in sorted(logs.rglob("stderr.log")))
    what = "a training process died: the same command resumes from the last checkpoint"
    raise RuntimeError(f"{output}\n{what}") from error


def _train_rank(job: Job, data: Data, threads: int, reports: Reports) -> None:
    """Train as one of several processes."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    Console().activate()
    try:
        train(job, data)
    except (UserError, OSError) as error:
        reports.put((error, traceback.format_exc()))
        raise SystemExit(1) from None
    except Exception:
        time.sleep(FIRST_SECONDS)  # if another process died, its death caused this error
        raise


@contextmanager
def _quiet_launcher() -> Iterator[None]:
    """Silence the launcher's log, and restore the signal handlers that it replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
