"""Selection of candidates by run and epoch."""

from dataclasses import replace
from pathlib import Path

import pytest

from competition.common.errors import Command, RunError, UserError
from competition.runs.candidates import Candidate, refitted, select, weighted
from competition.runs.missing import MissingFolds
from competition.runs.provenance import Provenance


def candidate(run: str, epoch: int, valid_mpjpe: float | None) -> Candidate:
    return Candidate(
        run=run,
        epoch=epoch,
        valid_files=(),
        test_files=(),
        verified=True,
        provenance=Provenance(folds_sha256="f", images_sha256="i"),
        valid_mpjpe=valid_mpjpe,
    )


FOUND = [
    candidate("b", 2, 90),
    candidate("b", 1, 95),
    candidate("a", 1, 80),
    candidate("a", 2, 80),
    candidate("a", 10, 99),
]


@pytest.mark.parametrize(
    ("runs", "epochs", "expected"),
    [
        (None, "best", ["a:1", "b:2"]),
        (None, "last", ["a:10", "b:2"]),
        (None, "all", ["a:1", "a:2", "a:10", "b:1", "b:2"]),
        (None, "2, 10", ["a:2", "a:10", "b:2"]),
        (["b"], "all", ["b:1", "b:2"]),
        (["b", "a", "b"], "last", ["a:10", "b:2"]),
    ],
)
def test_select_filters_by_run_and_epoch(runs: list[str] | None, epochs: str, expected: list[str]):
    assert [c.name for c in select(FOUND, runs, epochs)] == expected


def test_the_best_epoch_of_external_predictions_is_computed():
    found = [candidate("x", 1, None), candidate("x", 2, None), candidate("y", 1, None)]
    chosen = select(found, score=lambda c: -float(c.epoch))
    assert [c.name for c in chosen] == ["x:2", "y:1"]
    with pytest.raises(RunError, match="run x: its logs lack the score"):
        select(found)


@pytest.mark.parametrize(
    ("runs", "epochs", "message"),
    [
        (["bb"], "best", "unknown run 'bb': did you mean 'b'"),
        (None, "first", "epochs 'first': expected best, last, all, or numbers such as 3,4"),
        (None, "3,", "epochs '3,': expected"),
        (None, "10", "run b has no epoch 10: .* are 1, 2"),
    ],
)
def test_unknown_runs_and_epochs_are_rejected(runs: list[str] | None, epochs: str, message: str):
    with pytest.raises(UserError, match=message):
        select(FOUND, runs, epochs)


def test_selecting_from_no_candidates_raises_an_error():
    with pytest.raises(RunError, match="nothing to blend"):
        select([])


def test_the_model_to_train_is_left_to_the_user_where_it_is_unknown(tmp_path: Path):
    missing = MissingFolds(run="a", recipe=None, names=("fold1",), wanted=2)
    assert missing.command == Command("train", {"model": None, "run": "a"})
    external = replace(candidate("a", 1, None), test_files=(tmp_path / "a/fold0/test_epoch01.csv",))
    with pytest.raises(RunError, match="on everything") as caught:
        refitted(external)
    assert caught.value.command == Command("train", {"model": None, "run": "a", "fold": "full"})


def test_the_error_of_a_single_fold_is_that_of_its_log():
    assert weighted([0.1], [3]) == 0.1 != 0.1 * 3 / 3
