"""The ledger: one row per upload, in a standard CSV."""

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from competition.common.errors import UserError
from competition.runs.ledger import LEDGER, Upload, read_ledger, record_upload, submitted


def test_two_uploads_at_once_keep_both_rows(tmp_path: Path):
    rows = [{key: f"{key} {number}" for key in LEDGER} | {"public": str(number)} for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record_upload, [tmp_path / "ledger.csv"] * 8, [Upload(**row) for row in rows]))
    assert sorted(row.file for row in read_ledger(tmp_path / "ledger.csv")) == [f"file {n}" for n in range(8)]


BAD_LEDGERS = {
    "time,file\n": r":1: columns time,file, expected time,competition,",
    ",".join(LEDGER) + "\n\n1,2\n": r":3: 2 cells, expected 10",
    "": r":1: columns nothing, expected time,competition,",
}


@pytest.mark.parametrize("text", BAD_LEDGERS)
def test_an_invalid_ledger_is_rejected_and_left_unchanged(tmp_path: Path, text: str):
    ledger = tmp_path / "ledger.csv"
    ledger.write_text(text)
    for use in (read_ledger, submitted, lambda path: record_upload(path, Upload())):
        with pytest.raises(UserError, match=BAD_LEDGERS[text]):
            use(ledger)
    assert ledger.read_text() == text


def test_the_ledger_is_a_standard_csv(tmp_path: Path):
    upload = Upload(time="2026-11-22", sha256="c0ffee", message='a "quoted", word')
    path = tmp_path / "ledger.csv"
    for status in ("sending", "complete"):
        record_upload(path, replace(upload, status=status))  # the later state replaces the earlier one
    cells = astuple(replace(upload, status="complete"))
    assert list(csv.reader(path.read_text().splitlines())) == [list(LEDGER), list(cells)]
    assert LEDGER == (
        "time", "competition", "file", "sha256", "run", "out_of_fold", "message", "ref", "status", "public",
    )  # fmt: skip
    assert submitted(path) == {upload.sha256}
    assert submitted(tmp_path / "missing.csv") == set()
