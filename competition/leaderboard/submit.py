"""Upload of a submission with the official client.

validate -> ask -> list submissions -> upload -> list until it is scored; the ledger is updated at every step
"""

import csv
import datetime
import re
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from competition.common.errors import UserError
from competition.common.files import sha256_file
from competition.common.pose_csv import check_plausible, read_poses
from competition.common.workspace import Workspace
from competition.data.labels import read_test
from competition.leaderboard.kaggle import SITE, Failure, call, diagnose
from competition.leaderboard.ledger import LEDGER, Row, read_ledger, write_row
from competition.runs.origin import find_origin

_HOPELESS: Final = ("client not installed", "no credentials", "network down", "timeout")  # uploading would fail too
_UNSURE: Final = ("network down", "service error", "timeout", "client failed")  # the file may have arrived all the same


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Time limits in seconds."""

    send: float = 900  # upload of a few MB over a slow connection
    list: float = 120  # one listing of submissions
    score: float = 900  # from the upload to its score
    pause: float = 2  # between the first two listings; each pause is 1.5 times the one before, up to 30 s


def submit(
    workspace: Workspace,
    file: Path,
    *,
    competition: str,
    message: str,
    confirm: Callable[[str], bool],
    note: Callable[[str], None],
    timeouts: Timeouts = Timeouts(),
) -> Row:
    """Upload a CSV of test poses, wait for its public score, and return its row of the ledger.

    A file that was uploaded but has no score yet isn't uploaded again; only its score is polled. `confirm` gets a
    summary and returns whether to upload. Raises SubmissionError before any contact with the service if the file is
    invalid, and UserError for all other failures, which are recorded in the ledger once an upload was tried.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,199}", competition):
        raise UserError(f"competition {competition[:60]!r}: expected a-z, 0-9 and '-', the last part of its address")
    if not message.strip() or any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in message):
        raise UserError(f"message {message[:60]!r}: expected one line of text that describes the file: set MESSAGE=")
    sha256 = sha256_file(file) if file.is_file() else ""
    poses = read_poses(file, read_test(workspace.data).id)
    check_plausible(poses, file)
    ledger = workspace.submissions / "ledger.csv"
    earlier = read_ledger(ledger)
    waiting = [row for row in earlier if _key(row) == (competition, sha256) and row["status"] == "pending"]
    if waiting:
        row, known = waiting[-1], {other["ref"] for other in earlier} - {waiting[-1]["ref"]}
        note(f"{file}: uploaded at {row['time']}, not scored yet: not uploading it again; waiting for its score")
    else:
        origin = find_origin(workspace.submissions, file, poses)
        facts = {"file": str(file), "sha256": sha256, "rows": str(len(poses.id)), "from": origin.description}
        if not confirm(_question(competition, facts | {"message": message}, earlier)):
            raise UserError(f"{file}: not sent")
        if sha256_file(file) != sha256:
            raise UserError(f"{file}: not sent: it changed while the question was open; run the same command again")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        mpjpe = "" if origin.mpjpe is None else f"{origin.mpjpe:.4f}"
        cells = (now, competition, str(file), sha256, origin.name, mpjpe, message, "", "sending", "")
        row, known = _send(dict(zip(LEDGER, cells, strict=True)), file, ledger, timeouts)
        note(f"{file}: sent to {competition}; waiting for its score (Ctrl-C stops the waiting, not the upload)")
    row = _await_score(row, file, ledger, known, timeouts)
    note(f"{_sent(row, file)}: public score {row['public'] or 'unknown'}, recorded in {ledger}")
    return row


def _send(row: Row, file: Path, ledger: Path, timeouts: Timeouts) -> tuple[Row, set[str]]:
    """Upload a file; return its row, now pending, and the refs of all earlier submissions."""
    competition = row["competition"]
    write_row(ledger, row)  # before the upload: an interrupted one may have arrived
    listed, failure = _submissions(competition, timeouts)
    if failure is None or failure.status not in _HOPELESS:
        options = ["submit", "-c", competition, f"--message={row['message']}", "-f", str(file.absolute())]
        output, failure = call(options, competition, timeouts.send)
        if failure is None and "Successfully submitted" not in output:
            failure = diagnose(output, competition)
        if failure is not None and failure.status in _UNSURE:
            message = f"{failure.message}; it may have arrived: check {_page(row)} before sending it again"
            failure = failure._replace(message=message)
    if failure is not None:
        write_row(ledger, row | {"status": f"failed: {failure.status}"})
        raise UserError(f"{file}: sending it to {competition} failed: {failure.message}")
    row |= {"status": "pending"}
    write_row(ledger, row)
    return row, {other["ref"] for other in listed}


