"""The command `blend`: reads and checks its inputs, blends runs or CSV files, and prints the results."""

from dataclasses import asdict
from pathlib import Path

from competition.blending import blend
from competition.cli.hints import complete_commands
from competition.cli.options import BlendOptions
from competition.cli.tables import blend_table
from competition.common.console import Console
from competition.common.errors import UserError
from competition.common.pose_csv import Poses
from competition.common.skeleton import JOINTS
from competition.common.workspace import Workspace
from competition.data.dataset import Dataset
from competition.data.labels import read_labels, read_test
from competition.data.names import subjects_and_sequences
from competition.runs.candidates import candidates, describe_missing_folds, out_of_fold_mpjpe, refitted, select
from competition.runs.folders import run_folders
from competition.runs.provenance import provenance


def blend_files(options: BlendOptions, workspace: Workspace, console: Console, out: Path) -> Path:
    """Blend CSVs that have no out-of-fold poses, so that no error can be estimated."""
    assert options.files is not None
    if options.runs or options.refit or options.virtual or options.granularity != "auto":
        raise UserError(
            "--files with --runs, --refit, --virtual or --granularity: expected --files without these flags"
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
    test = read_test(workspace.data)
    made = asdict(provenance(Dataset(workspace.data), with_labels=False))
    written = blend.blend_files(options.files, test.id, out, method=method, shares=shares, provenance=made)
    names = list(map(str, options.files))
    parts = names
    if shares:
        parts = [f"{share / sum(shares):.3f} {name}" for share, name in zip(shares, names, strict=True)]
    console.note(
        f"the {method} of " * (shares is None)
        + ", ".join(parts)
        + ": the blend's error is unknown without out-of-fold poses"
    )
    return written


def blend_runs(options: BlendOptions, workspace: Workspace, console: Console, out: Path) -> Path:
    """Blend epochs of runs, with weights fitted on their out-of-fold poses."""
    labels, test = read_labels(workspace.data), read_test(workspace.data)
    true = Poses(labels.id, labels.pose_mm.astype("float64"))
    runs = None if options.runs is None else options.runs.split(",")
    found = candidates(workspace.submissions)
    _check_missing_folds({candidate.run for candidate in found}, runs, workspace, console)
    chosen = select(found, runs, options.epochs, lambda candidate: out_of_fold_mpjpe(candidate, true))
    if options.refit:
        chosen = [refitted(candidate) for candidate in chosen]
    subjects, sequences = subjects_and_sequences(labels.images)
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
            provenance=asdict(provenance(Dataset(workspace.data), chosen[0].folds_sha256)),
            sampler=options.sampler,
            seed=workspace.seed,
            progress=lambda what, done, _total: advance(int(done > 0), what),
        )
    console.table(blend_table(result.facts))
    for note in result.notes:
        console.note(note)
    return result.submission


def _check_missing_folds(complete: set[str], runs: list[str] | None, workspace: Workspace, console: Console) -> None:
    """Warn about runs with missing folds; raise UserError where such a run can't be blended at all.

    `complete` names the runs with at least one candidate; `runs` is the user's choice, None for all.
    """
    for name in runs or [folder.name for folder in run_folders(workspace.submissions)]:
        missing = describe_missing_folds(workspace.submissions / name, workspace.folds)
        if missing and name in complete:
            console.note(complete_commands(f"warning: run {name} is blended without some folds: {missing}", workspace))
        elif missing and (runs or not complete):
            nothing = "" if runs else "nothing to blend: "
            raise UserError(f"{nothing}run {name} has no epoch that is complete in all its folds: {missing}")
