"""The flags of every subcommand, and its handler in commands.py."""

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import models
from competition.blending.options import GRANULARITIES, METHODS, SAMPLERS
from competition.cli import commands
from competition.cli.settings import add_settings
from competition.common.choices import check_epochs, numbers, one_of, parse_box
from competition.common.console import Console
from competition.common.errors import UserError, unknown_message
from competition.common.workspace import Workspace
from competition.training.options import PRECISIONS
from models.recipes import DECODERS

Handler = Callable[[argparse.Namespace, Workspace, Console], int | None]


class Parser(argparse.ArgumentParser):
    """Reports errors as a UserError of one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds defaults to help texts, except for switches and flags that are unset by default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or "(default: " in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; `train` has a flag for every setting of the recipe that --model names."""
    description = "A competition toolkit for monocular 3D human pose estimation: data, folds, training, blend, upload."
    parser = Parser(
        prog="python -m competition",
        description=description,
        epilog="Each subcommand lists its flags: python -m competition SUBCOMMAND --help",
    )
    subcommands = parser.add_subparsers(
        dest="command", required=True, title="subcommands", metavar="<SUBCOMMAND>", parser_class=Parser
    )
    for name, (handler, help_, add) in COMMANDS.items():
        command = subcommands.add_parser(
            name,
            help=help_,
            description=f"{help_[0].upper()}{help_[1:]}.",
            allow_abbrev=False,
            formatter_class=Help,
        )
        _add_common(command)
        add(command, arguments)
        command.set_defaults(handler=handler)
    options, rest = parser.parse_known_args(arguments)
    if rest:
        known = [flag for action in subcommands.choices[options.command]._actions for flag in action.option_strings]
        raise UserError(f"{options.command}: {unknown_message('flag', rest[0].partition('=')[0], known)}")
    return options


def _add_common(parser: argparse.ArgumentParser) -> None:
    defaults = Workspace()
    common = parser.add_argument_group("common flags (not every command uses all of them)")
    common.add_argument(
        "--data", type=Path, default=defaults.data, metavar="DIR", help="folder of the competition's images and labels"
    )
    common.add_argument("--folds", type=Path, default=defaults.folds, metavar="DIR", help="folder of folds.csv")
    help_ = "folder of runs, blends and scores"
    common.add_argument("--submissions", type=Path, default=defaults.submissions, metavar="DIR", help=help_)
    help_ = "root seed, from which all random numbers derive"
    common.add_argument("--seed", type=int, default=defaults.seed, metavar="N", help=help_)
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")


def _add_choice(parser: argparse.ArgumentParser, flag: str, known: Sequence[str], help_: str) -> None:
    """Add a flag that takes one of the known words; the first is its default."""
    check = one_of(flag.removeprefix("--"), known)
    parser.add_argument(flag, type=check, default=known[0], metavar="|".join(known), help=help_)


