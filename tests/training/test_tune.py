"""The end of a study whose trials all fail, and the results of processes that died."""

import signal
from typing import Any

import pytest

from competition.common.errors import UserError
from competition.training.trial import Ended, Result
from competition.training.tune import SAME_FAILURES, _death, _Tuning

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


def test_a_killed_process_fails_and_a_terminated_one_ends_the_command():
    assert _death(-signal.SIGKILL).ended == Ended.FAILED
    assert "killed by SIGKILL: out of memory?" in _death(-signal.SIGKILL).reason
    assert "ended with 1" in _death(1).reason
    for code in (-signal.SIGTERM, 143):
        with pytest.raises(SystemExit, match="143"):
            _death(code)
