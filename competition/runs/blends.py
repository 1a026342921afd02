"""The folder of a blend: its files, blend.json and weights.csv. `blending` makes blends, others read them."""

import csv
import glob
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from competition.common.arrays import Float64, Int64
from competition.common.errors import UserError
from competition.common.files import read_json, read_text, rename_folder, sha256_file, sha256_json, write_bytes
from competition.common.pose_csv import write_poses
from competition.common.records import read_record, to_json, write_record
from competition.common.skeleton import AXES, JOINTS
from competition.runs.ledger import submitted
from competition.runs.provenance import Provenance

log = logging.getLogger(__name__)

CSVS: Final = ("submission.csv.gz", "submission_mean.csv.gz", "submission_coordinate.csv.gz")  # can be submitted
FILES: Final = ("blend.json", *CSVS, "study.journal", "weights.csv", "weights.png", "stack.npz")
_UNHASHED: Final = ("format", "facts_sha256")  # keys of blend.json that its hash leaves out


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The groups of rows that cross-validation holds out."""

    by: str  # subject or sequence
    count: int
    folds: int  # of whole groups
    rows: int


@dataclass(frozen=True, kw_only=True)
class MethodErrors:
    """One method of a blend: MPJPE in mm on the rows that its weights were fitted on, and on held-out groups."""

    method: str
    mpjpe_in_sample: float | None = None
    mpjpe_nested: float | None = None
    gain_nested_se: float | None = None  # standard error of the gain over the mean on held-out groups
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class MemberErrors:
    """One member of a blend alone: its MPJPE in mm on all its out-of-fold rows, and their number."""

    name: str
    mpjpe: float
    rows: int


@dataclass(frozen=True, kw_only=True)
class Blend:
    """The contents of blend.json: errors and gains in mm; None for what can't be estimated, as `why` explains."""

    FORMAT: ClassVar[int] = 1

    method: str = "unknown"
    granularity: str | None = None
    shrink: float | None = None
    candidates: list[str] = field(default_factory=list)
    n_rows: int = 0
    groups: Groups | None = None
    mpjpe_mean: float | None = None
    mpjpe_blend_in_sample: float | None = None
    mpjpe_nested: float | None = None
    gain_nested: float | None = None
    gain_nested_se: float | None = None
    best_simple: str | None = None  # mean, or the name of the best single candidate
    gain_over_best_simple: float | None = None  # on held-out groups, as gain_nested
    gain_over_best_simple_se: float | None = None
    mpjpe_optimum: float | None = None
    gap_percent: float | None = None
    shipped: str = ""  # mean or blend; a single candidate is a blend, too
    shipped_method: str = ""
    why: str = ""
    seconds: float | None = None
    best_single: str | None = None
    gain_joint: dict[str, float] | None = None
    gain_axis: dict[str, float] | None = None
    table: list[MethodErrors] = field(default_factory=list)
    members: list[MemberErrors] = field(default_factory=list)
    provenance: Provenance | None = None
    inputs: dict[str, str] = field(default_factory=dict)  # sha256 by run/fold/file, or by path
    outputs: dict[str, str] | None = None  # sha256 by name
    facts_sha256: str | None = None

    @property
    def out_of_fold(self) -> float | None:
        """The MPJPE on held-out groups or, if that is unknown, on the rows that the weights were fitted on."""
        return self.mpjpe_blend_in_sample if self.mpjpe_nested is None else self.mpjpe_nested

    @property
    def shipped_row(self) -> str:
        """The name in `table` of the method that ships."""
        return "optuna" if self.shipped_method.startswith("optuna ") else self.shipped_method

    @property
    def in_sample(self) -> bool:
        """Whether weights were fitted on the rows of `out_of_fold`."""
        return self.mpjpe_nested is None and self.shipped != "mean"


def is_blend(folder: Path) -> bool:
    """Return whether a folder holds a blend."""
    return (folder / "blend.json").exists()


def blend_folders(submissions: Path) -> list[Path]:
    """List the folders of all blends, sorted by name."""
    return [path.parent for path in sorted(submissions.glob("*/blend.json"))]


def read_blend(folder: Path) -> Blend:
    """Read blend.json; raise UserError if it is missing or damaged."""
    return read_record(Blend, folder / "blend.json", what="blend")


def has_changed(folder: Path) -> bool:
    """Return whether blend.json differs from what was written; False if it doesn't contain its hash."""
    facts = read_json(folder / "blend.json", what="blend")
    return facts.get("facts_sha256") not in (None, _facts_sha256(facts))


