"""A study that several processes and machines work on through files that they share.

Every step that must not happen twice (creating the study, starting a trial, taking one over) is done under a lock that
optuna offers for this purpose and that works on network drives. Each process has a folder in `processes/`, which it
locks and touches regularly. A trial that is running belongs to the process that its attribute `owner` names; when that
process is dead, another one takes the trial over, and its training resumes from its checkpoint. A process of this
machine is dead when its folder isn't locked, as the system releases locks even after a kill; a process of another
machine, when its folder hasn't been touched for STALE_SECONDS by the clock of the observer, as clocks may differ.
"""

import fcntl
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from competition.common.errors import RunError
from competition.common.files import is_locked
from competition.common.records import read_record, write_record
from competition.common.workspace import Workspace
from competition.runs.studies import (
    CONFIG,
    JOURNAL,
    OWN_VALUES,
    REASON,
    SAME_AS,
    StudyConfig,
    Value,
    open_storage,
    quiet_optuna,
    study_name,
)
from competition.training.sampler import FreshSampler, suggest

STALE_SECONDS: Final = 120.0
PROCESSES: Final = "processes"
LOCK_SECONDS: Final = 60  # after which the lock of a process that was killed is released; it is held for milliseconds
OWNER: Final = "owner"
BOOT: Final = Path("/proc/sys/kernel/random/boot_id")  # the same in all containers of a machine
UNPRUNED_TRIALS: Final = 4  # completed before any is pruned


def require_same(folder: Path, config: StudyConfig, workspace: Workspace) -> None:
    """Raise RunError if a study exists with another configuration."""
    path = folder / CONFIG
    old = read_record(StudyConfig, path, what="study") if path.exists() else config
    if differences := old.differences(config, workspace.data, workspace.folds):
        raise RunError(
            f"study {folder.name} has another configuration ({', '.join(differences)})",
            fix="choose another --study, pass the old values as flags, or delete its folder",
        )


