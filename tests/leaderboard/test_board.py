"""Ranks, ties, and warnings if the public score and the out-of-fold error disagree."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console as RichConsole

from competition.cli.tables import board_json, board_table
from competition.common.console import Console
from competition.common.errors import UserError
from competition.common.files import sha256_file
from competition.common.pose_csv import write_poses
from competition.common.workspace import Workspace
from competition.leaderboard.board import COLUMNS, BoardRow, board, notes, sort_rows, warnings, with_ranks
from competition.leaderboard.score import Scores
from competition.leaderboard.scores import describe_ranks, rank, record_score
from competition.report.links import find_links
from competition.runs.folders import write_valid
from competition.runs.ledger import LEDGER, sent_scores
from competition.runs.record import LogRow, append_log
from tests.helpers import N_TEST


def row(name: str, out_of_fold: float | None, public: float | None = None, **other) -> BoardRow:
    known = {"kind": "run", "folds": 2, "of_folds": 2, "epochs": 1, "best_epoch": 1}
    return BoardRow(name=name, out_of_fold=out_of_fold, public=public, **(known | other))


def scores(whole: float, public: float, private: float) -> Scores:
    return Scores(all=whole, public=public, private=private, joint={}, axis={}, action={})


def sent(path: Path, *rows: tuple[str, str, str, str]) -> None:
    """Write a ledger: competition, sha256, status and public score of each submission."""
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, LEDGER, restval="x", lineterminator="\n")
        writer.writeheader()
        writer.writerows(dict(zip(("competition", "sha256", "status", "public"), cells, strict=True)) for cells in rows)


def test_equal_scores_share_a_rank_and_the_next_is_skipped():
    assert rank([90.0, 80.0, None, 80.00001, 100.0]) == [3, 1, None, 1, 4]
    assert rank([]) == []


def test_incomplete_runs_and_in_sample_scores_have_no_out_of_fold_rank():
    rows = [row("a", 90.0), row("half", 50.0, folds=1), row("b", 80.0), row("blend", 60.0, folds=None, in_sample=True)]
    assert [one.out_of_fold_rank for one in with_ranks(rows)] == [2, None, 1, None]
    assert [one.out_of_fold_rank for one in with_ranks([row("a", 9.0, of_folds=None)])] == [1]


def test_rows_are_sorted_by_any_column_with_unknown_values_last():
    rows = [row("b", None), row("c", 80.0), row("a", 90.0)]
    assert [one.name for one in sort_rows(rows, "name")] == ["a", "b", "c"]
    assert [one.name for one in sort_rows(rows, "out_of_fold")] == ["c", "a", "b"]
    with pytest.raises(UserError, match="unknown column 'privat': did you mean 'private'"):
        sort_rows(rows, "privat")


def test_the_keys_of_the_json_are_those_that_scripts_know():
    (found,) = board_json(with_ranks([row("a", 90.0)]), {})
    assert list(found) == [*COLUMNS, "link"] == [
        "name", "kind", "folds", "of_folds", "epochs", "best_epoch", "out_of_fold", "in_sample", "why", "all",
        "public", "private", "out_of_fold_rank", "public_rank", "private_rank", "link",
    ]  # fmt: skip


def test_disagreement_of_public_and_out_of_fold_scores_is_warned_about():
    rows = with_ranks([row("a", 90.0, 70.0), row("b", 80.0, 75.0), row("c", 60.0)])
    assert "a is best on the public score, b out of fold" in warnings(rows)[0]
    assert warnings(with_ranks([row("a", 80.0, 70.0), row("b", 90.0, 75.0)])) == []
    assert warnings(with_ranks([row("a", 90.0, 70.0)])) == []


def test_many_files_scored_by_a_service_are_noted(tmp_path: Path):
    ledger = tmp_path / "ledger.csv"
    sent(ledger, ("pose", "1", "complete", "91.5"), ("pose", "1", "complete", "91.5"), ("pose", "2", "pending", ""))
    assert notes(ledger) == []  # one file, sent twice
    sent(ledger, ("pose", "1", "complete", "91.5"), ("pose", "2", "complete", "90.25"), ("x", "3", "complete", "1"))
    (line,) = notes(ledger)
    assert "2 files were scored by pose: the best score, 90.25" in line


@pytest.fixture
def submissions(tmp_path: Path) -> Path:
    """Make three blends of files."""
    for number, name in enumerate(("a", "b", "c")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "blend.json").write_text(json.dumps({"method": "mean", "shipped": "mean"}))
        write_poses(tmp_path / name / "submission.csv.gz", range(1, N_TEST + 1), np.full((N_TEST, 17, 3), number))
    return tmp_path


def test_the_board_ranks_and_falls_back_to_the_score_in_the_ledger(submissions: Path):
    file = {name: submissions / name / "submission.csv.gz" for name in "abc"}
    record_score(submissions, file["a"], scores(50.0, 51.0, 49.0))
    record_score(submissions, file["b"], scores(50.0, 51.0, 48.0))
    sent(submissions / "ledger.csv", ("pose", sha256_file(file["c"]), "complete", "47.5"))
    rows = {one.name: one for one in board(submissions, submissions.parent / "folds")}
    assert {name: one.public_rank for name, one in rows.items()} == {"a": 2, "b": 2, "c": 1}
    assert {name: one.private_rank for name, one in rows.items()} == {"a": 2, "b": 1, "c": None}
    assert rows["c"].public == 47.5
    assert describe_ranks(submissions, file["a"]).startswith("rank among 2 files scored here: public 1, private 2 ")


def test_a_renamed_blend_keeps_its_scores(submissions: Path):
    folder, kept = submissions / "a", submissions / "a-1a2b3c4d"
    record_score(submissions, folder / "submission.csv.gz", scores(50.0, 51.0, 49.0))
    sent(submissions / "ledger.csv", ("pose", sha256_file(submissions / "b/submission.csv.gz"), "complete", "47.5"))
    folder.rename(kept)
    (submissions / "b").rename(submissions / "b-1a2b3c4d")
    (submissions / "c").rename(folder)  # the next blend
    found = {one.name: (one.all, one.public) for one in board(submissions, submissions.parent / "folds")}
    assert found == {"a": (None, None), "a-1a2b3c4d": (50.0, 51.0), "b-1a2b3c4d": (None, 47.5)}
    record_score(submissions, folder / "submission.csv.gz", scores(40.0, 52.0, 39.0))
    found = {one.name: (one.all, one.public) for one in board(submissions, submissions.parent / "folds")}
    assert found == {"a": (40.0, 52.0), "a-1a2b3c4d": (50.0, 51.0), "b-1a2b3c4d": (None, 47.5)}
    ranks = describe_ranks(submissions, folder / "submission.csv.gz")
    assert ranks.startswith("rank among 2 files scored here: public 2, private 1 ")


def test_a_row_without_an_out_of_fold_score_gives_the_reason(command: Callable[..., int], tmp_path: Path, capsys):
    runs, test = tmp_path / "runs", np.full((N_TEST, 17, 3), 100.0) * (np.arange(17) > 0)[:, None]
    for name, fold in (("mate", "fold0"), ("half", "fold0"), ("all", "foldfull"), ("logged", "fold0")):
        write_poses(runs / name / fold / "test_epoch01.csv.gz", range(1, N_TEST + 1), test)
    for name in ("mate", "logged"):
        write_valid(runs / name / "fold0/valid_epoch01.npz", np.arange(1, 4), np.zeros((3, 17, 3)))
    append_log(runs / "logged/fold0", LogRow(epoch=1, valid_mpjpe=100.0))
    write_poses(tmp_path / "a.csv", range(1, N_TEST + 1), test)
    assert command("blend", "--files", str(tmp_path / "a.csv"), "--out", str(runs / "files")) == 0
    capsys.readouterr()
    assert command("board") == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any(": logged: " in line for line in lines)
    for name, reason in (
        ("mate", "log.jsonl is missing"),
        ("half", "no epoch is complete"),
        ("all", "trained on everything"),
        ("files", "a blend of files"),
    ):
        assert sum(f": {name}: {reason}" in line for line in lines) == 1, lines


def test_scores_of_several_competitions_are_not_mixed(submissions: Path):
    ledger = submissions / "ledger.csv"
    sent(ledger, ("pose", "a" * 64, "complete", "91.5"), ("other", "a" * 64, "complete", "0.3"))
    assert sent_scores(ledger) == {}


def test_a_public_score_that_is_not_a_number_is_rejected_with_its_line(submissions: Path):
    sent(submissions / "ledger.csv", ("pose", "a" * 64, "complete", "91,5"))
    with pytest.raises(UserError, match=r"ledger.csv:2: public is '91,5', expected a number"):
        sent_scores(submissions / "ledger.csv")


@pytest.mark.parametrize("score", ["9O.5", "nan", "1e999"])
def test_a_recorded_score_that_is_not_a_number_is_rejected_with_its_line(submissions: Path, score: str):
    file = submissions / "a/submission.csv.gz"
    record_score(submissions, file, scores(50.0, 51.0, 49.0))
    with open(submissions / "scores.csv", "a") as handle:
        handle.write(f"2026-11-22,{file},{'a' * 64},{score},,\n")
    with pytest.raises(UserError, match=rf"scores.csv:3: all is '{score}', expected a number"):
        board(submissions, submissions.parent / "folds")


def test_rows_link_to_a_report_that_contains_them(submissions: Path, capsys: pytest.CaptureFixture[str]):
    rows, report = board(submissions, submissions.parent / "folds"), submissions / "report.html"
    names = [one.name for one in rows]
    assert find_links(names, report) == {}
    report.write_text('<tr id="run-a"></tr>')
    links = find_links(names, report)
    assert links == {"a": f"{report.as_uri()}#run-a"}
    assert [one["link"] for one in board_json(rows, links)] == [links["a"], None, None]
    console = Console()
    console.table(board_table(rows, links))
    assert "blend (mean)" in capsys.readouterr().out


def test_the_best_of_each_column_and_incomplete_runs_are_coloured():
    rows = with_ranks([row("a", 91.5, 90.0), row("b", 90.25, 92.0), row("c", 80.0, folds=1)])
    console = RichConsole(file=io.StringIO(), force_terminal=True, color_system="standard", width=160)
    console.print(board_table(rows, {}))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    marked = [text.strip() for text in re.findall(r"\x1b\[1;32m(.*?)\x1b", shown)]
    assert marked == ["90.00", "1", "90.25", "1"]  # the incomplete run has no rank
    assert [text.strip() for text in re.findall(r"\x1b\[33m(.*?)\x1b", shown)] == ["1 of 2"]


def test_the_reports_board_has_an_anchor_for_each_row(submissions: Path, data: Path):
    from competition.report.evidence import gather
    from competition.report.markup import page
    from competition.report.standings import board as section

    evidence = gather(Workspace(data=data, folds=submissions / "folds", submissions=submissions))
    report = submissions / "report.html"
    report.write_text(page("Board", [], [section(evidence)]))
    assert set(find_links("abcd", report)) == {"a", "b", "c"}
