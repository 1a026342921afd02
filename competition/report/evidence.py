"""Gathers what the report shows: the board, the labels, and the out-of-fold errors of each run's best epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from competition.common.arrays import Float64, Int64
from competition.common.errors import DataError
from competition.common.metrics import joint_errors
from competition.common.pose_csv import Poses
from competition.common.workspace import Workspace
from competition.data.dataset import Dataset
from competition.data.labels import Labels
from competition.data.names import ImageName, parse_name
from competition.leaderboard.board import BoardRow, board
from competition.report.rare import Rarity, find_rarity
from competition.runs.candidates import (
    Candidate,
    candidates,
    out_of_fold_mpjpe,
    read_out_of_fold,
    rescored,
    select,
)
from competition.runs.missing import expected_folds
from competition.runs.provenance import hashes_now, other_parts

MOST_RUNS: Final = 6  # more could not be distinguished in a chart


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The best epoch of a run and its out-of-fold errors, one row per image by ascending training Id."""

    candidate: Candidate
    id: Int64  # [n]
    error_mm: Float64  # [n, 17] distances
    axis_mm: Float64  # [n, 3] mean over joints of |error| along x, y, z

    @property
    def name(self) -> str:
        return f"{self.candidate.run}, epoch {self.candidate.epoch}"

    @cached_property
    def row_mm(self) -> Float64:
        """MPJPE of each row [n] in mm."""
        return np.asarray(self.error_mm.mean(axis=1))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All input of the sections."""

    workspace: Workspace
    dataset: Dataset
    board: list[BoardRow]
    candidates: list[Candidate]
    labels: Labels | None
    why_empty: str  # why there are no entries; "" if there are some
    entries: list[Entry]  # at most MOST_RUNS: runs with all folds first, then by MPJPE
    notes: list[str]  # one sentence each
    synthetic: bool

    @cached_property
    def names(self) -> list[ImageName] | None:
        """The parsed names of the labelled images; None if one doesn't follow the pattern."""
        images = [] if self.labels is None else self.labels.images
        parsed = [name for image in images if (name := parse_name(image)) is not None]
        return parsed if len(parsed) == len(images) else None

    @cached_property
    def rarity(self) -> Rarity | str:
        """The rarity of the poses of the first entry; the reason if it can't be measured."""
        if self.labels is None or not self.entries:
            return self.why_empty
        return find_rarity(self.labels, self.names, self.entries[0].id, self.workspace.seed)

    @cached_property
    def runs(self) -> list[str]:
        """All runs with a complete epoch, those of `entries` first, so that each has one colour in all charts."""
        runs = [entry.candidate.run for entry in self.entries]
        return [*runs, *sorted({candidate.run for candidate in self.candidates} - set(runs))]

    def read_poses(self, entry: Entry) -> Poses:
        """Read the out-of-fold poses of an entry from its files; they are too large to keep in memory."""
        return read_out_of_fold(entry.candidate, self.dataset.true)


def gather(workspace: Workspace) -> Evidence:
    """Read everything available; without readable labels there are no entries, and `why_empty` holds the reason."""
    found, dataset = candidates(workspace.submissions), Dataset(workspace.data)
    labels, why_empty = None, "No run has out-of-fold poses in all its folds yet."
    entries: list[Entry] = []
    notes: list[str] = []
    try:
        labels = dataset.labels
    except DataError as error:
        why_empty = f"The labels can't be read ({error})."
    if labels is not None:
        now = hashes_now(dataset, None, [candidate.provenance for candidate in found])
        found = rescored(found, now, lambda candidate: out_of_fold_mpjpe(candidate, dataset.true))
        known = [c for c in found if "images_sha256" not in other_parts(c.provenance, now)]
        for run in sorted({c.run for c in found} - {c.run for c in known}):
            notes.append(f"{run} was trained on other images than those in {workspace.data}: its errors are left out.")
        if known:
            entries, further = _entries(known, dataset.true, workspace)
            why_empty = ""
            notes += further
    return Evidence(
        workspace=workspace,
        dataset=dataset,
        board=board(workspace.submissions, workspace.folds, dataset),
        candidates=found,
        labels=labels,
        why_empty=why_empty,
        entries=entries,
        notes=notes,
        synthetic=dataset.is_synthetic,
    )


def _entries(known: Sequence[Candidate], true: Poses, workspace: Workspace) -> tuple[list[Entry], list[str]]:
    """Evaluate the best epoch of each run; return the entries and notes about them."""
    runs = [candidate.run for candidate in known]
    scored = [
        (len(c.valid_files) < (expected_folds(workspace.submissions / c.run, workspace.folds) or 0), mpjpe, c)
        for c in select(known, runs, score=lambda candidate: out_of_fold_mpjpe(candidate, true))
        if (mpjpe := out_of_fold_mpjpe(c, true) if c.valid_mpjpe is None else c.valid_mpjpe) is not None
    ]
    chosen = [c for _, _, c in sorted(scored, key=lambda item: (item[0], item[1], item[2].run))]
    notes = [
        f"{c.run}: its folds can't be verified, so its out-of-fold errors may be too low."
        for c in chosen[:MOST_RUNS]
        if not c.verified
    ]
    if len(chosen) > MOST_RUNS:
        notes.append(f"Error charts show the best {MOST_RUNS} of {len(chosen)} runs.")
    entries = []
    for candidate in chosen[:MOST_RUNS]:
        poses = read_out_of_fold(candidate, true)
        of_rows = true.pose_mm[poses.id - 1]  # row i has Id i + 1
        axis_mm = np.abs(poses.pose_mm - of_rows).mean(axis=1)
        entries.append(
            Entry(candidate=candidate, id=poses.id, error_mm=joint_errors(poses.pose_mm, of_rows), axis_mm=axis_mm)
        )
    if len({len(entry.id) for entry in entries}) > 1:
        rows = ", ".join(f"{entry.candidate.run} {len(entry.id):,}" for entry in entries)
        notes.append(f"Runs have different numbers of out-of-fold images: {rows}.")
    return entries, notes
