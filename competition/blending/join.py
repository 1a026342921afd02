"""The join of candidates on Id: read their poses, check that they can be compared, compute residuals.

Nothing is joined by row position. Candidates are sorted by (run, epoch) first, so that their order doesn't matter.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from competition.blending.consistency import ROUNDING_MM, ROWS, TEST_ROWS, PredictedFile, inconsistencies
from competition.blending.out_of_fold_faults import find_fault
from competition.common.arrays import Float32, Float64, Int16, Int64, Intp
from competition.common.errors import RunError
from competition.common.files import sha256_file
from competition.common.metrics import mpjpe
from competition.common.pose_csv import Poses, check_frame_and_unit, read_poses
from competition.common.seeds import sample_rows
from competition.common.skeleton import AXES, JOINTS
from competition.runs.blends import MemberErrors
from competition.runs.candidates import Candidate, read_out_of_fold_parts
from competition.runs.provenance import PARTS, Provenance, has_other_labels, other_parts

log = logging.getLogger(__name__)

LOGGED_MM: Final = 0.05  # difference to a logged error that isn't due to rounding
COPY_ROWS: Final = 500  # that are compared to find copies


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The joined candidates; rows are sorted by Id."""

    names: tuple[str, ...]  # [M] run:epoch
    id: Int64  # [N] training Ids that all candidates have
    residual: Float32  # [17, 3, M, N] mm
    true_mm: Float32  # [N, 17, 3]
    errors: list[MemberErrors]  # of each member on all its rows
    test_id: Int64  # [n]
    test_mm: Float64  # [M, n, 17, 3]
    inputs: dict[str, str]  # sha256 by run/fold/file
    notes: tuple[str, ...]


def join(
    candidates: Sequence[Candidate],
    true: Poses,
    test_ids: Int64,
    *,
    provenance: Provenance | None = None,
    fold_of_row: Int64 | None = None,
) -> Joined:
    """Read candidates and join them on Id; raise UserError if they can't be compared, and warn of inconsistent ones.

    `true` holds the training Ids, ascending, and their poses in mm; `fold_of_row` the fold that holds out each of its
    rows. Runs must belong to the images and the test set of `provenance`, without it to those of each other.
    """
    assert (np.diff(true.id) > 0).all(), "searchsorted needs ascending Ids"
    ordered = sorted(candidates, key=lambda c: (c.run, c.epoch))
    notes = _check_folds(ordered)
    _check_data(ordered, provenance)
    names = tuple(candidate.name for candidate in ordered)
    rows = _read_out_of_fold(ordered, true, len(names), fold_of_row)
    _check_logs(ordered, rows, provenance)
    residual = rows.residual
    test_mm = _read_test(ordered, rows, test_ids)
    files = [file for candidate in ordered for file in (*candidate.valid_files, *candidate.test_files)]
    return Joined(
        names=names,
        id=rows.id,
        residual=residual,
        true_mm=rows.true_mm,
        errors=rows.errors,
        test_id=np.sort(test_ids),
        test_mm=test_mm,
        inputs={"/".join(file.parts[-3:]): sha256_file(file) for file in files},
        notes=(*notes, *rows.notes),
    )


def _check_folds(ordered: Sequence[Candidate]) -> list[str]:
    """Raise RunError unless all runs share the folds; return notes on runs that can't be verified."""
    if not ordered:
        raise RunError("nothing to blend: no candidate is selected")
    duplicates = {c.name for c in ordered if sum(other.name == c.name for other in ordered) > 1}
    if duplicates:
        raise RunError(f"candidate {sorted(duplicates)[0]} is selected twice")
    known = [candidate for candidate in ordered if candidate.provenance.folds_sha256 is not None]
    for candidate in known:
        if candidate.provenance.folds_sha256 != known[0].provenance.folds_sha256:
            raise RunError(
                f"runs {known[0].run} and {candidate.run} were trained on different folds.csv, so that out-of-fold "
                "images of one are training images of the other",
                fix="train one again, or select runs of the same folds",
            )
    unverified = sorted({candidate.run for candidate in ordered if not candidate.verified})
    if not unverified:
        return []
    whose = "its" if len(unverified) == 1 else "their"
    return [
        f"{', '.join(unverified)}: {whose} folds can't be verified (no config.json): make sure that {whose} "
        "out-of-fold images were not trained on"
    ]


