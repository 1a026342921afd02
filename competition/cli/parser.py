"""The table of subcommands, and the parser of the command line.

The settings of a model are flags of `train` and `tune`, so the command line is parsed twice: for the model, then for
everything.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, get_type_hints

import models
from competition.cli import data, options, results, training, tune_options, tuning
from competition.cli.flags import add_flag, add_options, add_settings
from competition.common.errors import UserError, unknown_message
from competition.common.workspace import Workspace
from models.recipes import Recipe, settings_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")

PROGRAM: Final = "python -m competition"
SETTINGS_OF: Final = ("train", "tune")  # subcommands whose flags include the settings of a model


@dataclass(frozen=True)
class Subcommand:
    """A subcommand: the class of its options, and its handler, which returns the exit code (None for 0)."""

    options: "type[DataclassInstance]"
    handler: Callable[[Any, Workspace], int | None]

    @property
    def description(self) -> str:
        return " ".join((self.options.__doc__ or "").split())


def _subcommand(options: type[D], handler: Callable[[D, Workspace], int | None]) -> Subcommand:
    """Make a subcommand of a handler and the options that it takes."""
    return Subcommand(options, handler)


COMMANDS: Final = {
    "data": _subcommand(options.DataOptions, data.data),
    "check": _subcommand(options.CheckOptions, data.check),
    "folds": _subcommand(options.FoldsOptions, data.folds),
    "train": _subcommand(options.TrainOptions, training.train),
    "tune": _subcommand(tune_options.TuneOptions, tuning.tune),
    "predict": _subcommand(options.PredictOptions, training.predict),
    "blend": _subcommand(options.BlendOptions, results.blend),
    "score": _subcommand(options.ScoreOptions, results.score),
    "board": _subcommand(options.BoardOptions, results.board),
    "report": _subcommand(options.ReportOptions, results.report),
    "submit": _subcommand(options.SubmitOptions, results.submit),
    "verify": _subcommand(options.VerifyOptions, results.verify),
    "reproduce": _subcommand(options.ReproduceOptions, results.reproduce),
    "bench": _subcommand(options.BenchOptions, results.bench),
}


@dataclass(frozen=True)
class Invocation:
    """A parsed command line."""

    command: str
    options: object  # of the class that the subcommand names
    workspace: Workspace

    def run(self) -> int | None:
        """Run the subcommand and return its exit code, None for 0."""
        return COMMANDS[self.command].handler(self.options, self.workspace)


class Parser(argparse.ArgumentParser):
    """Reports errors as a UserError of one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}")


def parse(arguments: Sequence[str]) -> Invocation:
    """Parse a command line; raise UserError if it is invalid."""
    model = _find_model(arguments)
    recipe = None if model is None else _create_recipe(model)
    parser, subparsers = _create_parsers()
    for name in SETTINGS_OF:
        if model is None or recipe is None:
            subparsers[name].epilog = f"The model's settings are flags, too: {PROGRAM} {name} --model NAME --help"
        else:
            add_settings(subparsers[name], model, recipe)
    found, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [flag for action in subparsers[found.command]._actions for flag in action.option_strings]
        raise UserError(f"{found.command}: {unknown_message('flag', unknown[0].partition('=')[0], known)}")
    values = vars(found)
    if recipe is not None:
        values["recipe"] = _create_recipe(found.model, **{name: values[name] for name in settings_of(type(recipe))})
    chosen = _create(COMMANDS[found.command].options, values)
    return Invocation(found.command, chosen, _create(Workspace, values))


def _create(kind: type[D], values: Mapping[str, Any]) -> D:
    """Create a dataclass of parsed values, in which a list is the words of one flag."""
    chosen = {field.name: values[field.name] for field in fields(kind)}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()})


def _find_model(arguments: Sequence[str]) -> str | None:
    """Return the --model of a command line for `train` or `tune`, whose flags include its settings."""
    parser = Parser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    parser.add_argument("command", nargs="?")
    parser.add_argument("--model")
    found, _ = parser.parse_known_args(arguments)
    return found.model if found.command in SETTINGS_OF else None


def _create_recipe(model: str, **settings: Any) -> Recipe:
    try:
        return models.recipe(model, **settings)
    except ValueError as error:
        raise UserError(str(error)) from None


def _create_parsers() -> tuple[Parser, Mapping[str, argparse.ArgumentParser]]:
    """Create the main parser and those of the subcommands."""
    parser = Parser(
        prog=PROGRAM,
        description="A competition toolkit for monocular 3D human pose estimation: from data to the upload.",
        epilog=f"Each subcommand lists its flags: {PROGRAM} SUBCOMMAND --help",
    )
    subparsers = parser.add_subparsers(
        dest="command", required=True, title="subcommands", metavar="<SUBCOMMAND>", parser_class=Parser
    )
    types, defaults = get_type_hints(Workspace), Workspace()
    for name, command in COMMANDS.items():
        text = command.description
        help_ = text[0].lower() + text[1:].rstrip(".")
        of_command = subparsers.add_parser(name, help=help_, description=text, allow_abbrev=False)
        add_options(of_command, command.options)
        common = of_command.add_argument_group("common flags (not every command uses all of them)")
        for field, flag in options.WORKSPACE.items():
            add_flag(common, field, types[field], flag, getattr(defaults, field))
        of_command.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return parser, subparsers.choices
