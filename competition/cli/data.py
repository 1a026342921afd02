"""The commands `data`, `check` and `folds`. Slow imports are inside the functions, so that --help answers at once."""

import logging
from functools import partial

from competition.cli.hints import next_line, render
from competition.cli.options import CheckOptions, DataOptions, FoldsOptions
from competition.common.console import active
from competition.common.errors import USER_ERROR, Command
from competition.common.workspace import Workspace

log = logging.getLogger(__name__)


def data(options: DataOptions, workspace: Workspace) -> None:
    from competition.synthetic.generate import generate

    generate(workspace.data, options.n, options.n_test, workspace.seed, options.workers)
    log.info(f"{workspace.data}: {options.n} synthetic training and {options.n_test} synthetic test images")
    log.info(f"samples: {workspace.data / 'contact_sheet.jpg'}; scores on these images are not Human3.6M scores")


def check(options: CheckOptions, workspace: Workspace) -> int:
    from competition.cli.tables import facts_table, faults_table, findings_json
    from competition.common.files import write_json
    from competition.data.check import check as check_data

    found = check_data(workspace.data, workspace.folds, all_images=options.all)
    as_command = partial(render, workspace=workspace)
    if options.json is not None:
        write_json(options.json, findings_json(found, as_command))
    active().table(facts_table(str(workspace.data), found, as_command))
    if found.problems or found.warnings:
        active().table(faults_table(found, workspace.data, as_command))
    if found.problems:
        again = render(Command("check"), workspace)
        log.info(f"problems that would make results wrong: {len(found.problems)}; fix the data, then run {again} again")
        return USER_ERROR
    command, note = Command("train"), ""
    if not found.folds_match and found.strategy == "subject":
        command = Command("folds")
    elif not found.folds_match:
        command = Command("folds", {"strategy": found.strategy})
        note = f", as the names contain {'no subjects' if found.strategy == 'sequence' else 'no groups to hold out'}"
    summary = f"warnings to review: {len(found.warnings)}" if found.warnings else "no problems found"
    log.info(f"{summary}; {next_line(workspace, command)}{note}")
    return 0


def folds(options: FoldsOptions, workspace: Workspace) -> None:
    import numpy as np

    from competition.data.dataset import Dataset
    from competition.data.folds import make_folds, write_folds
    from competition.data.leaks import split_instants, split_instants_fault
    from competition.runs.candidates import runs_using_folds

    labels = Dataset(workspace.data).labels
    table = make_folds(labels.images, strategy=options.strategy, k=options.k, seed=workspace.seed)
    users = runs_using_folds(workspace.submissions, workspace.folds)
    written = write_folds(
        workspace.folds, table, strategy=options.strategy, seed=workspace.seed, users=users, force=options.force
    )
    for fold, rows in table[table["fold"] >= 0].groupby("fold"):
        held_out = f": {', '.join(sorted(rows['subject'].unique()))}" if options.strategy == "subject" else ""
        log.info(f"fold {fold} holds out {len(rows)} of {len(table)} images{held_out}")
    if options.strategy == "sequence" and (unknown := int((table["subject"] == "").sum())):
        log.info(f"{unknown} image names contain no subject: the part before the frame number is the sequence")
    if options.strategy == "holdout":
        log.info("holdout leaks: neighbouring frames of held-out images are trained on, so scores are too good")
    elif (other := split_instants(labels.pose_mm, table["fold"].to_numpy(np.int64))).max() >= 0:
        fault = split_instants_fault(workspace.folds / "folds.csv", labels.images, other, options.strategy)
        log.warning(f"{fault}; run {render(fault.command, workspace)}" if fault.command else str(fault))
    log.info(f"{workspace.folds / 'folds.csv'}: {'written' if written else 'already exists with the same folds'}")
    log.info(next_line(workspace, Command("train")))
