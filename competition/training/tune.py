"""Search a recipe's settings with optuna: each trial is an ordinary run, judged by its out-of-fold error.

This process chooses the settings and judges the trials; each trial is trained in a process of its own, as many at a
time as `train` would train folds. Processes on other machines may work on the same study (see `shared_study`). With
several folds, the first is trained first, and the trial is pruned by its errors.
"""

import logging
import multiprocessing
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from competition.common.console import bar
from competition.common.errors import UserError
from competition.common.records import read_record
from competition.common.stop import TERMINATED
from competition.common.workers import end_processes, preload, start_process
from competition.common.workspace import Workspace
from competition.data.images import check_images
from competition.runs.candidates import best_epoch, candidates_of
from competition.runs.record import LogRow, Setting, read_log
from competition.runs.studies import (
    CONFIG,
    Param,
    Study,
    StudyConfig,
    Value,
    describe_params,
    read_study,
    study_folder,
    trial_run,
)
from competition.training.capacity import plan_jobs
from competition.training.device import choose_device, choose_precision
from competition.training.jobs import Advice, Data, Job
from competition.training.shared_study import SharedStudy, join_study, require_same
from competition.training.space import own_values, with_params
from competition.training.trial import Ended, Result, train_trial
from models.recipes import Recipe

log = logging.getLogger(__name__)

TOUCH_SECONDS: Final = 5.0  # between two looks at the study while nothing happens
SAME_FAILURES: Final = 3  # with which a study begins, and which then end it: the settings aren't to blame
ADVICE: Final = Advice(
    busy="wait for it or choose another --study",
    configuration="choose another --study, or delete its folder",
    less_memory="search smaller values of batch, or lower --parallel",
    not_finite="search lower values of lr",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to search, and how each trial is trained."""

    workspace: Workspace
    study: str  # name
    model: str
    recipe: Recipe  # its own values are the first trial
    folds: tuple[int, ...]
    space: tuple[Param, ...]
    precision: str = "auto"
    workers: int | None = None
    parallel: int | None = None

    @property
    def folder(self) -> Path:
        return study_folder(self.workspace.submissions, self.study)

    def jobs(self, number: int, params: Mapping[str, Value]) -> list[Job]:
        """Return the jobs of a trial, one per fold; raise ValueError for settings that don't fit each other."""
        recipe = with_params(self.recipe, params)
        return [
            Job(
                workspace=replace(self.workspace, submissions=self.folder),
                name=self.model,
                recipe=recipe,
                fold=fold,
                run=trial_run(number),
                precision=self.precision,
                workers=self.workers,
                advice=ADVICE,
            )
            for fold in self.folds
        ]


@dataclass(kw_only=True)
class Running:
    """A trial that a process trains."""

    trial: optuna.Trial
    pipe: Connection
    process: BaseProcess
    jobs: list[Job]
    place: int
    epoch: int  # of the first fold, completed


def tune(plan: Plan, data: Data, trials: int) -> Study:
    """Train trials until the study has as many, started by this process or others; return the study.

    It is created or resumed. Raise RunError if it has another configuration, UserError for an error that isn't due to a
    trial's settings, or if no trial is completed.
    """
    preload(["competition.training.trial"])  # while this process imports
    plan = replace(plan, precision=_precision(plan))
    config = _config(plan, data)
    require_same(plan.folder, config, plan.workspace)
    check_images(data.dataset.folder, data.dataset.labels.images + data.dataset.test.images)
    with join_study(plan.folder, config) as study:
        study.open(own_values(plan.recipe, plan.space), plan.recipe.epochs, plan.workspace)
        # for all trials, not those that are left: the number at a time divides the threads, on which bytes depend
        planned, at_once = plan_jobs(plan.jobs(trials, {})[:1] * trials, plan.parallel)
        plan = replace(plan, workers=planned[0].workers)
        found = sum(trial.state.is_finished() for trial in study.trials)
        if found < trials:
            log.info(f"study {plan.study}: {found} of {trials} trials finished, {at_once} at a time: {plan.folder}")
        else:
            log.info(f"study {plan.study}: {found} trials are finished already; more --trials continue it")
        _Tuning(plan, data, study, trials, at_once).run()
    result = read_study(plan.folder)
    if result.best is None:
        reason = next((trial.reason for trial in reversed(result.trials) if trial.reason), "")
        raise UserError(
            f"study {plan.study}: none of its {len(result.trials)} trials was completed" + f": {reason}" * bool(reason),
            fix="search other values in another --study",
        )
    return result


def _precision(plan: Plan) -> str:
    """Return the precision of a study's trials; for auto, the one that the process chose which created the study."""
    path = plan.folder / CONFIG
    if plan.precision == "auto" and path.exists():
        return read_record(StudyConfig, path, what="study").precision
    return choose_precision(plan.precision, choose_device())


def _config(plan: Plan, data: Data) -> StudyConfig:
    settings: dict[str, Setting] = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(plan.recipe).items()
    }
    return StudyConfig(
        model=plan.model,
        settings=settings,
        precision=plan.precision,
        space=list(plan.space),
        folds=list(plan.folds),
        seed=plan.workspace.seed,
        provenance=data.provenance,
    )


