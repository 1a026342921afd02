"""The command line: one short handler a subcommand, which reads flags, makes one call and prints.

torch, timm and the like are imported inside the handlers, so that --help answers at once.
"""

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import models
from competition.config import Workspace
from competition.console import Console
from competition.errors import FoldsError, UserError, unknown
from competition.skeleton import JOINTS

FAILED, MENDABLE, INTERRUPTED, TERMINATED = 1, 2, 130, 143

Handler = Callable[[argparse.Namespace, Workspace, Console], int | None]


class Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code (see FAILED and the others above; 0 is done)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, _terminate)
    try:
        options = parse(arguments)
        workspace = Workspace(
            data=options.data, folds=options.folds, submissions=options.submissions, seed=options.seed
        )
        handler: Handler = options.handler
        return handler(options, workspace, Console()) or 0
    except UserError as error:
        return _say(f"error: {error}", MENDABLE, debug)
    except OSError as error:  # a full disk, a folder that can't be written
        where = f" ({error.filename})" if error.filename else ""
        return _say(f"error: {error.strerror or error}{where}: make room or mend the permissions", MENDABLE, debug)
    except KeyboardInterrupt:
        return _say("interrupted: the same command goes on where this one stopped", INTERRUPTED, debug)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; `train` has a flag for every setting of the recipe that --model names."""
    parser = Parser(prog="python -m competition", description="A competition toolkit for monocular 3D human pose.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="SUBCOMMAND", parser_class=Parser)
    for name, (handler, help_, add) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=help_,
            description=help_,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        _add_common(command)
        add(command, arguments)
        command.set_defaults(handler=handler)
    options, rest = parser.parse_known_args(arguments)
    if rest:
        known = [flag for action in commands.choices[options.command]._actions for flag in action.option_strings]
        raise UserError(f"{options.command}: {unknown('flag', rest[0].partition('=')[0], known)}")
    return options


def _add_common(parser: argparse.ArgumentParser) -> None:
    defaults = Workspace()
    parser.add_argument("--data", type=Path, default=defaults.data, metavar="DIR", help="the competition's folder")
    parser.add_argument("--folds", type=Path, default=defaults.folds, metavar="DIR", help="of folds.csv")
    parser.add_argument("--submissions", type=Path, default=defaults.submissions, metavar="DIR", help="of the runs")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="every random draw derives from it")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def _add_data(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--n", type=int, default=6000, help="training images")
    parser.add_argument("--n-test", type=int, default=1500, help="test images")
    parser.add_argument("--workers", type=int, default=None, help="processes; all cores when unset")


def data(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.synthetic.generate import generate

    generate(workspace.data, options.n, options.n_test, workspace.seed, options.workers)
    console.note(f"{workspace.data}: {options.n} training and {options.n_test} test images, made by this toolkit")
    console.note(f"look at {workspace.data / 'contact_sheet.jpg'}; scores on them are not Human3.6M scores")


def _add_check(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--all", action="store_true", help="decode every image, not a sample of 20,000")


def check(options: argparse.Namespace, workspace: Workspace, console: Console) -> int:
    from competition.check import check as look
    from competition.report import facts_table

    with console.bar("images", None) as advance:
        found = look(workspace.data, everything=options.all, advance=advance)
    console.table(facts_table(str(workspace.data), found.facts))
    for problem in found.problems:
        console.note(f"problem: {problem}")
    if not found.problems:
        console.note("nothing found that would make wrong results; next: make folds")
    return MENDABLE if found.problems else 0


def _add_folds(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--strategy", default="subject", help="subject, sequence or holdout (random rows: leaks)")
    parser.add_argument("--k", type=int, default=None, help="number of folds; as many as subjects when unset")
    parser.add_argument("--force", action="store_true", help="overwrite folds that runs were trained on")


def folds(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition import folds as make
    from competition.dataset import read_labels

    table = make.make_folds(
        read_labels(workspace.data).images, strategy=options.strategy, k=options.k, seed=workspace.seed
    )
    users = make.find_users(workspace.submissions, workspace.folds)
    written = make.write_folds(
        workspace.folds, table, strategy=options.strategy, seed=workspace.seed, users=users, force=options.force
    )
    for fold, rows in table[table["fold"] >= 0].groupby("fold"):
        held_out = f": {', '.join(sorted(rows['subject'].unique()))}" if options.strategy == "subject" else ""
        console.note(f"fold {fold} holds out {len(rows)} of {len(table)} images{held_out}")
    if options.strategy == "holdout":
        console.note("holdout leaks: neighbouring frames of the held-out images are trained on, so scores flatter")
    console.note(f"{workspace.folds / 'folds.csv'}: {'written' if written else 'there already, the same'}")


def _add_train(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("--model", required=True, metavar="NAME", help=f"one of {', '.join(models.names())}")
    parser.add_argument("--fold", default="all", metavar="K|all|full", help="full trains on everything")
    parser.add_argument("--run", default=None, metavar="NAME", help="folder of the run; the model's name when unset")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    parser.add_argument("--init", default=None, metavar="RUN", help="start from the best weights of this run")
    parser.add_argument(
        "--workers", type=int, default=None, help="processes that load images; by the device when unset"
    )
    joined = " ".join(arguments).replace("--model=", "--model ").split()
    named = [value for flag, value in pairwise(joined) if flag == "--model"][-1:]  # argparse, too, keeps the last
    if arguments[0] == "train" and named:
        if named[0] not in models.names():
            raise UserError(unknown("model", named[0], models.names()))
        _add_settings(parser, models.recipe(named[0]))


def _add_settings(parser: argparse.ArgumentParser, recipe: Any) -> None:
    """Give every setting of a recipe a flag; unset (None) means the recipe's own value."""
    group = parser.add_argument_group(f"settings of the recipe {type(recipe).__name__}")
    hints = get_type_hints(type(recipe))
    for setting in fields(recipe):
        flag, default, hint = f"--{setting.name.replace('_', '-')}", getattr(recipe, setting.name), hints[setting.name]
        if hint is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help="default %(default)s")
        else:
            group.add_argument(flag, type=_parser_of(hint), default=default, metavar="X", help="default %(default)s")


