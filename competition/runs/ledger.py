"""SUBMISSIONS/ledger.csv: the record of uploads and their public scores."""

from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

from competition.common.files import locked, write_text
from competition.common.table_csv import read_table, table_csv

PENDING, COMPLETE = "pending", "complete"


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One upload of a file, as text: its fields are the columns of the ledger."""

    time: str = ""
    competition: str = ""
    file: str = ""
    sha256: str = ""
    run: str = ""  # run:epoch or a blend; empty if unknown
    out_of_fold: str = ""  # MPJPE in mm
    message: str = ""
    ref: str = ""  # the competition's number of the submission
    status: str = ""  # sending, PENDING, COMPLETE or failed: REASON
    public: str = ""  # score

    @property
    def identity(self) -> tuple[str, ...]:
        """What stays the same while the status changes."""
        return self.time, self.competition, self.file, self.sha256

    def is_of(self, competition: str, sha256: str) -> bool:
        """Return whether this is an upload of the file with this hash to this competition."""
        return (self.competition, self.sha256) == (competition, sha256)


LEDGER: Final = tuple(field.name for field in fields(Upload))


def read_ledger(path: Path) -> list[Upload]:
    """Read the ledger, oldest upload first; empty if there is none; raise UserError if the file is invalid."""
    rows = read_table(path, LEDGER, what="ledger", numbers=("public",)) if path.exists() else []
    return [Upload(**row) for row in rows]


def submitted(path: Path) -> set[str]:
    """Return the sha256 of every file in the ledger, whatever became of its upload."""
    return {upload.sha256 for upload in read_ledger(path)}


def record_upload(path: Path, upload: Upload) -> None:
    """Add an upload to the ledger, or replace its earlier state."""
    with locked(path.parent):  # another upload may be running
        uploads = {one.identity: one for one in [*read_ledger(path), upload]}
        write_text(path, table_csv(LEDGER, map(astuple, uploads.values())))


def sent_scores(ledger: Path) -> dict[str, float]:
    """Return the latest public score of each file by sha256; empty if the ledger has several competitions."""
    scores = list(public_scores(ledger).values())
    return scores[0] if len(scores) == 1 else {}


def public_scores(ledger: Path) -> dict[str, dict[str, float]]:
    """Return the public scores by competition, then by the file's sha256."""
    sent: dict[str, dict[str, float]] = {}
    for upload in read_ledger(ledger):
        if upload.status == COMPLETE and upload.public:
            sent.setdefault(upload.competition, {})[upload.sha256] = float(upload.public)
    return sent
