"""One handler per subcommand: each reads its flags, makes one call and prints the result.

Slow imports such as torch and timm are inside the handlers, so that --help answers at once.
"""

import argparse
from collections import defaultdict
from dataclasses import fields
from functools import partial

import models
from competition.blending.options import check_blend
from competition.cli.hints import complete_commands
from competition.common.console import Console
from competition.common.errors import FoldsError, UserError, unknown_message
from competition.common.workspace import Workspace

USER_ERROR = 2  # exit code for errors that the user can fix


def data(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.synthetic.generate import generate

    generate(workspace.data, options.n, options.n_test, workspace.seed, options.workers)
    console.note(f"{workspace.data}: {options.n} synthetic training and {options.n_test} synthetic test images")
    console.note(f"samples: {workspace.data / 'contact_sheet.jpg'}; scores on these images are not Human3.6M scores")


def check(options: argparse.Namespace, workspace: Workspace, console: Console) -> int:
    from competition.cli.tables import facts_table, faults_table
    from competition.data.check import check as check_data

    with console.bar("images", None) as advance:
        found = check_data(workspace.data, workspace.folds, all_images=options.all, advance=advance)
    complete = partial(complete_commands, workspace=workspace)
    console.table(facts_table(str(workspace.data), found.facts, complete))
    if found.problems or found.warnings:
        console.table(faults_table(found.problems, found.warnings, workspace.data, complete))
    if found.problems:
        advice = "fix the data, then run `make check` again"
        console.note(complete(f"problems that would make results wrong: {len(found.problems)}; {advice}"))
        return USER_ERROR
    command, note = "train", ""
    if not found.folds_match:
        command = "folds"
        if not found.names_match:
            command, note = 'folds ARGS="--strategy sequence"', " or holdout: the image names contain no subjects"
    summary = f"warnings to review: {len(found.warnings)}" if found.warnings else "no problems found"
    console.note(complete(f"{summary}; next: `make {command}`{note}"))
    return 0


def folds(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.data.folds import make_folds, write_folds
    from competition.data.labels import read_labels
    from competition.runs.candidates import runs_using_folds

    table = make_folds(read_labels(workspace.data).images, strategy=options.strategy, k=options.k, seed=workspace.seed)
    users = runs_using_folds(workspace.submissions, workspace.folds)
    written = write_folds(
        workspace.folds, table, strategy=options.strategy, seed=workspace.seed, users=users, force=options.force
    )
    for fold, rows in table[table["fold"] >= 0].groupby("fold"):
        held_out = f": {', '.join(sorted(rows['subject'].unique()))}" if options.strategy == "subject" else ""
        console.note(f"fold {fold} holds out {len(rows)} of {len(table)} images{held_out}")
    if options.strategy == "sequence" and (unknown_subject := int((table["subject"] == "").sum())):
        console.note(
            f"{unknown_subject} image names contain no subject: the part before the frame number is the sequence"
        )
    if options.strategy == "holdout":
        console.note("holdout leaks: neighbouring frames of held-out images are trained on, so scores are too good")
    console.note(f"{workspace.folds / 'folds.csv'}: {'written' if written else 'already exists with the same folds'}")


def train(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    names = [setting.name for setting in fields(models.recipe(options.model))]
    try:
        recipe = models.recipe(options.model, **{name: getattr(options, name) for name in names})
    except ValueError as error:
        raise UserError(str(error)) from None
    run = options.run or options.model
    workspace.run(run)
    if options.init is not None and not workspace.run(options.init).is_dir():
        raise UserError(f"--init {options.init}: no run at {workspace.run(options.init)}; `make board` lists the runs")
    from competition.data.labels import read_test
    from competition.runs.candidates import write_submission
    from competition.runs.folders import FULL
    from competition.training.jobs import Job, fold_numbers
    from competition.training.parallel import is_torchrun_worker, train_folds

    numbers = fold_numbers(workspace)
    chosen: dict[str, list[int | str]] = {"all": [*numbers], FULL: [FULL]} | {str(k): [k] for k in numbers}
    if options.fold not in chosen:
        raise FoldsError(f"fold {options.fold}: expected {numbers[0]} to {numbers[-1]}, all or {FULL}")
    jobs = [
        Job(
            workspace=workspace,
            name=options.model,
            recipe=recipe,
            fold=fold,
            run=run,
            precision=options.precision,
            workers=options.workers,
            init=options.init,
            checkpoint_minutes=options.checkpoint_minutes,
            sync_batch_norm=options.sync_batch_norm,
            compile=options.compile,
        )
        for fold in chosen[options.fold]
    ]
    if not is_torchrun_worker():
        console.note(f"{run}: loading torch")
    train_folds(jobs, console, parallel=options.parallel, gpus=options.gpus, arguments=options.arguments)
    if is_torchrun_worker():
        return
    if options.fold == FULL:
        last = sorted(jobs[0].folder.glob("test_epoch*"))[-1]
        console.note(f"{run}: trained on all images, without validation; test poses of the last epoch: {last}")
    elif (written := write_submission(workspace.submissions, run, read_test(workspace.data).id)) is not None:
        file, best = written
        console.note(f"{run}: out-of-fold MPJPE {best.valid_mpjpe:.2f} mm at epoch {best.epoch}; test poses: {file}")
    console.note(complete_commands("next: `make board`, train another model, or `make blend`", workspace))


def predict(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    if not workspace.run(options.run).is_dir():
        raise UserError(f"no run at {workspace.run(options.run)}; `make board` lists the runs")
    if options.image is not None:
        _predict_photo(options, workspace, console)
        return
    if options.box is not None or options.out is not None:
        raise UserError("--box or --out without --image: add the photo, such as --image photo.jpg")
    from competition.training.predict_run import predict_run

    folder, epoch, mpjpe = predict_run(
        workspace,
        options.run,
        epoch=options.epoch,
        decoder=options.decoder,
        flip=options.flip,
        workers=options.workers,
        console=console,
    )
    console.note(f"{folder}: out-of-fold MPJPE {mpjpe:.2f} mm, stored as epoch {epoch}")


def _predict_photo(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    if not options.image.is_file():
        raise UserError(f"--image: no such file: {options.image}")
    from competition.report.photo import write_photo
    from competition.training.photo import predict_photo

    found = predict_photo(
        workspace,
        options.run,
        options.image,
        box=options.box,
        epoch=options.epoch,
        decoder=options.decoder,
        flip=options.flip,
    )
    folder = options.out or workspace.run(options.run) / "photos"
    written = write_photo(folder, options.image, options.box, found.trained, found.crop, found.pose_px, found.pose_mm)
    console.note(f"predicted by {found.trained}")
    console.note("mm relative to the pelvis: x right, y down, z away; the distance to the camera is not estimated")
    console.note(f"joints: {written.table}; picture: {written.picture}; 3D view: {written.page}")


def blend(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    check_blend(options.method, options.granularity)
    if options.files is None and options.shares is not None:
        raise UserError("--shares without --files: expected --files, as the weights of runs are fitted (--method)")
    from competition.cli.blend import blend_files, blend_runs

    blended = blend_runs if options.files is None else blend_files
    written = blended(options, workspace, console, options.out or workspace.submissions / "blend")
    file = "" if written == workspace.submissions / "blend" / written.name else f" FILE={written}"
    console.note(complete_commands(f"{written}; next: `make score{file}`, `make submit{file}`", workspace))


def score(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.cli.tables import score_table
    from competition.common.files import write_json
    from competition.leaderboard.score import score as score_file
    from competition.leaderboard.scores import describe_ranks, record_score

    files = options.file or [workspace.submissions / "blend" / "submission.csv.gz"]
    if options.json is not None and len(files) > 1:
        raise UserError(f"--json with {len(files)} files: expected one --file")
    for file in files:
        scores = score_file(workspace.data, file, strict=options.strict)
        record_score(workspace.submissions, file, scores)
        if len(files) == 1:
            console.table(score_table(str(file), scores))
        parts = [f"{key} {scores[key]:.2f}" for key in ("all", "public", "private") if scores[key] is not None]
        console.note(f"{file}: MPJPE in mm: {', '.join(parts)}")
        if options.json is not None:
            write_json(options.json, scores)
    for file in files:
        if place := describe_ranks(workspace.submissions, file):
            console.note(f"{file}: {place}")


def board(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.cli.tables import board_table
    from competition.common.files import write_json
    from competition.leaderboard.board import board as read_board
    from competition.leaderboard.board import warnings
    from competition.report.links import link_rows

    rows = read_board(workspace.submissions, workspace.folds)
    if not rows:
        raise UserError(f"no runs under {workspace.submissions}: train one with `make train MODEL=3dhg-small`")
    if options.sort not in rows[0]:
        raise UserError(unknown_message("column", options.sort, rows[0]))
    rows.sort(key=lambda row: (row[options.sort] is None, row[options.sort]))
    report = workspace.submissions / "report.html"
    link_rows(rows, report)
    console.table(board_table(rows, console.rich.width))
    unscored = defaultdict(list)
    for row in rows:
        unscored[row["why"]].append(row["name"])
    for why, names in unscored.items():
        if why:
            console.note(complete_commands(f"no out-of-fold score: {', '.join(names)}: {why}", workspace))
    for line in warnings(rows, workspace.submissions / "ledger.csv"):
        console.note(line)
    if linked := [row["name"] for row in rows if row["link"]]:
        console.note(f"report: {report}#run-{linked[0]}, and likewise for the other names")
    elif not report.exists():
        console.note(complete_commands("charts and images: `make report`", workspace))
    if options.json is not None:
        write_json(options.json, rows)


def bench(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.bench.suite import run as run_benchmarks
    from competition.cli.tables import bench_table
    from competition.common.files import write_json

    rows = []
    for name, found in run_benchmarks(options.only.split(",") if options.only else None):
        rows += found
        console.note(f"{name}: " + ", ".join(f"{row.name} ratio {row.ratio:.3g}" for row in found))
    console.table(bench_table(rows))
    if options.json is not None:
        write_json(options.json, [row._asdict() for row in rows])


def submit(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.leaderboard.submit import submit as upload

    def confirm(question: str) -> bool:
        console.note(question)
        if options.yes:
            return True
        try:
            return console.ask("upload it? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            raise UserError("submit asks for confirmation, but there is no terminal: add --yes or YES=1") from None

    file = options.file or workspace.submissions / "blend" / "submission.csv.gz"
    competition, message = options.competition, options.message
    upload(workspace, file, competition=competition, message=message, confirm=confirm, note=console.note)


def verify(options: argparse.Namespace, workspace: Workspace, console: Console) -> int:
    from competition.runs.verify import verify as verify_folder

    correct, wrong = verify_folder(workspace, options.folder)
    for line in correct:
        console.note(line)
    for line in wrong:
        console.note(f"wrong: {line}")
    return USER_ERROR if wrong else 0


def reproduce(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.cli.reproduce import reproduce as run_all
    from competition.cli.tables import poster_table
    from competition.common.files import write_json

    rows = run_all(workspace, options.scale, console, fold=options.fold, parallel=options.parallel)
    console.table(poster_table(rows, str(workspace.data)))
    if options.json is not None:
        write_json(options.json, rows)


def report(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.report.compose import SECTIONS, write_report

    with console.bar("report", len(SECTIONS)) as advance:
        written = write_report(workspace, options.out or workspace.submissions / "report.html", advance)
    console.note(f"{written} (open it in a browser)")
