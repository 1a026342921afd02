"""The end of a study whose trials all fail, and the results of processes that died."""

import multiprocessing
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any
from unittest.mock import MagicMock

import pytest

from competition.common.errors import UserError
from competition.common.stop import Stop
from competition.common.workers import start_process
from competition.runs.record import LogRow
from competition.training.trial import Ended, Result
from competition.training.tune import SAME_FAILURES, Running, _death, _Tuning

UNUSED: Any = None


def _check(*results: tuple[Ended, str]) -> None:
    tuning = _Tuning(UNUSED, UNUSED, UNUSED, 9, 1)
    for ended, reason in results:
        tuning._check_failures(Result(ended=ended, reason=reason))


def test_a_study_ends_when_its_first_trials_fail_with_the_same_error():
    broken = (Ended.FAILED, "model mean: no attribute 'pose'")
    _check(*[broken] * (SAME_FAILURES - 1))
    with pytest.raises(UserError, match=r"trials failed with the same error: model mean: no attribute 'pose'$"):
        _check(*[broken] * SAME_FAILURES)


@pytest.mark.parametrize("other", [(Ended.FAILED, "out of memory"), (Ended.DIVERGED, "a"), (Ended.PRUNED, "")])
def test_other_failures_do_not_end_a_study(other: tuple[Ended, str]):
    _check((Ended.FAILED, "a"), other, *[(Ended.FAILED, "a")] * SAME_FAILURES)


def _ask(pipe: Connection) -> None:
    with Stop():
        pipe.send("row")
        pipe.recv()


def test_a_process_that_waits_for_an_answer_ends_with_the_study():
    ours, theirs = multiprocessing.Pipe()
    process = start_process(_ask, theirs)
    theirs.close()
    assert ours.recv() == "row"
    study = MagicMock(next_trial=MagicMock(side_effect=KeyboardInterrupt))
    tuning = _Tuning(UNUSED, UNUSED, study, 9, 2)
    tuning.running = [Running(trial=UNUSED, pipe=ours, process=process, jobs=[], place=0, epoch=0)]
    with pytest.raises(KeyboardInterrupt):
        tuning.run()
    assert process.exitcode == -signal.SIGTERM  # not killed after the time to save a checkpoint


def test_a_trial_is_not_pruned_after_its_last_epoch():
    plan, study = MagicMock(**{"recipe.epochs": 3}), MagicMock(**{"report.return_value": True})
    tuning = _Tuning(plan, UNUSED, study, 9, 1)
    row = LogRow(epoch=1, lr=0.1, train_loss=1.0, valid_mpjpe=100.0)
    assert [tuning._prunes(UNUSED, replace(row, epoch=epoch)) for epoch in (1, 2, 3)] == [True, True, False]
    assert study.report.call_count == 3


def test_a_killed_process_fails_and_a_terminated_one_ends_the_command():
    assert _death(-signal.SIGKILL).ended == Ended.FAILED
    assert "killed by SIGKILL: out of memory?" in _death(-signal.SIGKILL).reason
    assert "ended with 1" in _death(1).reason
    for code in (-signal.SIGTERM, 143):
        with pytest.raises(SystemExit, match="143"):
            _death(code)
