"""Several processes work on one study: none repeats a trial, and trials of dead processes are taken over."""

import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from competition.common.errors import RunError
from competition.common.files import is_locked
from competition.runs import studies
from competition.runs.studies import Param, read_study
from competition.training import shared_study
from competition.training.shared_study import SharedStudy
from tests.studies import CONFIG, EPOCHS, OWN, SPACE, joined, make_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs/.tune/mine"


def _start(study: SharedStudy, total: int = 5) -> Any:
    trial = study.next_trial(total)
    assert trial is not None
    return trial


def test_the_recipes_own_values_are_the_first_trial(folder: Path):
    with joined(folder) as study:
        assert _start(study).params == OWN
        second = _start(study)
        assert second.params != OWN
        assert ("weight_decay" in second.params) == second.params["use_weight_decay"]
    assert read_study(folder).trials[0].own_values


def test_processes_start_different_trials_up_to_the_total(folder: Path):
    with joined(folder) as one, joined(folder) as other:
        started = [_start(study) for study in (one, other, one, other, other)]
        assert [trial.number for trial in started] == [0, 1, 2, 3, 4]
        assert len({str(trial.params) for trial in started}) == 5
        assert one.next_trial(5) is None
        assert other.next_trial(5) is None
        assert _start(one, 6).number == 5


def _start_some(folder: Path, total: int, results: Any) -> None:
    with joined(folder) as study:
        while (trial := study.next_trial(total)) is not None:
            study.finish(trial, 100.0 + trial.number)
            results.put((trial.number, os.getpid()))


