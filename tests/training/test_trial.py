"""The training of a trial: it ends cleanly between epochs, and errors of its settings are recorded."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from competition.cli.options import TrainOptions
from competition.cli.parser import parse
from competition.common.console import Console
from competition.common.errors import DataError, DivergedError, RunError, UserError
from competition.common.files import locked
from competition.common.workspace import Workspace
from competition.runs.record import LogRow, read_log
from competition.training import trial as training
from competition.training.jobs import Data, Job, open_data
from competition.training.trial import Ended, Result, train_trial
from tests.helpers import TINY, contents


class FakePipe:
    """Answers each row with the next of its answers, and keeps all messages."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.messages: list[LogRow | Result] = []

    def send(self, message: LogRow | Result) -> None:
        self.messages.append(message)

    def recv(self) -> bool:
        return self.answers.pop(0)


@pytest.fixture
def opened(data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Job], Data]:
    """Return jobs of both folds for three epochs, and the data."""
    monkeypatch.setattr(Console, "activate", lambda self: None)
    options = parse(["train", *TINY, "--epochs", "3"]).options
    assert isinstance(options, TrainOptions)
    workspace = Workspace(data=data, folds=finished / "folds", submissions=tmp_path / "runs")
    job = Job(workspace=workspace, name="3dhg-small", recipe=options.recipe, fold=0, run="trial-000", precision="fp32")
    return [job, replace(job, fold=1)], open_data(workspace)


def _train(opened: tuple[list[Job], Data], *answers: bool) -> FakePipe:
    pipe = FakePipe(*answers)
    train_trial(pipe, *opened, place=0, at_once=1)  # type: ignore[arg-type]
    return pipe


def test_a_trial_is_pruned_on_the_first_fold_and_resumes_with_the_same_bytes(opened: tuple[list[Job], Data]):
    jobs, data = opened
    first = _train(opened, True, False)
    assert [row.epoch for row in first.messages[:-1]] == [1, 2]
    assert first.messages[-1] == Result(ended=Ended.PRUNED)
    assert [row.epoch for row in read_log(jobs[0].folder)] == [1, 2]
    assert not (jobs[0].folder / "done.json").exists()
    assert not jobs[1].folder.exists()
    second = _train(opened, True)
    assert [row.epoch for row in second.messages[:-1]] == [3]
    assert second.messages[-1] == Result(ended=Ended.FINISHED)
    assert len(read_log(jobs[1].folder)) == 3
    whole = [replace(job, run="whole") for job in jobs]
    _train((whole, data), True, True, True)
    assert contents(whole[0].folder) == contents(jobs[0].folder)


def test_a_trial_waits_until_the_killed_process_that_trained_it_has_ended(
    opened: tuple[list[Job], Data], monkeypatch: pytest.MonkeyPatch
):
    (job, _), data = opened
    ended = threading.Event()

    def start(job: Job, data: Data, after_epoch: Callable[[LogRow], None] | None) -> None:
        assert ended.is_set()

    def end() -> None:
        ended.set()
        handle.close()

    monkeypatch.setattr(training, "train", start)
    handle = ExitStack()
    handle.enter_context(locked(job.folder))
    threading.Timer(0.2, end).start()
    assert _train(([job], data)).messages == [Result(ended=Ended.FINISHED)]


ERRORS: dict[str, tuple[Exception, Ended, bool]] = {
    "diverged": (DivergedError("the loss is no longer finite"), Ended.DIVERGED, False),
    "out of memory": (RunError("out of memory", fix="lower --batch"), Ended.FAILED, False),
    "a setting that timm refuses": (UserError("no such optimizer"), Ended.FAILED, False),
    "unexpected": (KeyError("step"), Ended.FAILED, False),
    "data": (DataError("image 3 is damaged"), Ended.FAILED, True),
    "disk": (OSError(28, "No space left on device"), Ended.FAILED, True),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_the_settings_and_errors_of_all_trials_have_different_results(
    name: str, opened: tuple[list[Job], Data], monkeypatch: pytest.MonkeyPatch
):
    error, ended, is_of_all = ERRORS[name]

    def fail(job: Job, data: Data, after_epoch: Callable[[LogRow], None] | None) -> None:
        raise error

    monkeypatch.setattr(training, "train", fail)
    (result,) = _train(opened).messages
    assert isinstance(result, Result)
    assert result.ended == ended
    assert result.error is (error if is_of_all else None)
    assert str(error.args[0])[:10] in result.reason
