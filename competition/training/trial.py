"""Train the folds of a trial in a process of its own, which the study's process starts and talks to over a pipe."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from multiprocessing.connection import Connection

import torch

import models
from competition.common.console import Console
from competition.common.errors import DataError, DivergedError, FoldsError, SubmissionError, UserError
from competition.common.files import locked
from competition.runs.record import LogRow
from competition.training.jobs import Data, Job
from competition.training.loop import train


class Ended(Enum):
    """How the training of a trial ended."""

    FINISHED = "finished"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Result:
    """The last message of a trial's process; `error` is one that all trials would have."""

    ended: Ended
    reason: str = ""
    error: UserError | OSError | None = None


class _Pruned(Exception):  # noqa: N818  # not an error
    """The study's process ended the trial."""


def train_trial(pipe: Connection, jobs: Sequence[Job], data: Data, place: int, at_once: int) -> None:
    """Train the folds of a trial; send each row of the first one's log, and end when the answer is no.

    `place` is this process's among the `at_once` that train at the same time and share threads or GPUs.
    """
    Console(quiet=True).activate()
    if at_once > 1 and "OMP_NUM_THREADS" not in os.environ:
        if torch.cuda.is_available() or not models.is_small(jobs[0].name):
            torch.set_num_threads(max(1, torch.get_num_threads() // at_once))
        if torch.cuda.is_available():
            torch.cuda.set_device(place % torch.cuda.device_count())

    def ask(row: LogRow) -> None:
        pipe.send(row)
        if not pipe.recv():
            raise _Pruned

    pipe.send(_train(jobs, data, ask))


def _train(jobs: Sequence[Job], data: Data, ask: Callable[[LogRow], None]) -> Result:
    try:
        for number, job in enumerate(jobs):
            with locked(job.folder):  # until a process that was killed has ended
                pass
            train(job, data, ask if number == 0 else None)
    except _Pruned:
        return Result(ended=Ended.PRUNED)
    except (DataError, FoldsError, OSError) as error:
        return Result(ended=Ended.FAILED, reason=str(error), error=error)
    except (DivergedError, SubmissionError) as error:  # the second: predicted poses that aren't finite
        return Result(ended=Ended.DIVERGED, reason=error.what)
    except UserError as error:
        return Result(ended=Ended.FAILED, reason=str(error))
    except Exception as error:
        return Result(ended=Ended.FAILED, reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return Result(ended=Ended.FINISHED)