def _check_data(ordered: Sequence[Candidate], provenance: Provenance | None) -> None:
    """Raise RunError for a run of other images or another test set; warn about runs of other labels."""
    first = next((candidate for candidate in ordered if candidate.verified), ordered[0])
    now, whose = (first.provenance, f"run {first.run}") if provenance is None else (provenance, "the data folder")
    stale = set()
    for candidate in ordered:
        for part in other_parts(candidate.provenance, now):
            if part == "labels_sha256":
                stale.add(candidate.run)
            elif part != "folds_sha256":
                made = "was made for" if part == "test_images_sha256" else "was trained on"
                found, expected = (getattr(one, part)[:8] for one in (candidate.provenance, now))
                raise RunError(
                    f"run {candidate.run} {made} {PARTS[part]} {whose} (SHA-256 {found}, expected {expected})",
                    fix="use the data folder that it was made for, or predict or train again",
                )
    if stale:
        log.warning(
            f"{', '.join(sorted(stale))}: trained on {PARTS['labels_sha256']} {whose}: their errors are computed with "
            "the labels in use; train them again, or use the data folder that they were trained on"
        )


@dataclass(kw_only=True)
class _Rows:
    """Out-of-fold rows of all candidates: at first those of the first one, at the end those that all have."""

    id: Int64  # [N]
    true_mm: Float32  # [N, 17, 3]
    residual: Float32  # [17, 3, columns, N] mm
    file: list[Int16] = field(default_factory=list)  # [N] of each candidate: index of the row's out-of-fold file
    faulty: set[str] = field(default_factory=set)  # runs that were warned of
    errors: list[MemberErrors] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def poses_mm(self, member: int, rows: Intp) -> Float32:
        """Return a member's poses [n, 17, 3] on some rows."""
        return np.asarray(self.residual[:, :, member, rows].transpose(2, 0, 1) + self.true_mm[rows])


def _read_out_of_fold(ordered: Sequence[Candidate], true: Poses, columns: int, fold_of_row: Int64 | None) -> _Rows:
    """Read candidates one at a time into one array, which is nearly all of a blend's memory."""
    poses, file = read_out_of_fold_parts(ordered[0], true)
    true_mm = true.pose_mm[np.searchsorted(true.id, poses.id)].astype(np.float32)
    residual = np.empty((len(JOINTS), len(AXES), columns, len(poses.id)), np.float32)
    rows = _Rows(id=poses.id, true_mm=true_mm, residual=residual)
    if len(ordered) == 1:
        rows.notes.append(f"{ordered[0].name} is the only candidate: its weighted blend is a copy of it")
    common = np.ones(len(rows.id), bool)
    seen: list[tuple[str, Poses]] = []
    for place, candidate in enumerate(ordered):
        if place:
            poses, file = read_out_of_fold_parts(candidate, true)
        pose_mm = poses.pose_mm.astype(np.float32)
        rows.notes += _notes_on(candidate, poses, seen)
        _check_faults(candidate, poses, file, true, fold_of_row, rows.faulty)
        of_rows = true.pose_mm[np.searchsorted(true.id, poses.id)]
        rows.errors.append(MemberErrors(name=candidate.name, mpjpe=mpjpe(poses.pose_mm, of_rows), rows=len(poses.id)))
        common &= np.isin(rows.id, poses.id, assume_unique=True)
        if not common.any():
            raise RunError(
                f"{candidate.name} shares no out-of-fold Id with {ordered[0].name}", fix="blend runs of the same folds"
            )
        found = np.searchsorted(poses.id, rows.id[common])
        residual[:, :, place, common] = (pose_mm[found] - true_mm[common]).transpose(1, 2, 0)
        rows.file.append(np.zeros(len(rows.id), np.int16))
        rows.file[-1][common] = file[found]
    _report_few_rows(ordered, rows, int(common.sum()))
    if not common.all():
        rows.id, rows.true_mm = rows.id[common], rows.true_mm[common]
        rows.residual = np.ascontiguousarray(residual[..., common])
        rows.file = [of_member[common] for of_member in rows.file]
    return rows