def _await_score(row: Row, file: Path, ledger: Path, known: set[str], timeouts: Timeouts) -> Row:
    """Wait for the score and return the row with it; raise UserError if the scorer rejects the file or on timeout."""
    found, failure = _poll(row, known, timeouts)
    row = row | found
    write_row(ledger, row)
    if row["status"] == "failed: scorer error":
        raise UserError(f"{_sent(row, file)}, but its scorer rejected it: see {_page(row)} for the reason")
    if row["status"] != "complete":
        why = failure.message if failure else "run the same command again to wait; it doesn't upload again"
        raise UserError(f"{_sent(row, file)}, but no score came within {timeouts.score:g} s: {why}; {_page(row)}")
    return row


def _sent(row: Row, file: Path) -> str:
    return f"{file}: sent to {row['competition']}{', submission ' if row['ref'] else ''}{row['ref']}"


def _page(row: Row) -> str:
    return f"{SITE}/competitions/{row['competition']}/submissions"


def _key(row: Row) -> tuple[str, str]:
    return row["competition"], row["sha256"]


def _question(competition: str, facts: dict[str, str], ledger: list[Row]) -> str:
    """Summarise the upload for the user, with earlier uploads of the same file."""
    lines = [f"send to the competition {competition}:", *(f"  {name:8} {fact}" for name, fact in facts.items())]
    for old in ledger:
        arrived = old["ref"] or old["status"].partition("failed: ")[2] in ("", *_UNSURE)
        if arrived and _key(old) == (competition, facts["sha256"]):
            lines.append(f"  before   the same file at {old['time']}: {old['status']} {old['public']}")
    return "\n".join(lines)


def _submissions(competition: str, timeouts: Timeouts) -> tuple[list[Row], Failure | None]:
    """List the latest submissions, newest first, with the columns that the client prints."""
    output, failure = call(["submissions", "-c", competition, "--csv"], competition, timeouts.list)
    lines = output.splitlines(keepends=True)
    header = next((i for i, line in enumerate(lines) if {"ref", "status"} <= set(line.strip().split(","))), None)
    if failure is None and header is None and "No submissions found" not in output:
        failure = diagnose(output, competition)
    return [] if header is None else list(csv.DictReader(lines[header:], restval="")), failure


def _poll(row: Row, known: set[str], timeouts: Timeouts) -> tuple[Row, Failure | None]:
    """Poll until the submission is scored or the time is up; return ref, status and public score as far as known.

    The submission is identified by the row's ref or, if that is unknown, as the latest one with the row's message
    whose ref isn't `known`.
    """
    deadline, pause = time.monotonic() + timeouts.score, timeouts.pause
    found: Row = {}
    while True:
        listed, failure = _submissions(row["competition"], timeouts)
        new = [other for other in listed if other["ref"].isdecimal() and other["ref"] not in known]
        matching = [
            other
            for other in new
            if (
                other["ref"] == row["ref"]
                if row["ref"]
                else other.get("description", "").split() == row["message"].split()
            )
        ]
        if matching:
            latest = max(matching, key=lambda other: int(other["ref"]))
            status = re.sub("[^a-z]", "", latest["status"].rpartition(".")[2].lower())  # SubmissionStatus.PENDING
            score = re.fullmatch(r"-?\d+(\.\d*)?(e[+-]?\d+)?", latest.get("publicScore", ""), re.ASCII | re.IGNORECASE)
            status = "failed: scorer error" if status == "error" else status
            found = {"ref": latest["ref"], "status": status, "public": score[0] if score else ""}
        if found.get("status") in ("complete", "failed: scorer error") or time.monotonic() + pause > deadline:
            return found, failure
        time.sleep(pause)
        pause = min(pause * 1.5, 30)
