"""The flags of every subcommand, and which handler of commands.py each leads to."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import models
from competition.blending.options import GRANULARITIES, METHODS, SAMPLERS
from competition.cli import commands
from competition.common.choices import check_epochs, numbers, one_of, parse_box
from competition.common.console import Console
from competition.common.errors import UserError, unknown_message
from competition.common.workspace import Workspace
from competition.training.options import PRECISIONS
from models.recipes import DECODERS, WORDS

Handler = Callable[[argparse.Namespace, Workspace, Console], int | None]


class Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; `train` has a flag for every setting of the recipe that --model names."""
    parser = Parser(prog="python -m competition", description="A competition toolkit for monocular 3D human pose.")
    subcommands = parser.add_subparsers(dest="command", required=True, metavar="SUBCOMMAND", parser_class=Parser)
    for name, (handler, help_, add) in COMMANDS.items():
        command = subcommands.add_parser(
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
        known = [flag for action in subcommands.choices[options.command]._actions for flag in action.option_strings]
        raise UserError(f"{options.command}: {unknown_message('flag', rest[0].partition('=')[0], known)}")
    return options


def _add_common(parser: argparse.ArgumentParser) -> None:
    defaults = Workspace()
    parser.add_argument("--data", type=Path, default=defaults.data, metavar="DIR", help="the competition's folder")
    parser.add_argument("--folds", type=Path, default=defaults.folds, metavar="DIR", help="of folds.csv")
    parser.add_argument("--submissions", type=Path, default=defaults.submissions, metavar="DIR", help="of the runs")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="every random draw derives from it")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def _add_choice(parser: argparse.ArgumentParser, flag: str, known: Sequence[str], help_: str) -> None:
    """Add a flag that takes one of the known words; the first is its default."""
    check = one_of(flag.removeprefix("--"), known)
    parser.add_argument(flag, type=check, default=known[0], metavar="|".join(known), help=help_)


