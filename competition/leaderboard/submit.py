"""Uploading a submission with the official client.

validate -> ask -> list what is there -> send -> list until it is scored; the ledger is written at every step
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

_HOPELESS: Final = ("client not installed", "no credentials", "network down", "timeout")  # sending would fail too
_UNSURE: Final = ("network down", "service error", "timeout", "client failed")  # perhaps only the answer was lost


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait, in seconds."""

    send: float = 900  # a few MB on a slow line
    list: float = 120  # one look at the list of submissions
    score: float = 900  # from the upload to its score
    pause: float = 2  # between the first two looks; each pause is half as long again, up to 30 s


def submit(
    workspace: Workspace,
    file: Path,
    *,
    competition: str,
    message: str,
    confirm: Callable[[str], bool],
    note: Callable[[str], None],
    patience: Patience = Patience(),
) -> Row:
    """Send a CSV of test poses, wait for its public score, and return its row of the ledger.

    What was sent and has no score yet isn't sent again: its score is looked for. `confirm` is shown what would be
    sent and decides. Raise SubmissionError for what no one should send, before anything leaves this machine, and
    UserError for everything else that goes wrong; the ledger then tells it too.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,199}", competition):
        raise UserError(f"competition {competition[:60]!r}: expected a-z, 0-9 and '-', the last part of its address")
    if not message.strip() or any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in message):
        raise UserError(f"message {message[:60]!r}: expected one line of text that says what is sent: MESSAGE=")
    sha256 = sha256_file(file) if file.is_file() else ""
    poses = read_poses(file, read_test(workspace.data).id)
    check_plausible(poses, file)
    ledger = workspace.submissions / "ledger.csv"
    before = read_ledger(ledger)
    waiting = [row for row in before if _key(row) == (competition, sha256) and row["status"] == "pending"]
    if waiting:
        row, known = waiting[-1], {other["ref"] for other in before} - {waiting[-1]["ref"]}
        note(f"{file}: sent at {row['time']}, without a score so far: not sent again; looking for its score")
    else:
        origin = find_origin(workspace.submissions, file, poses)
        facts = {"file": str(file), "sha256": sha256, "rows": str(len(poses.id)), "from": origin.told}
        if not confirm(_question(competition, facts | {"message": message}, before)):
            raise UserError(f"{file}: not sent")
        if sha256_file(file) != sha256:
            raise UserError(f"{file}: not sent: it changed while you were asked; the same command looks at it again")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        mpjpe = "" if origin.mpjpe is None else f"{origin.mpjpe:.4f}"
        cells = (now, competition, str(file), sha256, origin.name, mpjpe, message, "", "sending", "")
        row, known = _send(dict(zip(LEDGER, cells, strict=True)), file, ledger, patience)
        note(f"{file}: sent to {competition}; waiting for its score, Ctrl-C ends only the waiting")
    row = _await_score(row, file, ledger, known, patience)
    note(f"{_sent(row, file)}: public score {row['public'] or 'unknown'}; noted in {ledger}")
    return row


def _send(row: Row, file: Path, ledger: Path, patience: Patience) -> tuple[Row, set[str]]:
    """Upload a file; return its row, now pending, and the refs of the submissions before it."""
    competition = row["competition"]
    write_row(ledger, row)  # before it is sent: an interrupted submission may have arrived
    listed, failure = _submissions(competition, patience)
    if failure is None or failure.status not in _HOPELESS:
        options = ["submit", "-c", competition, f"--message={row['message']}", "-f", str(file.absolute())]
        said, failure = call(options, competition, patience.send)
        if failure is None and "Successfully submitted" not in said:
            failure = diagnose(said, competition)
        if failure is not None and failure.status in _UNSURE:
            told = f"{failure.told}; it may have arrived: see {_page(row)} before sending it again"
            failure = failure._replace(told=told)
    if failure is not None:
        write_row(ledger, row | {"status": f"failed: {failure.status}"})
        raise UserError(f"{file}: sending it to {competition} failed: {failure.told}")
    row |= {"status": "pending"}
    write_row(ledger, row)
    return row, {other["ref"] for other in listed}


def _await_score(row: Row, file: Path, ledger: Path, known: set[str], patience: Patience) -> Row:
    """Wait for a score and return the row with it; UserError when the scorer refuses the file or patience ends."""
    found, failure = _look_for(row, known, patience)
    row = row | found
    write_row(ledger, row)
    if row["status"] == "failed: scorer error":
        raise UserError(f"{_sent(row, file)}, but its scorer refused it: see {_page(row)} for the reason")
    if row["status"] != "complete":
        why = failure.told if failure else "the same command looks again and doesn't send again"
        raise UserError(f"{_sent(row, file)}, but no score came within {patience.score:g} s: {why}; {_page(row)}")
    return row


def _sent(row: Row, file: Path) -> str:
    return f"{file}: sent to {row['competition']}{', submission ' if row['ref'] else ''}{row['ref']}"


def _page(row: Row) -> str:
    return f"{SITE}/competitions/{row['competition']}/submissions"


def _key(row: Row) -> tuple[str, str]:
    return row["competition"], row["sha256"]


def _question(competition: str, facts: dict[str, str], ledger: list[Row]) -> str:
    """Say what would be sent, and when the same file was sent before."""
    lines = [f"send to the competition {competition}:", *(f"  {name:8} {fact}" for name, fact in facts.items())]
    for old in ledger:
        arrived = old["ref"] or old["status"].partition("failed: ")[2] in ("", *_UNSURE)
        if arrived and _key(old) == (competition, facts["sha256"]):
            lines.append(f"  before   the same file at {old['time']}: {old['status']} {old['public']}")
    return "\n".join(lines)


def _submissions(competition: str, patience: Patience) -> tuple[list[Row], Failure | None]:
    """List the latest submissions, newest first, by the columns that the client prints."""
    said, failure = call(["submissions", "-c", competition, "--csv"], competition, patience.list)
    lines = said.splitlines(keepends=True)
    header = next((i for i, line in enumerate(lines) if {"ref", "status"} <= set(line.strip().split(","))), None)
    if failure is None and header is None and "No submissions found" not in said:
        failure = diagnose(said, competition)
    return [] if header is None else list(csv.DictReader(lines[header:], restval="")), failure


def _look_for(row: Row, known: set[str], patience: Patience) -> tuple[Row, Failure | None]:
    """Look until the submission is scored or patience ends; return ref, status and public score as far as known.

    It is the one of the row's ref or, where that isn't known yet, the latest with its message but for the `known` refs.
    """
    deadline, pause = time.monotonic() + patience.score, patience.pause
    found: Row = {}
    while True:
        listed, failure = _submissions(row["competition"], patience)
        new = [other for other in listed if other["ref"].isdecimal() and other["ref"] not in known]
        mine = [
            other
            for other in new
            if (
                other["ref"] == row["ref"]
                if row["ref"]
                else other.get("description", "").split() == row["message"].split()
            )
        ]
        if mine:
            latest = max(mine, key=lambda other: int(other["ref"]))
            status = re.sub("[^a-z]", "", latest["status"].rpartition(".")[2].lower())  # SubmissionStatus.PENDING
            score = re.fullmatch(r"-?\d+(\.\d*)?(e[+-]?\d+)?", latest.get("publicScore", ""), re.ASCII | re.IGNORECASE)
            status = "failed: scorer error" if status == "error" else status
            found = {"ref": latest["ref"], "status": status, "public": score[0] if score else ""}
        if found.get("status") in ("complete", "failed: scorer error") or time.monotonic() + pause > deadline:
            return found, failure
        time.sleep(pause)
        pause = min(pause * 1.5, 30)