def _notes_on(candidate: Candidate, poses: Poses, seen: list[tuple[str, Poses]]) -> list[str]:
    """Warn of a copy of a candidate that was `seen` with some of its rows; return notes."""
    step = max(1, len(poses.id) // COPY_ROWS)
    some = Poses(poses.id[::step], poses.pose_mm[::step])
    for name, other in seen:
        if np.array_equal(some.id, other.id) and np.allclose(some.pose_mm, other.pose_mm, atol=ROUNDING_MM):
            log.warning(f"{candidate.name} is a copy of {name}: they share one weight")
            break
    seen.append((candidate.name, some))
    is_constant = len(poses.id) > 1 and not np.ptp(poses.pose_mm, axis=0).any()
    return [f"{candidate.name} predicts the same pose for every image"] if is_constant else []


def _check_faults(
    candidate: Candidate, poses: Poses, file: Int64, true: Poses, fold_of_row: Int64 | None, faulty: set[str]
) -> None:
    """Raise RunError for out-of-fold files in another unit or frame; warn of other faults, once for each run."""
    for place, path in enumerate(candidate.valid_files):
        rows = file == place
        part = Poses(poses.id[rows], poses.pose_mm[rows])
        if not len(part.id):
            continue
        fold, name = int(path.parent.name.removeprefix("fold")), "/".join(path.parts[-3:])
        if (fault := find_fault(name, part, true, fold=fold, fold_of_row=fold_of_row)) and candidate.run not in faulty:
            log.warning(f"{candidate.name}: {name}: {fault}")
            faulty.add(candidate.run)


def _check_logs(ordered: Sequence[Candidate], rows: _Rows, provenance: Provenance | None) -> None:
    """Warn of runs whose errors, on the labels that they were trained on, aren't those that were logged."""
    for candidate, member in zip(ordered, rows.errors, strict=True):
        logged = candidate.valid_mpjpe
        if provenance is not None and has_other_labels(candidate.provenance, provenance):
            continue
        if logged is not None and abs(member.mpjpe - logged) > LOGGED_MM and candidate.run not in rows.faulty:
            log.warning(
                f"{candidate.name}: its error out of fold is {member.mpjpe:.2f} mm, but {logged:.2f} by log.jsonl: its "
                "files were changed or exchanged: copy the run again"
            )
            rows.faulty.add(candidate.run)


def _report_few_rows(ordered: Sequence[Candidate], rows: _Rows, common: int) -> None:
    """Note that candidates share only some rows; warn of external ones that have less than half of the others'."""
    most = max(member.rows for member in rows.errors)
    if common < most:
        rows.notes.append(
            f"the candidates share {common} of up to {most} out-of-fold rows: the weights are fitted on those"
        )
    for candidate, member in zip(ordered, rows.errors, strict=True):
        if not candidate.verified and candidate.run not in rows.faulty and 2 * member.rows < most:
            log.warning(
                f"{candidate.name} has out-of-fold poses of only {member.rows} of {most} images, so that all weights "
                "are fitted on these: add its other folds, or leave it out"
            )


def _read_test(ordered: Sequence[Candidate], rows: _Rows, test_ids: Int64) -> Float64:
    """Read test poses in mm, averaged over folds, [M, n, 17, 3]; check each file.

    Raises SubmissionError for a file in another unit or frame than the out-of-fold poses, and warns of files that are
    inconsistent with them.
    """
    sample, test_sample = sample_rows(len(rows.id), ROWS), sample_rows(len(test_ids), TEST_ROWS)
    test_mm = np.empty((len(ordered), len(test_ids), len(JOINTS), len(AXES)))
    files = []
    for member, candidate in enumerate(ordered):
        own_mm = rows.poses_mm(member, sample)
        of_files = [read_poses(path, test_ids) for path in candidate.test_files]
        test_mm[member] = np.mean([poses.pose_mm for poses in of_files], axis=0)
        one_file = len(candidate.test_files) != len(candidate.valid_files)  # of a network trained on everything
        for place, (path, poses) in enumerate(zip(candidate.test_files, of_files, strict=True)):
            check_frame_and_unit(poses, path, own_mm)
            held_out = np.ones(len(sample), bool) if one_file else rows.file[member][sample] == place
            files.append(
                PredictedFile(
                    run=candidate.run,
                    member=candidate.name,
                    name="/".join(path.parts[-3:]),
                    held_out=held_out,
                    out_of_fold_mm=own_mm,
                    test_mm=poses.pose_mm[test_sample].astype(np.float32),
                )
            )
    files = [file for file in files if file.run not in rows.faulty]
    for line in inconsistencies(files, rows.true_mm[sample]):
        log.warning(line)
    return test_mm