def _add_data(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--n", type=int, default=6000, help="training images")
    parser.add_argument("--n-test", type=int, default=1500, help="test images")
    parser.add_argument("--workers", type=int, default=None, help="processes; all cores when unset")


def _add_check(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--all", action="store_true", help="decode every image, not a sample of 20,000")


def _add_folds(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--strategy", default="subject", help="subject, sequence or holdout (random rows: leaks)")
    parser.add_argument("--k", type=int, default=None, help="number of folds; as many as subjects when unset")
    parser.add_argument("--force", action="store_true", help="overwrite folds that runs were trained on")


def _add_train(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("--model", required=True, metavar="NAME", help=f"one of {', '.join(models.names())}")
    parser.add_argument("--fold", default="all", metavar="K|all|full", help="full trains on everything")
    parser.add_argument("--run", default=None, metavar="NAME", help="folder of the run; the model's name when unset")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="folds at a time, sharing cores or GPUs")
    _add_choice(parser, "--precision", PRECISIONS, "of the network's products")
    parser.add_argument("--gpus", type=int, default=None, metavar="N", help="processes a network, by torchrun")
    parser.add_argument("--compile", action="store_true", help="by torch.compile: slow to start, faster on a GPU")
    parser.add_argument("--sync-batch-norm", action="store_true", help="statistics over all GPUs' batches")
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=30.0, metavar="M", help="between two checkpoints within an epoch"
    )
    parser.add_argument("--init", default=None, metavar="RUN", help="start from the best weights of this run")
    parser.add_argument(
        "--workers", type=int, default=None, help="processes that load images; by the device when unset"
    )
    joined = " ".join(arguments).replace("--model=", "--model ").split()
    named = [value for flag, value in pairwise(joined) if flag == "--model"][-1:]  # argparse, too, keeps the last
    if arguments[:1] == ["train"] and named:
        if named[0] not in models.names():
            raise UserError(unknown_message("model", named[0], models.names()))
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
            known = f": {', '.join(WORDS[setting.name])}" if setting.name in WORDS else ""
            help_ = f"default %(default)s{known}"
            group.add_argument(flag, type=_parser_of(hint, setting.name), default=default, metavar="X", help=help_)


def _parser_of(hint: Any, name: str) -> Callable[[str], Any]:
    if get_origin(hint) is tuple:
        return numbers(name, "whole numbers separated by commas, such as 1,16", get_args(hint)[0])
    if type(None) in get_args(hint):
        inner = next(member for member in get_args(hint) if member is not type(None))

        def or_none(text: str) -> Any:
            return None if text == "none" else inner(text)

        return or_none
    convert: Callable[[str], Any] = hint
    return convert


def _add_predict(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--run", required=True, metavar="NAME", help="whose kept weights to predict with")
    parser.add_argument("--epoch", type=int, default=None, help="the best of each fold when unset")
    parser.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=None, help="average with the mirrored image"
    )
    parser.add_argument(
        "--decoder",
        type=one_of("decoder", DECODERS),
        default=None,
        metavar="|".join(DECODERS),
        help="how coordinates are read off heatmaps",
    )
    parser.add_argument(
        "--workers", type=int, default=None, help="processes that load images; by the device when unset"
    )

    parser.add_argument("--image", type=Path, default=None, metavar="FILE", help="predict this picture instead")
    parser.add_argument(
        "--box", type=parse_box, default=None, metavar="X,Y,W,H", help="of the person; whole when unset"
    )
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help="of --image; RUN/photos when unset")


def _add_blend(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--runs", default=None, metavar="A,B", help="runs to blend; all when unset")
    parser.add_argument(
        "--epochs", type=check_epochs, default="best", metavar="best|last|all|3,4", help="which epochs of each run"
    )
    _add_choice(parser, "--method", METHODS, "how weights are found")
    _add_choice(parser, "--granularity", GRANULARITIES, "what shares a weight; auto and held-out groups decide")
    parser.add_argument(
        "--files", type=Path, nargs="+", default=None, metavar="CSV", help="blend these instead of runs"
    )
    shares = numbers("shares", "numbers separated by commas, such as .6,.4", float)
    help_ = "of the --files; their mean or median when unset"
    parser.add_argument("--shares", type=shares, default=None, metavar="A,B", help=help_)
    parser.add_argument("--virtual", action="store_true", help="also offer the members' geometric medians")
    parser.add_argument("--refit", action="store_true", help="take the test poses of the runs trained with --fold full")
    _add_choice(parser, "--sampler", SAMPLERS, "of the Optuna search")
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help="SUBMISSIONS/blend when unset")


def _add_score(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--file", type=Path, nargs="+", default=None, help="the blend when unset")
    parser.add_argument("--strict", action="store_true", help="also refuse what is in format but implausible")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the scores there (one --file)")


def _add_board(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--sort", default="out_of_fold", help="a column of the board")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the board there too")


def _add_bench(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--only", default=None, metavar="NAME,...", help="these benchmarks; all when unset")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the rows there too")


def _add_report(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--out", type=Path, default=None, metavar="FILE", help="SUBMISSIONS/report.html when unset")


def _add_submit(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--file", type=Path, default=None, help="the blend when unset")
    parser.add_argument("--competition", required=True, metavar="NAME", help="the last part of its address")
    parser.add_argument("--message", required=True, metavar="TEXT", help="one line that says what is sent")
    parser.add_argument("--yes", action="store_true", help="send without asking")


def _add_verify(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("folder", type=Path, metavar="RUNDIR", help="of a run, one of its folds, or a blend")


def _add_reproduce(parser: argparse.ArgumentParser, _: Sequence[str]) -> None:
    parser.add_argument("--scale", default="full", metavar="small|full", help="the poster's models, or small ones")
    parser.add_argument("--fold", default="0", metavar="K|all", help="one network a row, as the poster's, or all folds")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="networks at a time, sharing the cores")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the table there too")


COMMANDS: dict[str, tuple[Handler, str, Callable[[argparse.ArgumentParser, Sequence[str]], None]]] = {
    "data": (commands.data, "make the embedded competition", _add_data),
    "check": (
        commands.check,
        "look a competition's folder through; exit code 2 for what would make wrong results",
        _add_check,
    ),
    "folds": (commands.folds, "decide which images are held out together", _add_folds),
    "train": (commands.train, "train a model, one fold or all", _add_train),
    "predict": (
        commands.predict,
        "predict again with the weights of a run, as a new run, or a picture of one's own",
        _add_predict,
    ),
    "blend": (commands.blend, "blend the runs' epochs into one submission", _add_blend),
    "score": (commands.score, "score a CSV against the hidden answers of the embedded competition", _add_score),
    "bench": (commands.bench, "measure our ways against plain ones, in turn", _add_bench),
    "board": (commands.board, "list runs and blends with their scores", _add_board),
    "report": (commands.report, "write a page of pictures about runs and blends", _add_report),
    "submit": (commands.submit, "send a CSV with the official kaggle client and wait for its score", _add_submit),
    "verify": (commands.verify, "recompute what a run's or blend's folder claims", _add_verify),
    "reproduce": (commands.reproduce, "train and blend the poster's table", _add_reproduce),
}
