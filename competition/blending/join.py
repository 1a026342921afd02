"""The join of candidates on Id: read their poses, check that they can be compared, compute residuals.

Nothing is joined by row position. Candidates are sorted by (run, epoch) first, so that their order doesn't matter.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from competition.blending.virtual import NAMES as VIRTUAL
from competition.blending.virtual import virtual_members
from competition.common.arrays import Float32, Float64, Int64
from competition.common.errors import RunError
from competition.common.files import sha256_file
from competition.common.metrics import mpjpe
from competition.common.pose_csv import Poses
from competition.common.skeleton import AXES, JOINTS
from competition.runs.blends import MemberErrors
from competition.runs.candidates import Candidate, read_out_of_fold, read_test_poses
from competition.runs.provenance import PARTS, Provenance, other_parts

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The joined candidates; rows are sorted by Id."""

    names: tuple[str, ...]  # [M] run:epoch, virtual members last
    members: int  # number of names before the virtual members
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
    virtual: bool = False,
) -> Joined:
    """Read candidates and join them on Id; raise UserError if they can't be compared.

    `true` holds the training Ids, ascending, and their poses in mm. Runs must belong to the images and the test set of
    `provenance`, without it to those of each other. `virtual` adds the members' geometric medians.
    """
    assert (np.diff(true.id) > 0).all(), "searchsorted needs ascending Ids"
    ordered = sorted(candidates, key=lambda c: (c.run, c.epoch))
    notes = _check_folds(ordered)
    _check_data(ordered, provenance)
    members = len(ordered)
    names = (*(candidate.name for candidate in ordered), *(VIRTUAL if virtual else ()))
    common, residual, true_mm, errors, remarks = _read_residuals(ordered, true, len(names))
    notes += remarks
    test_mm = np.array([read_test_poses(candidate, test_ids) for candidate in ordered])
    if virtual:
        residual[:, :, members:] = virtual_members(residual[:, :, :members])
        of_test = virtual_members(test_mm.transpose(2, 3, 0, 1).astype(np.float32))
        test_mm = np.concatenate([test_mm, of_test.transpose(2, 3, 0, 1)])
    files = [file for candidate in ordered for file in (*candidate.valid_files, *candidate.test_files)]
    return Joined(
        names=names,
        members=members,
        id=common,
        residual=residual,
        true_mm=true_mm,
        errors=errors,
        test_id=np.sort(test_ids),
        test_mm=test_mm,
        inputs={"/".join(file.parts[-3:]): sha256_file(file) for file in files},
        notes=tuple(notes),
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
                    fix="use the data folder that it was made for, or train it again on this one",
                )
    if stale:
        log.warning(
            f"trained on {PARTS['labels_sha256']} {whose}: {', '.join(sorted(stale))}: their errors are computed with "
            "the labels in use: train them again to learn from these"
        )


def _read_residuals(
    ordered: Sequence[Candidate], true: Poses, columns: int
) -> tuple[Int64, Float32, Float32, list[MemberErrors], list[str]]:
    """Return the Ids [N] that all candidates have, residuals [17, 3, columns, N], the truth in mm, errors and notes.

    Candidates are read one at a time into one array, which is nearly all of a blend's memory.
    """
    poses = read_out_of_fold(ordered[0], true)
    ids, common, most = poses.id, np.ones(len(poses.id), bool), len(poses.id)
    true_mm = true.pose_mm[np.searchsorted(true.id, ids)].astype(np.float32)
    residual = np.empty((len(JOINTS), len(AXES), columns, len(ids)), np.float32)
    notes = [f"{ordered[0].name} is the only candidate: the blend is a copy of it"] if len(ordered) == 1 else []
    seen: dict[str, str] = {}
    errors: list[MemberErrors] = []
    for place, candidate in enumerate(ordered):
        if place:
            poses = read_out_of_fold(candidate, true)
        pose_mm = poses.pose_mm.astype(np.float32)
        if len(poses.id) > 1 and not np.ptp(pose_mm, axis=0).any():
            notes.append(f"{candidate.name} predicts the same pose for every image")
        of_rows = true.pose_mm[np.searchsorted(true.id, poses.id)]
        errors.append(MemberErrors(name=candidate.name, mpjpe=mpjpe(poses.pose_mm, of_rows), rows=len(poses.id)))
        digest = hashlib.sha256(poses.id.tobytes() + pose_mm.tobytes()).hexdigest()
        if digest in seen:
            log.warning(f"{candidate.name} is a copy of {seen[digest]}: they share one weight")
        seen.setdefault(digest, candidate.name)
        common &= np.isin(ids, poses.id, assume_unique=True)
        if not common.any():
            raise RunError(
                f"{candidate.name} shares no out-of-fold Id with {ordered[0].name}", fix="blend runs of the same folds"
            )
        found = np.searchsorted(poses.id, ids[common])
        residual[:, :, place, common] = (pose_mm[found] - true_mm[common]).transpose(1, 2, 0)
        most = max(most, len(poses.id))
    if common.sum() < most:
        notes.append(
            f"the candidates share {common.sum()} of up to {most} out-of-fold rows: the weights are fitted on those"
        )
    if not common.all():
        residual, true_mm = np.ascontiguousarray(residual[..., common]), true_mm[common]
    return ids[common], residual, true_mm, errors, notes