def _parser_of(hint: Any) -> Callable[[str], Any]:
    if get_origin(hint) is tuple:

        def numbers(text: str) -> tuple[Any, ...]:
            return tuple(get_args(hint)[0](part) for part in text.split(","))

        return numbers
    if type(None) in get_args(hint):
        inner = next(member for member in get_args(hint) if member is not type(None))

        def or_none(text: str) -> Any:
            return None if text == "none" else inner(text)

        return or_none
    convert: Callable[[str], Any] = hint
    return convert


def train(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    names = [setting.name for setting in fields(models.recipe(options.model))]
    try:
        recipe = models.recipe(options.model, **{name: getattr(options, name) for name in names})
    except ValueError as error:
        raise UserError(str(error)) from None
    console.note("loading torch")
    from competition.dataset import read_test
    from competition.device import choose_device, default_workers
    from competition.jobs import FULL, Job, fold_numbers
    from competition.runs import write_submission
    from competition.train import train as train_fold

    run = options.run or options.model
    workers = default_workers(choose_device()) if options.workers is None else options.workers
    every = fold_numbers(workspace)
    chosen: dict[str, list[int | str]] = {"all": [*every], FULL: [FULL]} | {str(k): [k] for k in every}
    if options.fold not in chosen:
        raise FoldsError(f"fold {options.fold}: expected {every[0]} to {every[-1]}, all or {FULL}")
    for fold in chosen[options.fold]:
        job = Job(
            workspace=workspace,
            name=options.model,
            recipe=recipe,
            fold=fold,
            run=run,
            precision=options.precision,
            workers=workers,
            init=options.init,
        )
        train_fold(job, console)
    if (written := write_submission(workspace.submissions, run, read_test(workspace.data).id)) is not None:
        file, best = written
        console.note(f"{run}: out-of-fold MPJPE {best.valid_mpjpe:.2f} mm at epoch {best.epoch}; test poses in {file}")
    console.note("next: make board, train another model, or make blend")


def _add_predict(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--run", required=True, metavar="NAME", help="whose kept weights to predict with")
    parser.add_argument("--epoch", type=int, default=None, help="the best of each fold when unset")
    parser.add_argument("--decoder", default=None, help="how coordinates are read off heatmaps: argmax, dark, local")
    parser.add_argument(
        "--workers", type=int, default=None, help="processes that load images; by the device when unset"
    )


def predict(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.device import choose_device, default_workers
    from competition.predict import predict_run

    folder, epoch, mpjpe = predict_run(
        workspace,
        options.run,
        epoch=options.epoch,
        decoder=options.decoder,
        workers=default_workers(choose_device()) if options.workers is None else options.workers,
        console=console,
    )
    console.note(f"{folder}: out-of-fold MPJPE {mpjpe:.2f} mm, as epoch {epoch}")


def _add_blend(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--runs", default=None, metavar="A,B", help="runs to blend; all when unset")
    parser.add_argument("--epochs", default="best", metavar="best|last|all|3,4", help="which epochs of each run")
    parser.add_argument("--method", default="optuna", help="optuna, exact, greedy, mean or median")
    parser.add_argument("--granularity", default="auto", help="auto, global, axis, joint or coordinate")
    parser.add_argument("--sampler", default="cmaes", help="of the Optuna search: cmaes or tpe")
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help="SUBMISSIONS/blend when unset")


def blend(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.blend import blend as blend_candidates
    from competition.dataset import parse_name, read_labels, read_test
    from competition.join import out_of_fold_mpjpe, select
    from competition.report import blend_table
    from competition.runs import candidates
    from competition.table import Poses

    labels = read_labels(workspace.data)
    true = Poses(labels.id, labels.pose_mm.astype("float64"))
    runs = None if options.runs is None else options.runs.split(",")
    chosen = select(
        candidates(workspace.submissions), runs, options.epochs, lambda candidate: out_of_fold_mpjpe(candidate, true)
    )
    names = [parse_name(image) for image in labels.images]
    sequences = [name.sequence for name in names if name is not None]
    with console.bar("search", len(JOINTS)) as advance:
        result = blend_candidates(
            chosen,
            true,
            read_test(workspace.data).id,
            options.out or workspace.submissions / "blend",
            method=options.method,
            granularity=options.granularity,
            sequences=sequences if len(sequences) == len(names) else None,
            sampler=options.sampler,
            seed=workspace.seed,
            progress=lambda what, done, _total: advance(int(done > 0), what),
        )
    console.table(blend_table(result.facts))
    for note in result.notes:
        console.note(note)
    console.note(f"{result.submission}; next: make score, or upload it")


def _add_score(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--file", type=Path, nargs="+", default=None, help="the blend when unset")
    parser.add_argument("--strict", action="store_true", help="also refuse what is in format but implausible")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the scores there (one --file)")


def score(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.files import write_json
    from competition.report import score_table
    from competition.score import record
    from competition.score import score as score_file

    files = options.file or [workspace.submissions / "blend" / "submission.csv.gz"]
    if options.json is not None and len(files) > 1:
        raise UserError(f"--json with {len(files)} files: expected one --file")
    for file in files:
        scores = score_file(workspace.data, file, strict=options.strict)
        record(workspace.submissions, file, scores)
        if len(files) == 1:
            console.table(score_table(str(file), scores))
        parts = [f"{key} {scores[key]:.2f}" for key in ("all", "public", "private") if scores[key] is not None]
        console.note(f"{file}: MPJPE in mm: {', '.join(parts)}")
        if options.json is not None:
            write_json(options.json, scores)


def _add_board(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--sort", default="out_of_fold", help="a column of the board")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the board there too")


def board(options: argparse.Namespace, workspace: Workspace, console: Console) -> None:
    from competition.files import write_json
    from competition.report import board_table
    from competition.score import board as read_board

    rows = read_board(workspace.submissions)
    if not rows:
        raise UserError(f"no runs under {workspace.submissions}: make train MODEL=3dhg-small")
    if options.sort not in rows[0]:
        raise UserError(unknown("column", options.sort, rows[0]))
    rows.sort(key=lambda row: (row[options.sort] is None, row[options.sort]))
    console.table(board_table(rows))
    if options.json is not None:
        write_json(options.json, rows)


COMMANDS: dict[str, tuple[Handler, str, Callable[[argparse.ArgumentParser, Sequence[str]], None]]] = {
    "data": (data, "make the embedded competition", _add_data),
    "check": (check, "look a competition's folder through; exit code 2 for what would make wrong results", _add_check),
    "folds": (folds, "decide which images are held out together", _add_folds),
    "train": (train, "train a model, one fold or all", _add_train),
    "predict": (predict, "predict again with the weights of a run, as a new run", _add_predict),
    "blend": (blend, "blend the runs' epochs into one submission", _add_blend),
    "score": (score, "score a CSV against the hidden answers of the embedded competition", _add_score),
    "board": (board, "list runs and blends with their scores", _add_board),
}


def _say(text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(text, file=sys.stderr)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)