def _add_data(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--n", type=int, default=6000, metavar="N", help="number of training images")
    parser.add_argument("--n-test", type=int, default=1500, metavar="N", help="number of test images")
    help_ = "number of processes that generate images; one per core when unset"
    parser.add_argument("--workers", type=int, default=None, metavar="N", help=help_)


def _add_check(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--all", action="store_true", help="decode every image instead of a sample of 20,000")
    help_ = "also write problems, warnings and facts as JSON"
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help=help_)


def _add_folds(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    help_ = "hold out whole subjects, whole sequences, or random images (holdout: neighbouring frames leak)"
    parser.add_argument("--strategy", default="subject", metavar="subject|sequence|holdout", help=help_)
    help_ = "number of folds; when unset, one per subject, or 5 with --strategy sequence; holdout always has one"
    parser.add_argument("--k", type=int, default=None, metavar="K", help=help_)
    parser.add_argument("--force", action="store_true", help="overwrite folds even when runs were trained on them")


def _add_train(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("--model", required=True, metavar="NAME", help=f"model to train: {', '.join(models.names())}")
    help_ = "fold to hold out; all: each fold in turn; full: train on every image, hold out nothing"
    parser.add_argument("--fold", default="all", metavar="K|all|full", help=help_)
    help_ = "name of the run, and of its folder under --submissions; the model's name when unset"
    parser.add_argument("--run", default=None, metavar="NAME", help=help_)
    help_ = "number of folds to train at the same time, each on a share of the cores or on one GPU; not with --gpus"
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help=help_)
    help_ = (
        "precision of matrix products and convolutions; auto: on a GPU bf16 if it supports that, on a CPU bf16 if "
        "it is measured to be clearly faster, otherwise fp32"
    )
    _add_choice(parser, "--precision", PRECISIONS, help_)
    help_ = "train each fold on N GPUs (DDP via torchrun)"
    parser.add_argument("--gpus", type=int, default=None, metavar="N", help=help_)
    help_ = "compile the network with torch.compile: a slow start, then faster steps on a GPU"
    parser.add_argument("--compile", action="store_true", help=help_)
    help_ = "compute batch-normalisation statistics over all GPUs (with --gpus)"
    parser.add_argument("--sync-batch-norm", action="store_true", help=help_)
    help_ = "minutes between checkpoints within an epoch"
    parser.add_argument("--checkpoint-minutes", type=float, default=30.0, metavar="M", help=help_)
    help_ = "run whose best weights initialise the network"
    parser.add_argument("--init", default=None, metavar="RUN", help=help_)
    _add_workers(parser)
    parser.epilog = "The model's settings are flags, too: python -m competition train --model NAME --help lists them."
    joined = " ".join(arguments).replace("--model=", "--model ").split()
    named = [value for flag, value in pairwise(joined) if flag == "--model"][-1:]  # the last counts, as in argparse
    if arguments[:1] == ["train"] and named:
        if named[0] not in models.names():
            raise UserError(unknown_message("model", named[0], models.names()))
        parser.epilog = None
        add_settings(parser, named[0], models.recipe(named[0]))


def _add_workers(parser: argparse.ArgumentParser) -> None:
    help_ = "number of processes that load images; when unset, chosen for the device"
    parser.add_argument("--workers", type=int, default=None, metavar="N", help=help_)


def _add_predict(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--run", required=True, metavar="NAME", help="run whose weights are used")
    help_ = "epoch whose weights are used; the best epoch of each fold when unset"
    parser.add_argument("--epoch", type=int, default=None, metavar="N", help=help_)
    help_ = "average the predictions for an image and its mirror image; as in training when unset"
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, default=None, help=help_)
    check, help_ = one_of("decoder", DECODERS), "method that reads coordinates from heatmaps; as in training when unset"
    parser.add_argument("--decoder", type=check, default=None, metavar="|".join(DECODERS), help=help_)
    _add_workers(parser)
    help_ = "predict this photo instead of the data set"
    parser.add_argument("--image", type=Path, default=None, metavar="FILE", help=help_)
    help_ = "x, y, width and height of a box tight around the joints, in pixels; the whole photo when unset"
    parser.add_argument("--box", type=parse_box, default=None, metavar="X,Y,W,H", help=help_)
    help_ = "folder for the photo's results; SUBMISSIONS/RUN/photos when unset"
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help=help_)


def _add_blend(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    help_ = "runs to blend, separated by commas; all when unset"
    parser.add_argument("--runs", default=None, metavar="A,B", help=help_)
    help_ = "epochs of each run to blend: best, last, all, or numbers such as 3,4"
    parser.add_argument("--epochs", type=check_epochs, default="best", metavar="best|last|all|3,4", help=help_)
    help_ = (
        "method that chooses the weights; optuna: search, joint by joint if weights differ by joint; exact: convex "
        "optimum; greedy: repeated selection of candidates; mean, median: no weights are fitted"
    )
    _add_choice(parser, "--method", METHODS, help_)
    help_ = (
        "global: one weight per candidate; axis, joint: one per axis or joint; coordinate: one per joint and axis; "
        "auto: with --method optuna chosen by cross-validation, which may also choose the mean, otherwise coordinate"
    )
    _add_choice(parser, "--granularity", GRANULARITIES, help_)
    help_ = "submission files to blend instead of runs"
    parser.add_argument("--files", type=Path, nargs="+", default=None, metavar="CSV", help=help_)
    shares = numbers("shares", "numbers separated by commas, such as .6,.4", float)
    help_ = "weights of the --files, normalised to sum to 1; --method mean or median applies when unset"
    parser.add_argument("--shares", type=shares, default=None, metavar="A,B", help=help_)
    help_ = "add geometric medians of the candidates, per joint and per pose, as two further candidates"
    parser.add_argument("--virtual", action="store_true", help=help_)
    help_ = "use the test poses of networks trained with --fold full; the weights are still fitted on out-of-fold poses"
    parser.add_argument("--refit", action="store_true", help=help_)
    _add_choice(parser, "--sampler", SAMPLERS, "sampler of the Optuna search")
    help_ = "folder of the blend; SUBMISSIONS/blend when unset"
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help=help_)


def _add_score(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    help_ = "submission files to score; the blend when unset"
    parser.add_argument("--file", type=Path, nargs="+", default=None, metavar="CSV", help=help_)
    help_ = "also reject implausible poses, as submit does (root not at the origin, wrong unit, constant columns)"
    parser.add_argument("--strict", action="store_true", help=help_)
    help_ = "also write the scores as JSON (with one --file)"
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help=help_)


def _add_board(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    help_ = "column to sort by: name, out_of_fold, all (shown as test), public, private or another key of --json"
    parser.add_argument("--sort", default="out_of_fold", metavar="COLUMN", help=help_)
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="also write the board as JSON")


def _add_bench(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    help_ = "benchmarks to run, separated by commas; all when unset"
    parser.add_argument("--only", default=None, metavar="NAME,...", help=help_)
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="also write the results as JSON")


def _add_report(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    help_ = "HTML file to write; SUBMISSIONS/report.html when unset"
    parser.add_argument("--out", type=Path, default=None, metavar="FILE", help=help_)


def _add_submit(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    help_ = "submission file to upload; the blend when unset"
    parser.add_argument("--file", type=Path, default=None, metavar="CSV", help=help_)
    help_ = "last part of the competition's address on kaggle.com"
    parser.add_argument("--competition", required=True, metavar="SLUG", help=help_)
    help_ = "one line that describes the submission"
    parser.add_argument("--message", required=True, metavar="TEXT", help=help_)
    parser.add_argument("--yes", action="store_true", help="upload without asking for confirmation")


def _add_verify(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="RUNDIR", help="folder of a run, of one of its folds, or of a blend"
    )


def _add_reproduce(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument(
        "--scale",
        default="full",
        metavar="small|full",
        help="size of the models: full as on the poster, small for CPUs",
    )
    help_ = "number of the fold to hold out, or all; the poster's models were trained on one fold each"
    parser.add_argument("--fold", default="0", metavar="K|all", help=help_)
    help_ = "number of networks to train at the same time; they share the cores"
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help=help_)
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="also write the table as JSON")


COMMANDS: dict[str, tuple[Handler, str, Callable[[argparse.ArgumentParser, Sequence[str]], None]]] = {
    "data": (commands.data, "generate a synthetic competition", _add_data),
    "check": (
        commands.check,
        "validate a competition's folder; exit code 2 if problems would make results wrong (warnings give 0)",
        _add_check,
    ),
    "folds": (commands.folds, "assign the training images to folds", _add_folds),
    "train": (commands.train, "train a model on one fold or all", _add_train),
    "predict": (
        commands.predict,
        "predict the data set again with a run's weights and store a new run (such as RUN-argmax, RUN-flip or "
        "RUN-again), or predict one photo",
        _add_predict,
    ),
    "blend": (commands.blend, "blend the runs into one submission", _add_blend),
    "score": (
        commands.score,
        "score submission files against the hidden answers of a synthetic competition",
        _add_score,
    ),
    "board": (commands.board, "list runs and blends with their scores", _add_board),
    "report": (commands.report, "write an HTML report on runs and blends", _add_report),
    "submit": (commands.submit, "upload a submission to Kaggle and wait for its score", _add_submit),
    "verify": (commands.verify, "recompute the hashes and scores of a run or blend", _add_verify),
    "reproduce": (commands.reproduce, "train and blend the poster's models", _add_reproduce),
    "bench": (commands.bench, "measure this implementation against baselines", _add_bench),
}