class SharedStudy:
    """A study, and this process as one of those that work on it."""

    def __init__(self, folder: Path, config: StudyConfig, owner: str) -> None:
        self.folder = folder
        self.config = config
        self.owner = owner
        self._study: optuna.Study = None
        self._seen: dict[str, tuple[float, float]] = {}  # by process: its last touch, and when that was noticed

    def open(self, own: Mapping[str, Value], epochs: int, workspace: Workspace) -> None:
        """Open the study or create it, with the recipe's own values as its first trial.

        Raise RunError if it exists with another configuration.
        """
        # The median of all trials at the same epoch decides, not a share of them at fixed epochs (successive halving,
        # Hyperband): with few epochs and trials, that would end most after the first epoch, when averaged weights and
        # schedules haven't taken effect. Trials started in any order can be compared, and bad ones last two epochs.
        pruner = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=max(1, epochs // 3))
        with self._locked(), quiet_optuna():
            require_same(self.folder, self.config, workspace)
            if not (self.folder / CONFIG).exists():
                write_record(self.folder / CONFIG, self.config)
            self._repair()
            storage = open_storage(self.folder)
            self._study = optuna.create_study(
                study_name=study_name(storage, self.folder),
                storage=storage,
                sampler=FreshSampler(self.config.space, self.config.seed),
                pruner=pruner,
                load_if_exists=True,
            )
            if not self.trials:
                self._study.enqueue_trial(dict(own), user_attrs={OWN_VALUES: True})

    def _repair(self) -> None:
        """Cut off the last line of the journal if a process died while writing it: a line after it would be lost."""
        path = (self.folder / JOURNAL).resolve()
        with _held(optuna.storages.journal.JournalFileSymlinkLock(str(path))):  # the lock of its writers
            content = path.read_bytes() if path.exists() else b""
            if content and not content.endswith(b"\n"):
                os.truncate(path, content.rfind(b"\n") + 1)

    @property
    def trials(self) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self._study.get_trials(deepcopy=False)
        return found

    def next_trial(self, total: int) -> optuna.Trial | None:
        """Start a trial, or take over one whose process died; None if all `total` trials are started.

        Its parameters are set. A trial with the settings of a finished one gets its result at once, and the next one is
        returned.
        """
        while self._has_next(total):
            with self._locked(), quiet_optuna():
                if not self._has_next(total):  # another process was faster
                    return None
                abandoned = next(filter(self._is_abandoned, self.trials), None)
                trial = self._study.ask() if abandoned is None else optuna.Trial(self._study, abandoned._trial_id)
                trial.set_user_attr(OWNER, self.owner)
                for param in self.config.space:
                    if param.is_used(trial.params):
                        suggest(trial, param)
            if not self._repeats_another(trial):
                return trial
        return None

    def _has_next(self, total: int) -> bool:
        trials = self.trials
        waiting = any(trial.state == TrialState.WAITING for trial in trials)
        return waiting or len(trials) < total or any(map(self._is_abandoned, trials))

    def _repeats_another(self, trial: optuna.Trial) -> bool:
        """Give a trial the result of a finished one with the same settings, if there is one."""
        finished = (TrialState.COMPLETE, TrialState.PRUNED)
        same = [other for other in self.trials if other.state in finished and other.params == trial.params]
        if not same:
            return False
        trial.set_user_attr(SAME_AS, same[0].number)
        with quiet_optuna():
            self._study.tell(trial, same[0].value if same[0].state == TrialState.COMPLETE else None, same[0].state)
        return True

    def report(self, trial: optuna.Trial, epoch: int, mpjpe: float) -> bool:
        """Record the error after an epoch of the first fold; return whether to prune the trial."""
        with quiet_optuna():
            if epoch not in self._study.get_trials(deepcopy=False)[trial.number].intermediate_values:
                trial.report(mpjpe, epoch)
            return bool(trial.should_prune())

    def finish(self, trial: optuna.Trial, mpjpe: float) -> None:
        """Record the error of a completed trial."""
        self._tell(trial, TrialState.COMPLETE, mpjpe)

    def prune(self, trial: optuna.Trial, reason: str = "") -> None:
        """Record that a trial was stopped: by the pruner, or as it diverged."""
        self._tell(trial, TrialState.PRUNED, None, reason)

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        self._tell(trial, TrialState.FAIL, None, reason)

    def _tell(self, trial: optuna.Trial, state: TrialState, mpjpe: float | None, reason: str = "") -> None:
        if not self.owns(trial):
            return
        with quiet_optuna():
            if reason:
                trial.set_user_attr(REASON, reason)
            self._study.tell(trial, mpjpe, state)

    def owns(self, trial: optuna.Trial) -> bool:
        """Return whether a trial is still this process's: after a long pause, another one may have taken it over."""
        now = self.trials[trial.number]
        return now.user_attrs.get(OWNER) == self.owner and not now.state.is_finished()

    def touch(self) -> None:
        """Show other machines that this process is alive."""
        with suppress(FileNotFoundError):
            os.utime(self.folder / PROCESSES / self.owner)

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        return bool(trial.state == TrialState.RUNNING and not self._is_alive(trial.user_attrs.get(OWNER, "")))

    def _is_alive(self, owner: str) -> bool:
        """Return whether a process is alive, as far as this one knows."""
        if owner == self.owner:
            return True
        folder = self.folder / PROCESSES / owner
        if not owner:
            return False
        try:
            if owner.startswith(f"{_machine()}.") and (locked := is_locked(folder)) is not None:
                return locked
            touched, now = folder.stat().st_mtime, time.monotonic()
        except FileNotFoundError:  # the process has ended and removed it
            return False
        if owner not in self._seen or self._seen[owner][0] != touched:
            self._seen[owner] = touched, now
        return now - self._seen[owner][1] < STALE_SECONDS

    def _locked(self) -> AbstractContextManager[None]:
        """Hold the lock of the study's changes."""
        path = str((self.folder / "study").resolve())
        return _held(optuna.storages.journal.JournalFileOpenLock(path, grace_period=LOCK_SECONDS))


@contextmanager
def _held(lock: Any) -> Iterator[None]:
    """Hold one of optuna's locks."""
    with quiet_optuna():
        lock.acquire()
    try:
        yield
    finally:
        with suppress(RuntimeError):  # released by another process, as this one paused for long
            lock.release()


@contextmanager
def join_study(folder: Path, config: StudyConfig) -> Iterator[SharedStudy]:
    """Take part in a study, which is created if there is none; raise RunError if there is one that differs."""
    owner = f"{_machine()}.{os.getpid()}-{secrets.token_hex(4)}"
    processes = folder / PROCESSES / owner
    processes.mkdir(parents=True)
    handle = os.open(processes, os.O_RDONLY)
    try:
        with suppress(OSError):  # without locks, the time of the last touch is all that others see
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield SharedStudy(folder, config, owner)
    finally:
        os.close(handle)
        with suppress(OSError):
            processes.rmdir()


def _machine() -> str:
    """Return a name of this machine, which all its containers share, until the next boot."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return socket.gethostname()
