"""Turns annotated fields into flags: those of a command's options, and the settings of a recipe.

A field's name, type and default make the flag, a `Flag` or a recipe's `Setting` in its annotation the help text:

    workers: Annotated[int | None, Flag("number of processes", metavar="N")] = None    # --workers N
"""

import argparse
from collections.abc import Callable
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from competition.common.choices import converter, numbers, one_of
from competition.common.errors import UserError
from competition.common.files import to_path
from models.recipes import Recipe, settings_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_NUMBERS: dict[Any, tuple[str, str]] = {  # by type: the expected text for one number, and for several
    int: ("a whole number", "whole numbers separated by commas, such as 1,16"),
    float: ("a number", "numbers separated by commas, such as .6,.4"),
}


@dataclass(frozen=True)
class Flag:
    """The declaration of a flag, beside the type and the default of its field; a field without default is required."""

    help: str
    _: KW_ONLY
    metavar: str | None = None
    choices: tuple[str, ...] = ()  # the accepted words; empty: all values of the type
    parse: Callable[[str], object] | None = None  # reads the text instead of the reader for the type
    positional: bool = False


def add_options(parser: argparse._ActionsContainer, options: "type[DataclassInstance]") -> None:
    """Add a flag for each field that is annotated with one: a switch for a bool, several words for a tuple of paths."""
    hints = get_type_hints(options, include_extras=True)
    for field in fields(options):
        if get_origin(hints[field.name]) is Annotated:
            hint, flag = get_args(hints[field.name])
            add_flag(parser, field.name, hint, flag, field.default)


def add_flag(parser: argparse._ActionsContainer, name: str, hint: Any, flag: Flag, default: object) -> None:
    """Add one flag; `default` is MISSING for a flag that must be given."""
    option = name if flag.positional else _option(name)
    shown = "" if any(default is unset for unset in (MISSING, None, False)) else f" (default: {default})"
    text = (flag.help + shown).replace("%", "%%")
    if hint is bool:
        parser.add_argument(option, action="store_true", help=text)
    elif hint == (bool | None):
        parser.add_argument(option, action=argparse.BooleanOptionalAction, default=None, help=text)
    else:
        choose = one_of(name, flag.choices) if flag.choices else None
        action = parser.add_argument(
            option,
            type=flag.parse or choose or reader(option, hint),
            nargs="+" if Path in get_args(_without_none(hint)) else None,
            default=None if default is MISSING else default,
            metavar=flag.metavar or "|".join(flag.choices) or None,
            help=text,
        )
        action.required = default is MISSING


def add_settings(parser: argparse.ArgumentParser, model: str, recipe: Recipe) -> None:
    """Add a flag for each setting of a recipe, whose value is the default; raise UserError if that flag exists."""
    group = parser.add_argument_group(f"settings of {model}")
    for name, (hint, setting) in settings_of(type(recipe)).items():
        option, default = _option(name), getattr(recipe, name)
        unit = f" {setting.unit}" if setting.unit and default is not None else ""
        choices = f"; one of {', '.join(setting.choices)}" if setting.choices else ""
        text = f"{setting.help}{choices} (default: {_text(default)}{unit})".replace("%", "%%")
        try:
            if hint is bool:
                group.add_argument(option, action=argparse.BooleanOptionalAction, default=default, help=text)
            else:
                read = reader(option, hint, none=True)
                group.add_argument(option, type=read, default=default, metavar="X", help=text)
        except argparse.ArgumentError:
            raise UserError(f"setting {name} of {model}: there is a flag {option} already", fix="rename it") from None


def reader(option: str, hint: Any, *, none: bool = False) -> Callable[[str], Any]:
    """Return a function that reads a flag's text as a value of an annotated type, and raises UserError if it can't.

    With `none`, the word none is read as None where the type allows it.
    """
    kind = _without_none(hint)
    if kind is Path:
        return _path_reader(option)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return numbers(option, _NUMBERS[item][1], item) if item in _NUMBERS else reader(option, item)
    if not (none and NoneType in get_args(hint)):
        return converter(option, _NUMBERS[kind][0], kind) if kind in _NUMBERS else kind
    expected = f"{_NUMBERS[kind][0] if kind in _NUMBERS else 'a value'}, or none"
    return converter(option, expected, lambda text: None if text == "none" else kind(text))


def _path_reader(option: str) -> Callable[[str], Path]:
    def read(text: str) -> Path:
        try:
            return to_path(text)
        except UserError as error:
            raise UserError(f"{option}: {error.what}", fix=error.fix) from None

    return read


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _without_none(hint: Any) -> Any:
    """Return the other member of an optional type."""
    return next(member for member in get_args(hint) if member is not NoneType) if NoneType in get_args(hint) else hint


def _text(value: object) -> str:
    """Format a setting's value as on the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)
