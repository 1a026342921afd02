"""The command `blend`: what it reads, checks and tells; of runs, or of files of which nothing else is known."""

import argparse
from pathlib import Path

from competition.blending import blend
from competition.cli.hints import with_knobs
from competition.cli.tables import blend_table
from competition.common.console import Console
from competition.common.errors import UserError
from competition.common.pose_csv import Poses
from competition.common.skeleton import JOINTS
from competition.common.workspace import Workspace
from competition.data.labels import read_labels, read_test
from competition.data.names import name_groups
from competition.runs.candidates import candidates, describe_missing_folds, out_of_fold_mpjpe, refitted, select
from competition.runs.folders import run_folders
from competition.runs.provenance import provenance


def blend_files(options: argparse.Namespace, workspace: Workspace, console: Console, out: Path) -> Path:
    """Blend CSVs of which no out-of-fold poses are known."""
    if options.runs or options.refit or options.virtual or options.granularity != "auto":
        raise UserError("--files with --runs, --refit, --virtual or --granularity: expected files alone")
    if options.epochs != "best" or (options.shares is not None and options.method != "optuna"):
        raise UserError("--files with --epochs, or --shares with --method: files have one epoch, shares say how")
    if options.out is None and (out / "weights.csv").exists():
        raise UserError(f"{out} holds a blend of runs, which --files would write over: --out {out}-files keeps both")
    shares = options.shares
    method = "mean" if options.method == "optuna" else options.method  # the default can't be meant
    test = read_test(workspace.data)
    made = provenance(workspace.data, test)
    written = blend.blend_files(options.files, test.id, out, method=method, shares=shares, provenance=made)
    names = list(map(str, options.files))
    of = [f"{share / sum(shares):.3f} {name}" for share, name in zip(shares, names, strict=True)] if shares else names
    console.note(f"the {method} of " * (shares is None) + ", ".join(of) + ": nothing is known of its error")
    return written


def blend_runs(options: argparse.Namespace, workspace: Workspace, console: Console, out: Path) -> Path:
    """Blend the epochs of runs, with the weights that their out-of-fold poses bear."""
    labels, test = read_labels(workspace.data), read_test(workspace.data)
    true = Poses(labels.id, labels.pose_mm.astype("float64"))
    runs = None if options.runs is None else options.runs.split(",")
    found = candidates(workspace.submissions)
    _tell_half_trained({candidate.run for candidate in found}, runs, workspace, console)
    chosen = select(found, runs, options.epochs, lambda candidate: out_of_fold_mpjpe(candidate, true))
    if options.refit:
        chosen = [refitted(candidate) for candidate in chosen]
    subjects, sequences = name_groups(labels.images)
    with console.bar("search", len(JOINTS)) as advance:
        result = blend.blend(
            chosen,
            true,
            test.id,
            out,
            method=options.method,
            granularity=options.granularity,
            subjects=subjects,
            sequences=sequences,
            virtual=options.virtual,
            images_sha256=labels.images_sha256,
            provenance=provenance(workspace.data, test, labels, chosen[0].folds_sha256),
            sampler=options.sampler,
            seed=workspace.seed,
            progress=lambda what, done, _total: advance(int(done > 0), what),
        )
    console.table(blend_table(result.facts))
    for note in result.notes:
        console.note(note)
    return result.submission


def _tell_half_trained(whole: set[str], runs: list[str] | None, workspace: Workspace, console: Console) -> None:
    """Name the runs that lack folds; raise UserError for one without an epoch that was asked for, or is all."""
    for name in runs or [folder.name for folder in run_folders(workspace.submissions)]:
        lacking = describe_missing_folds(workspace.submissions / name, workspace.folds)
        if lacking and name in whole:
            console.note(with_knobs(f"{name} is blended on the folds it has: {lacking}", workspace))
        elif lacking and (runs or not whole):
            nothing = "" if runs else "nothing to blend: "
            raise UserError(f"{nothing}run {name} has no epoch of all its folds: {lacking}")