def check_folder(out: Path) -> None:
    """Raise UserError for a run's folder, or a folder that holds runs, whose files a blend would replace."""
    if any(out.glob("fold*/")) or any(out.glob("*/fold*/")):
        raise UserError(f"{out} holds a run, or runs: a blend needs a folder of its own", fix="choose another folder")


def write_blend(
    out: Path,
    blend: Blend,
    *,
    test_id: Int64,
    poses: Mapping[str, Float64],
    files: Mapping[str, bytes] = {},
    submissions: Path | None = None,
) -> Blend:
    """Write test poses [n, 17, 3] in mm and other files by name, then blend.json; return the latter as written.

    blend.json has the hashes of itself and of the other files, except the journal, which contains times. An earlier
    blend in `out` is replaced or, if ledger.csv beside `out` or in `submissions` has one of its CSVs, renamed.
    """
    _keep_submitted(out, {out.parent, submissions or out.parent})
    (out / "blend.json").unlink(missing_ok=True)  # it certifies the other files
    for name, pose_mm in poses.items():
        write_poses(out / name, test_id, pose_mm)
    for name, content in files.items():
        write_bytes(out / name, content)
    written = [name for name in FILES if name in poses or name in files]
    for name in set(FILES).difference(written):
        (out / name).unlink(missing_ok=True)  # of an earlier blend
    outputs = {name: sha256_file(out / name) for name in written if name != "study.journal"}
    blend = replace(blend, outputs=outputs)
    blend = replace(blend, facts_sha256=_facts_sha256(to_json(blend)))
    write_record(out / "blend.json", blend)
    return blend


def _keep_submitted(folder: Path, submissions: Iterable[Path]) -> None:
    """Rename a blend's folder that holds a file in a ledger of `submissions`: add the start of its poses' hash.

    A blend that was kept before is not kept twice. Raises UserError if a ledger is damaged, if another folder has the
    new name, or if the folder holds other folders, such as runs, which would be renamed with it.
    """
    uploaded = {sha256 for path in submissions for sha256 in submitted(path / "ledger.csv")}
    hashes = _hashes_of_csvs(folder) if uploaded else []
    if uploaded.isdisjoint(hashes):
        return
    kept = folder.parent / f"{folder.absolute().name}-{hashes[0][:8]}"
    others = folder.parent.glob(f"{glob.escape(folder.absolute().name)}-*/")
    if uploaded.intersection(hashes) <= {sha256 for other in others for sha256 in _hashes_of_csvs(other)}:
        return
    if kept.exists():
        raise UserError(f"{folder} was submitted, and is to be kept as {kept}, which exists", fix="rename the latter")
    if any(path.is_dir() for path in folder.iterdir()):
        raise UserError(f"{folder} holds other folders beside a submitted blend", fix="write to another folder")
    rename_folder(folder, kept)
    log.info(f"{folder} was submitted: it is kept as {kept}")


def _hashes_of_csvs(folder: Path) -> list[str]:
    """Return the sha256 of the CSVs that a blend's folder holds, submission.csv.gz first."""
    return [sha256_file(folder / name) for name in CSVS if (folder / name).is_file()]


def _facts_sha256(facts: Mapping[str, object]) -> str:
    return sha256_json({key: value for key, value in facts.items() if key not in _UNHASHED})


def weights_csv(names: Sequence[str], values: Float64) -> str:
    """Return weights [17, 3, M] as CSV at full precision: joint, axis, and one column per candidate."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["joint", "axis", *names])
    for joint, of_joint in zip(JOINTS, values.tolist(), strict=True):
        writer.writerows([joint, axis, *row] for axis, row in zip(AXES, of_joint, strict=True))
    return text.getvalue()


def read_weights(path: Path) -> tuple[list[str], Float64]:
    """Read a blend's weights.csv: the candidates' names [M] and the weights [17, 3, M]; UserError if it is damaged."""
    rows = list(csv.reader(io.StringIO(read_text(path, what="weights"))))
    expected = [[joint, axis] for joint in JOINTS for axis in AXES]
    if [row[:2] for row in rows] != [["joint", "axis"], *expected]:
        raise _damaged(path, f"expected columns joint,axis and {len(expected)} rows")
    names = rows[0][2:]
    try:
        values = np.array([row[2:] for row in rows[1:]], np.float64).reshape(len(JOINTS), len(AXES), len(names))
    except ValueError:
        raise _damaged(path, f"expected {len(names)} numbers in every row") from None
    if not np.isfinite(values).all():
        raise _damaged(path, "a weight is not finite")
    return names, values


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}", fix="blend again")