def test_processes_at_the_same_time_never_start_the_same_trial(folder: Path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_start_some, args=(folder, 12, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in range(12)]
    for process in processes:
        process.join()
    assert sorted(number for number, _ in found) == list(range(12))
    assert read_study(folder).count("complete") == 12
    assert results.empty()


def test_the_last_trial_is_not_started_again_after_waiting_for_the_lock(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with joined(folder) as one, joined(folder) as other:
        lock = one._locked

        def wait() -> Any:
            _start(other, 1)
            return lock()

        monkeypatch.setattr(one, "_locked", wait)
        assert one.next_trial(1) is None
        assert len(one.trials) == 1


def _start_and_die(folder: Path) -> None:
    with joined(folder) as study:
        _start(study)
        os._exit(9)


def test_the_trial_of_a_dead_process_is_taken_over_and_no_other(folder: Path):
    with joined(folder) as study:
        mine = _start(study)
        process = multiprocessing.get_context("spawn").Process(target=_start_and_die, args=(folder,))
        process.start()
        process.join()
        assert process.exitcode == 9
        assert [trial.state.name for trial in study.trials] == ["RUNNING", "RUNNING"]
        taken = _start(study)
        assert taken.number == 1
        assert taken.params == study.trials[1].params
        assert study.owns(mine)
        assert study.owns(taken)
        assert _start(study).number == 2


def test_the_trial_of_another_machine_is_taken_over_when_its_process_stops_touching(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    now = 1000.0
    monkeypatch.setattr(shared_study.time, "monotonic", lambda: now)
    with monkeypatch.context() as patch:
        patch.setattr(shared_study, "_machine", lambda: "elsewhere")
        far = joined(folder)
        remote = far.__enter__()
        abandoned = _start(remote)
    with joined(folder) as study:
        for _ in range(4):  # alive: it touches its folder
            assert study.next_trial(1) is None
            now += 0.9 * shared_study.STALE_SECONDS
            os.utime(folder / "processes" / remote.owner, (now, now))
        assert study.next_trial(1) is None
        now += 1.1 * shared_study.STALE_SECONDS
        taken = _start(study, 1)
        assert taken.number == abandoned.number
        assert not remote.owns(abandoned)
        remote.finish(abandoned, 1.0)  # too late: ignored
        study.finish(taken, 120.0)
    assert read_study(folder).trials[0].mpjpe == 120.0
    far.__exit__(None, None, None)


def test_without_locks_processes_of_the_same_machine_are_told_apart_by_their_touches(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shared_study, "is_locked", lambda _: None)
    with joined(folder) as one, joined(folder) as other:
        _start(one)
        assert other.next_trial(1) is None
        monkeypatch.setattr(shared_study, "STALE_SECONDS", -1.0)
        assert _start(other, 1).number == 0


@pytest.mark.parametrize("locks", [True, False])
def test_a_process_may_end_while_another_looks_at_it(folder: Path, monkeypatch: pytest.MonkeyPatch, locks: bool):
    with joined(folder) as one, joined(folder) as other:
        _start(one)

        def end(process: Path) -> bool | None:
            process.rmdir()
            return is_locked(process) if locks else None

        monkeypatch.setattr(shared_study, "is_locked", end)
        assert _start(other, 1).number == 0


def test_an_interrupted_trial_of_a_process_that_ended_is_resumed(folder: Path):
    with joined(folder) as study:
        _start(study)
        study.report(study.next_trial(2) or _start(study), 1, 200.0)
    assert list((folder / "processes").iterdir()) == []
    with joined(folder) as study:
        assert [_start(study).number, _start(study).number] == [0, 1]
        assert study.trials[1].intermediate_values == {1: 200.0}


def test_draws_depend_only_on_the_seed_and_earlier_trials(folder: Path, tmp_path: Path):
    errors_mm = [150.0 - number for number in range(12)]
    other, interrupted = tmp_path / "other/mine", tmp_path / "interrupted/mine"
    make_study(folder, errors_mm)
    make_study(other, errors_mm)
    make_study(interrupted, errors_mm[:4])
    with joined(interrupted) as study:
        for mpjpe in errors_mm[4:]:
            trial = _start(study, 12)
            for epoch in (1, 2):
                study.report(trial, epoch, mpjpe * (3 - epoch))
            study.finish(trial, mpjpe)
    assert read_study(folder).trials == read_study(other).trials == read_study(interrupted).trials
    with joined(tmp_path / "third/mine", seed=1) as study:
        _start(study)
        assert _start(study).params != read_study(folder).trials[1].params


def test_no_settings_are_trained_twice(folder: Path):
    space = [Param(name="schedule", values=("constant", "cosine", "halve"))]
    with joined(folder, space=space) as study:
        trained = []
        while (trial := study.next_trial(8)) is not None:
            trained.append(trial.params["schedule"])
            study.prune(trial) if trial.number == 1 else study.finish(trial, 100.0 + trial.number)
    assert sorted(trained) == ["constant", "cosine", "halve"]
    found = read_study(folder)
    assert len(found.trials) == 8
    for trial in found.trials[3:]:
        assert trial.same_as is not None
        first = found.trials[trial.same_as]
        assert (trial.params, trial.mpjpe, trial.state) == (first.params, first.mpjpe, first.state)


def test_a_trial_is_pruned_only_after_some_are_completed_and_if_it_is_worse_than_their_median(folder: Path):
    with joined(folder) as study:
        for number in range(shared_study.UNPRUNED_TRIALS):
            trial = _start(study, 9)
            assert not any(study.report(trial, epoch, 100.0 + number) for epoch in range(1, EPOCHS + 1))
            study.finish(trial, 100.0 + number)
        bad, good = _start(study, 9), _start(study, 9)
        assert not study.report(bad, 1, 300.0)
        assert study.report(bad, 2, 250.0)
        assert not study.report(good, 2, 90.0)


DIFFERENT = {
    "model": ({"model": "2dhg-small"}, "model 3dhg-small -> 2dhg-small"),
    "folds": ({"folds": [0, 1]}, "folds [0] -> [0, 1]"),
    "seed": ({"seed": 3}, "seed 0 -> 3"),
    "setting": ({"settings": {"lr": 1e-3}}, "lr 0.004 -> 0.001"),
    "search": ({"space": list(SPACE[:1])}, "search lr=1e-05:0.01,schedule=constant/cosine"),
    "data": (
        {"provenance": replace(CONFIG.provenance, images_sha256="c")},
        "other images than those in data/synthetic",
    ),
    "other folds": ({"provenance": replace(CONFIG.provenance, folds_sha256="c")}, "other folds than those in folds"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_study_with_another_configuration_is_refused(folder: Path, name: str):
    changes, message = DIFFERENT[name]
    with joined(folder):
        pass
    before = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(RunError) as caught, joined(folder, **changes):
        pass
    assert message in str(caught.value)
    assert "choose another --study" in str(caught.value)
    assert sorted(path.name for path in folder.rglob("*")) == before


@pytest.mark.parametrize("content", ["{not json}\n{}\n", '{"op_code": 99}\n', "[]\n[]\n"])
def test_a_damaged_journal_is_named(folder: Path, content: str):
    make_study(folder, [120.0])
    (folder / studies.JOURNAL).write_text(content)
    with pytest.raises(RunError, match=r"study\.journal is not a readable journal"):
        read_study(folder)


def test_a_journal_whose_last_line_is_torn_is_repaired(folder: Path):
    make_study(folder, [120.0, 110.0])
    journal = folder / studies.JOURNAL
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    with joined(folder) as study:
        study.finish(_start(study, 3), 100.0)
    assert [trial.mpjpe for trial in read_study(folder).trials] == [120.0, 110.0, 100.0]


def test_a_copied_study_continues(folder: Path, tmp_path: Path):
    make_study(folder, [120.0, None])
    copy = tmp_path / "copy/renamed"
    shutil.copytree(folder, copy)
    with joined(copy) as study:
        assert _start(study, 3).number == 2
    assert [trial.reason for trial in read_study(copy).trials[:2]] == ["", "out of memory"]