class _Tuning:
    """Starts trials and judges them, as messages of their processes arrive."""

    def __init__(self, plan: Plan, data: Data, study: SharedStudy, total: int, at_once: int) -> None:
        self.plan = plan
        self.data = data
        self.study = study
        self.total = total
        self.at_once = at_once
        self.running: list[Running] = []
        self.failures: list[str] | None = []  # until a trial of this process is trained or pruned

    def run(self) -> None:
        """Train until the study has all trials and none is running in any process."""
        shown = 0
        with bar("trials", self.total) as advance:
            try:
                while True:
                    while len(self.running) < self.at_once and (trial := self.study.next_trial(self.total)):
                        self._start(trial)
                    trials = self.study.trials
                    finished = sum(trial.state.is_finished() for trial in trials)
                    advance(finished - shown, self._progress(trials))
                    shown = finished
                    if not self.running and finished >= len(trials):
                        return
                    self._handle_messages()
                    self.study.touch()
            except BaseException:
                for one in self.running:
                    one.process.terminate()
                    one.pipe.close()  # it may be waiting for an answer
                end_processes([one.process for one in self.running])
                raise

    def _start(self, trial: optuna.Trial) -> None:
        """Start the process of a trial, which may have been interrupted; report the epochs that it has."""
        try:
            jobs = self.plan.jobs(trial.number, trial.params)
        except ValueError as error:
            self._end(trial, Result(ended=Ended.FAILED, reason=str(error)))
            return
        rows = read_log(jobs[0].folder)
        prune = [self._prunes(trial, row) for row in rows][-1:] == [True]
        if prune:
            self._end(trial, Result(ended=Ended.PRUNED))
            return
        if rows:
            log.info(f"trial {trial.number}: resuming after epoch {rows[-1].epoch}")
        ours, theirs = multiprocessing.Pipe()
        place = min(set(range(self.at_once)) - {one.place for one in self.running})
        process = start_process(train_trial, theirs, jobs, self.data, place, self.at_once)
        theirs.close()
        epoch = rows[-1].epoch if rows else 0
        self.running.append(Running(trial=trial, pipe=ours, process=process, jobs=jobs, place=place, epoch=epoch))

    def _prunes(self, trial: optuna.Trial, row: LogRow) -> bool:
        """Report an epoch of the first fold; return whether to end the trial."""
        assert row.valid_mpjpe is not None
        return self.study.report(trial, row.epoch, row.valid_mpjpe) and row.epoch < self.plan.recipe.epochs

    def _handle_messages(self) -> None:
        """Wait a while for messages, and answer them."""
        ready = wait([one.pipe for one in self.running], TOUCH_SECONDS) if self.running else []
        if not self.running:
            time.sleep(TOUCH_SECONDS)  # other processes train the last trials
        for one in [one for one in self.running if one.pipe in ready]:
            try:
                message = one.pipe.recv()
                if isinstance(message, LogRow):
                    one.epoch = message.epoch
                    one.pipe.send(self.study.owns(one.trial) and not self._prunes(one.trial, message))
                    continue
            except (EOFError, OSError):  # the process is dead
                message = None
            one.process.join()
            self.running.remove(one)
            self._end(one.trial, message or _death(one.process.exitcode), one)

    def _end(self, trial: optuna.Trial, result: Result, one: Running | None = None) -> None:
        """Record how a trial ended and print it; raise an error that other trials would have, too."""
        if result.error is not None:
            raise result.error
        if not self.study.owns(trial):
            log.info(f"trial {trial.number}: taken over by another process, as this one paused")
            return
        number, described = trial.number, f"; {describe_params(trial.params)}"
        if result.ended == Ended.FINISHED:
            best = best_epoch(candidates_of(self.plan.folder / trial_run(number)))
            assert best is not None
            assert best.valid_mpjpe is not None
            earlier = [other.value for other in self.study.trials if other.state == TrialState.COMPLETE]
            lowest = best.valid_mpjpe < min(earlier, default=float("inf"))
            self.study.finish(trial, best.valid_mpjpe)
            mark = ", the best so far" if lowest else ""
            log.info(f"trial {number}: {best.valid_mpjpe:.2f} mm at epoch {best.epoch}{mark}{described}")
        elif result.ended == Ended.PRUNED:
            self.study.prune(trial)
            log.info(f"trial {number}: pruned after epoch {one.epoch if one else 0}{described}")
        elif result.ended == Ended.DIVERGED:
            self.study.prune(trial, f"diverged: {result.reason}")
            log.info(f"trial {number}: diverged: {result.reason}{described}")
        else:
            self.study.fail(trial, result.reason)
            log.info(f"trial {number}: failed: {result.reason}{described}")
        self._check_failures(result)

    def _check_failures(self, result: Result) -> None:
        """Raise UserError when all trials have failed with the same error."""
        if result.ended != Ended.FAILED:
            self.failures = None
        elif self.failures is not None:
            self.failures.append(result.reason)
            if len(self.failures) == SAME_FAILURES and len(set(self.failures)) == 1:
                raise UserError(f"the first {SAME_FAILURES} trials failed with the same error: {result.reason}")

    def _progress(self, trials: list[FrozenTrial]) -> str:
        """Return the text beside the bar: the lowest error, and the trials in training."""
        complete = [trial.value for trial in trials if trial.state == TrialState.COMPLETE]
        parts = [f"best {min(complete):.1f} mm"] if complete else []
        epochs = self.plan.recipe.epochs
        parts += [f"trial {one.trial.number} epoch {min(one.epoch + 1, epochs)}/{epochs}" for one in self.running]
        elsewhere = sum(trial.state == TrialState.RUNNING for trial in trials) - len(self.running)
        return ", ".join(parts + [f"{elsewhere} in other processes"] * bool(elsewhere))


def _death(exit_code: int | None) -> Result:
    """Return the result of a process that sent none; raise SystemExit if a signal ended it."""
    if exit_code in (TERMINATED, -signal.SIGTERM):
        raise SystemExit(TERMINATED)
    killed = exit_code == -signal.SIGKILL
    reason = "its process was killed by SIGKILL: out of memory?" if killed else f"its process ended with {exit_code}"
    return Result(ended=Ended.FAILED, reason=reason)
