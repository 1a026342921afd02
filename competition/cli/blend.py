"""The command `blend`: reads and checks its inputs, blends runs or CSV files, and prints the results."""

import logging
from pathlib import Path

from competition.blending import csv_blend
from competition.blending.blend import blend_dataset
from competition.cli.hints import render
from competition.cli.options import BlendOptions
from competition.cli.tables import blend_table, members_table
from competition.common.arrays import Int64
from competition.common.choices import EPOCHS
from competition.common.console import active
from competition.common.errors import FoldsError, UserError
from competition.common.workspace import Workspace
from competition.data.dataset import Dataset
from competition.data.folds import read_folds
from competition.runs.candidates import (
    Candidate,
    candidates,
    out_of_fold_mpjpe,
    predicted_from,
    refitted,
    rescored,
    select,
)
from competition.runs.folders import epoch_files, fold_folders, run_folders
from competition.runs.misnamed import misnamed
from competition.runs.missing import describe_missing, describe_shortened, missing_files, missing_folds, shortened_logs
from competition.runs.origin import check_test_set
from competition.runs.provenance import has_other_labels, hashes_now, provenance

log = logging.getLogger(__name__)


def blend_files(options: BlendOptions, workspace: Workspace, out: Path) -> Path:
    """Blend CSVs that have no out-of-fold poses, so that no error can be estimated."""
    assert options.files is not None
    if options.runs or options.refit or options.stack or options.views or options.granularity != "auto":
        raise UserError(
            "--files with --runs, --refit, --stack, --views or --granularity: expected --files without these flags"
        )
    if options.epochs != "best" or (options.shares is not None and options.method != "optuna"):
        raise UserError(
            "--files with --epochs, or with both --shares and --method: expected --files without --epochs and with at "
            "most one of --shares and --method"
        )
    if options.out is None and (out / "weights.csv").exists():
        raise UserError(
            f"{out} holds a blend of runs, which --files would overwrite: choose another --out, such as {out}-files"
        )
    shares = options.shares
    method = "mean" if options.method == "optuna" else options.method  # optuna is the default, and needs runs
    dataset = Dataset(workspace.data)
    for file in options.files:
        check_test_set(file, dataset)
    made = provenance(dataset, with_labels=False)
    written = csv_blend.blend_files(
        options.files,
        dataset.test.id,
        out,
        method=method,
        shares=shares,
        provenance=made,
        submissions=workspace.submissions,
    )
    names = list(map(str, options.files))
    parts = names
    if shares:
        parts = [f"{share / sum(shares):.3f} {name}" for share, name in zip(shares, names, strict=True)]
    what = f"the {method} of " if shares is None else ""
    log.info(f"{what}{', '.join(parts)}: the blend's error is unknown without out-of-fold poses")
    return written


def blend_runs(options: BlendOptions, workspace: Workspace, out: Path) -> Path:
    """Blend epochs of runs, with weights fitted on their out-of-fold poses."""
    dataset = Dataset(workspace.data)
    true = dataset.true
    runs = None if options.runs is None else options.runs.split(",")
    if runs and (options.views or options.stack):
        _check_out_of_fold(runs, workspace)
    found = candidates(workspace.submissions)
    now = hashes_now(dataset, None, [candidate.provenance for candidate in found])
    stale = {candidate.run for candidate in found if has_other_labels(candidate.provenance, now)}
    found = rescored(found, now, lambda _: None)  # `select` computes those that it compares
    complete = {candidate.run for candidate in found}
    _check_names(complete, runs, workspace)
    names = [name for name in runs or _trained_runs(workspace) if options.epochs != "best" or name not in stale]
    missing = _check_missing_files(names, options.epochs, workspace)
    _check_missing_folds(complete, runs, workspace)
    chosen = select(found, runs, options.epochs, lambda candidate: out_of_fold_mpjpe(candidate, true))
    _note_skipped(chosen, options.epochs, missing)
    if options.refit:
        chosen = [refitted(candidate) for candidate in chosen]
    result = blend_dataset(
        chosen,
        dataset,
        out,
        method=options.method,
        granularity=options.granularity,
        stack=options.stack,
        views=options.views,
        fold_of_row=None if all(candidate.verified for candidate in chosen) else _fold_of_row(workspace, dataset),
        sampler=options.sampler,
        seed=workspace.seed,
        submissions=workspace.submissions,
    )
    active().table(members_table(result.record.members))
    active().table(blend_table(result.record))
    for note in result.notes:
        log.info(note)
    return result.submission


