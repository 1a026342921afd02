"""Upload of a submission with the official client.

validate -> ask -> list submissions -> upload -> list until it is scored; the ledger is updated at every step
"""

import csv
import datetime
import logging
import re
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from competition.common.errors import Command, UserError
from competition.common.files import sha256_file
from competition.common.pose_csv import check_plausible, read_poses
from competition.common.workspace import Workspace
from competition.data.dataset import Dataset
from competition.leaderboard.kaggle import SITE, Failure, call, diagnose
from competition.runs.ledger import COMPLETE, PENDING, Upload, read_ledger, record_upload
from competition.runs.origin import check_test_set, find_origin

log = logging.getLogger(__name__)

_REJECTED: Final = "failed: scorer error"
_HOPELESS: Final = ("client not installed", "no credentials", "network down", "timeout")  # uploading would fail too
_UNSURE: Final = ("network down", "service error", "timeout", "client failed")  # the file may have arrived all the same


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Time limits in seconds."""

    send: float = 900  # upload of a few MB over a slow connection
    list: float = 120  # one listing of submissions
    score: float = 900  # from the upload to its score
    pause: float = 2  # between the first two listings; each pause is 1.5 times the one before, up to 30 s


class Listed(NamedTuple):
    """A submission as the client lists it."""

    ref: str
    status: str  # as in the ledger
    description: str
    public: str  # score, empty if unknown


def submit(
    workspace: Workspace,
    file: Path,
    *,
    competition: str,
    message: str,
    confirm: Callable[[str], bool],
    timeouts: Timeouts = Timeouts(),
) -> Upload:
    """Upload a CSV of test poses, wait for its public score, and return its row of the ledger.

    A file that was uploaded but has no score yet isn't uploaded again; only its score is polled. `confirm` gets a
    summary and returns whether to upload. Raises UserError before any contact with the service if the file is invalid
    or was made for another test set, and for all other failures, which are recorded once an upload was tried.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,199}", competition):
        raise UserError(f"competition {competition[:60]!r}: expected a-z, 0-9 and '-', the last part of its address")
    if not message.strip() or any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in message):
        raise UserError(f"message {message[:60]!r}: expected one line of text", fix="describe the file in one line")
    sha256 = sha256_file(file) if file.is_file() else ""
    dataset = Dataset(workspace.data)
    check_test_set(file, dataset)
    poses = read_poses(file, dataset.test.id)
    check_plausible(poses, file)
    ledger = workspace.submissions / "ledger.csv"
    earlier = read_ledger(ledger)
    waiting = [one for one in earlier if one.is_of(competition, sha256) and one.status == PENDING]
    if waiting:
        upload, known = waiting[-1], {other.ref for other in earlier} - {waiting[-1].ref}
        log.info(f"{file}: uploaded at {upload.time}, not scored yet: not uploading it again; waiting for its score")
    else:
        origin = find_origin(workspace.submissions, file, poses, dataset)
        facts = {"file": str(file), "sha256": sha256, "rows": str(len(poses.id)), "from": origin.description}
        before = [one for one in earlier if one.is_of(competition, sha256)]
        if not confirm(_question(competition, facts | {"message": message}, before)):
            raise UserError(f"{file}: not sent")
        if sha256_file(file) != sha256:
            raise UserError(f"{file}: not sent, it changed while the question was open", fix="run the command again")
        upload = Upload(
            time=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            competition=competition,
            file=str(file),
            sha256=sha256,
            run=origin.name,
            out_of_fold="" if origin.mpjpe is None else f"{origin.mpjpe:.4f}",
            message=message,
            status="sending",
        )
        upload, known = _send(upload, file, ledger, timeouts)
        log.info(f"{file}: sent to {competition}; waiting for its score (Ctrl-C stops the waiting, not the upload)")
    upload = _await_score(upload, file, ledger, known, timeouts)
    log.info(f"{_sent(upload, file)}: public score {upload.public or 'unknown'}, recorded in {ledger}")
    return upload


def _send(upload: Upload, file: Path, ledger: Path, timeouts: Timeouts) -> tuple[Upload, set[str]]:
    """Upload a file; return its row, now pending, and the refs of all earlier submissions."""
    competition = upload.competition
    record_upload(ledger, upload)  # before the upload: an interrupted one may have arrived
    listed, failure = _submissions(competition, timeouts)
    if failure is None or failure.status not in _HOPELESS:
        options = ["submit", "-c", competition, f"--message={upload.message}", "-f", str(file.absolute())]
        output, failure = call(options, competition, timeouts.send)
        if failure is None and "Successfully submitted" not in output:
            failure = diagnose(output, competition)
        if failure is not None and failure.status in _UNSURE:
            unsure = f"it may have arrived: check {_page(upload)} before sending it again"
            failure = failure._replace(fix=f"{failure.fix}; {unsure}" if failure.fix else unsure)
    if failure is not None:
        record_upload(ledger, replace(upload, status=f"failed: {failure.status}"))
        raise UserError(f"{file}: sending it to {competition} failed: {failure.what}", fix=failure.fix)
    upload = replace(upload, status=PENDING)
    record_upload(ledger, upload)
    return upload, {other.ref for other in listed}


