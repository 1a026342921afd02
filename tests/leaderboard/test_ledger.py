"""The ledger: one row per upload, in a standard CSV."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from competition.common.errors import UserError
from competition.common.workspace import Workspace
from competition.leaderboard.ledger import LEDGER, read_ledger, write_row
from tests.leaderboard.helpers import Sender


def test_two_uploads_at_once_keep_both_rows(tmp_path: Path):
    rows = [{key: f"{key} {number}" for key in LEDGER} | {"public": str(number)} for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_row, [tmp_path / "ledger.csv"] * 8, rows))
    assert sorted(row["file"] for row in read_ledger(tmp_path / "ledger.csv")) == [f"file {n}" for n in range(8)]


def test_an_invalid_ledger_is_rejected_and_left_unchanged(send: Sender, file: Path, workspace: Workspace):
    ledger = workspace.submissions / "ledger.csv"
    for text in ("time,file\n", ",".join(LEDGER) + "\n1,2\n", ""):
        ledger.write_text(text)
        with pytest.raises(UserError, match="expected a header and rows of time, competition, "):
            send(file)
        assert ledger.read_text() == text
    assert send.asked == []


def test_the_ledger_is_a_standard_csv(send: Sender, workspace: Workspace):
    row = dict.fromkeys(LEDGER, "") | {"time": "2026-11-22", "message": 'a "quoted", word'}
    path = workspace.submissions / "ledger.csv"
    for status in ("sending", "complete"):
        write_row(path, row | {"status": status})  # the later state replaces the earlier one
    assert list(csv.reader(path.read_text().splitlines())) == [list(LEDGER), [*(row | {"status": "complete"}).values()]]