def _trained_runs(workspace: Workspace) -> list[str]:
    """Return the names of all runs, complete or not, except those predicted with the networks of others."""
    return [folder.name for folder in run_folders(workspace.submissions) if predicted_from(folder) is None]


def _check_out_of_fold(names: list[str], workspace: Workspace) -> None:
    """Raise UserError for a run that has test poses, but no out-of-fold poses."""
    for name in names:
        files = [epoch_files(folder) for folder in fold_folders(workspace.submissions / name)]
        if any(test for _, test in files) and not any(valid for valid, _ in files):
            raise UserError(
                f"run {name} has test poses, but no out-of-fold poses, on which --stack and --views are fitted",
                fix="add valid_epoch01.npz (arrays id, pose), or choose other runs with --runs",
            )


def _check_names(complete: set[str], runs: list[str] | None, workspace: Workspace) -> None:
    """Warn about files that are ignored because of their names; raise RunError if they are all that a run has."""
    for found in misnamed(workspace.submissions, runs):
        if runs and found.run not in complete:
            raise found.error
        log.warning(str(found))


def _check_missing_files(names: list[str], epochs: str, workspace: Workspace) -> set[str]:
    """Warn about files without which an epoch is left out; return the names of these epochs, run:epoch."""
    names_of_epochs = set()
    for name in names:
        if logs := shortened_logs(workspace.submissions / name):
            log.warning(describe_shortened(name, logs))
        missing = missing_files(workspace.submissions / name, epochs)
        if missing:
            log.warning(describe_missing(name, missing))
        names_of_epochs |= {f"{name}:{epoch}" for epoch in missing.values()}
    return names_of_epochs


def _note_skipped(chosen: list[Candidate], epochs: str, missing: set[str]) -> None:
    """Print which of the numbered epochs some runs lack, unless that was warned about."""
    if epochs in EPOCHS:
        return
    wanted = {f"{candidate.run}:{int(epoch)}": None for candidate in chosen for epoch in epochs.split(",")}
    skipped = [name for name in wanted if name not in missing.union(candidate.name for candidate in chosen)]
    if skipped:
        log.info(f"skipped, as their runs have no such epoch that is complete in all folds: {', '.join(skipped)}")


def _fold_of_row(workspace: Workspace, dataset: Dataset) -> Int64 | None:
    """Return the fold of every training row; None if FOLDS doesn't hold folds of this data."""
    try:
        return read_folds(workspace.folds, dataset.images_sha256)[0]
    except FoldsError:
        return None


def _check_missing_folds(complete: set[str], runs: list[str] | None, workspace: Workspace) -> None:
    """Warn about runs with missing folds; raise UserError where such a run can't be blended at all.

    `complete` names the runs with at least one candidate; `runs` is the user's choice, None for all.
    """
    for name in runs or _trained_runs(workspace):
        missing = missing_folds(workspace.submissions / name, workspace.folds)
        if missing is None:
            continue
        advice = "resume with the same flags"
        if name in complete:
            command = render(missing.command, workspace)
            log.warning(f"run {name} is blended without some folds: {missing}: {advice}: {command}")
        elif not runs and complete:
            log.info(f"run {name} is left out, as no epoch is complete in all its folds: {missing}")
        else:
            nothing = "" if runs else "nothing to blend: "
            raise UserError(
                f"{nothing}run {name} has no epoch that is complete in all its folds: {missing}",
                fix=advice,
                command=missing.command,
            )