def _await_score(upload: Upload, file: Path, ledger: Path, known: set[str], timeouts: Timeouts) -> Upload:
    """Wait for the score and return the row with it; raise UserError if the scorer rejects the file or on timeout."""
    found, failure = _poll(upload, known, timeouts)
    if found is not None:
        upload = replace(upload, ref=found.ref, status=found.status, public=found.public)
    record_upload(ledger, upload)
    if upload.status == _REJECTED:
        what = f"{_sent(upload, file)}, but its scorer rejected it"
        raise UserError(what, fix=f"see {_page(upload)} for the reason")
    if upload.status != COMPLETE:
        what = f"{_sent(upload, file)}, but no score came within {timeouts.score:g} s"
        options = {"file": str(file), "competition": upload.competition, "message": upload.message}
        again = f"run the same command again to wait, it doesn't upload again; {_page(upload)}"
        raise UserError(
            f"{what}: {failure.what}" if failure else what,
            fix=f"{failure.fix}; {again}" if failure and failure.fix else again,
            command=Command("submit", options),
        )
    return upload


def _sent(upload: Upload, file: Path) -> str:
    return f"{file}: sent to {upload.competition}{', submission ' if upload.ref else ''}{upload.ref}"


def _page(upload: Upload) -> str:
    return f"{SITE}/competitions/{upload.competition}/submissions"


def _question(competition: str, facts: dict[str, str], before: list[Upload]) -> str:
    """Summarise the upload for the user, with earlier uploads of the same file."""
    lines = [f"send to the competition {competition}:", *(f"  {name:8} {fact}" for name, fact in facts.items())]
    for old in before:
        if old.ref or old.status.partition("failed: ")[2] in ("", *_UNSURE):  # it has arrived, or may have
            lines.append(f"  before   the same file at {old.time}: {old.status} {old.public}")
    return "\n".join(lines)


def _submissions(competition: str, timeouts: Timeouts) -> tuple[list[Listed], Failure | None]:
    """List the latest submissions, newest first."""
    output, failure = call(["submissions", "-c", competition, "--csv"], competition, timeouts.list)
    lines = output.splitlines(keepends=True)
    header = next((i for i, line in enumerate(lines) if {"ref", "status"} <= set(line.strip().split(","))), None)
    if failure is None and header is None and "No submissions found" not in output:
        failure = diagnose(output, competition)
    rows = [] if header is None else csv.DictReader(lines[header:], restval="")
    return [_listed(row) for row in rows], failure


def _listed(row: dict[str, str]) -> Listed:
    status = re.sub("[^a-z]", "", row["status"].rpartition(".")[2].lower())  # SubmissionStatus.PENDING
    score = re.fullmatch(r"-?\d+(\.\d*)?(e[+-]?\d+)?", row.get("publicScore", ""), re.ASCII | re.IGNORECASE)
    return Listed(
        ref=row["ref"],
        status=_REJECTED if status == "error" else status,
        description=row.get("description", ""),
        public=score[0] if score else "",
    )


def _poll(upload: Upload, known: set[str], timeouts: Timeouts) -> tuple[Listed | None, Failure | None]:
    """Poll until the submission is scored or the time is up; return it as it was last listed, None if it never was.

    The submission is identified by the row's ref or, if that is unknown, as the latest one with the row's message
    whose ref isn't `known`.
    """

    def matches(other: Listed) -> bool:
        if upload.ref:
            return other.ref == upload.ref
        return other.description.split() == upload.message.split()

    deadline, pause = time.monotonic() + timeouts.score, timeouts.pause
    found = None
    while True:
        listed, failure = _submissions(upload.competition, timeouts)
        new = [other for other in listed if other.ref.isdecimal() and other.ref not in known]
        found = max(filter(matches, new), key=lambda other: int(other.ref), default=found)
        scored = found is not None and found.status in (COMPLETE, _REJECTED)
        if scored or time.monotonic() + pause > deadline:
            return found, failure
        time.sleep(pause)
        pause = min(pause * 1.5, 30)
