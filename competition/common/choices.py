"""Checks of flag values, made before torch, optuna or any data are loaded."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from competition.common.errors import UserError, unknown_message

EPOCHS: Final = ("best", "last", "all")
T = TypeVar("T")
N = TypeVar("N", int, float)
Box: TypeAlias = tuple[float, float, float, float]  # x, y, width, height in pixels of an upright image


def one_of(what: str, known: Sequence[str]) -> Callable[[str], str]:
    """Return a function that returns a known word, and raises UserError with the nearest match for any other."""

    def check(word: str) -> str:
        if word not in known:
            raise UserError(unknown_message(what, word, known))
        return word

    return check


def converter(what: str, expected: str, convert: Callable[[str], T]) -> Callable[[str], T]:
    """Return a function that converts a text, and raises UserError where `convert` raises ValueError."""

    def checked(text: str) -> T:
        try:
            return convert(text)
        except (ValueError, OverflowError):
            raise UserError(f"{what} {text[:60]!r}: expected {expected}") from None

    return checked


def within(minimum: N, maximum: N | None, what: str, kind: Callable[[str], N]) -> Callable[[str], N]:
    """Return a function that parses a finite number in a range, both ends included, and raises UserError otherwise."""
    noun = "whole number" if kind is int else "number"
    limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(text: str) -> N:
        number = kind(text)
        if not minimum <= number < math.inf or (maximum is not None and number > maximum):  # the first: NaN, too
            raise ValueError
        return number

    return converter(what, f"a {noun} {limits}", parse)


def numbers(what: str, expected: str, kind: Callable[[str], N]) -> Callable[[str], tuple[N, ...]]:
    """Return a function that parses finite numbers separated by commas, and raises UserError for anything else."""

    def parse(text: str) -> tuple[N, ...]:
        found = tuple(kind(cell) for cell in text.split(","))
        if not all(map(math.isfinite, found)):
            raise ValueError
        return found

    return converter(what, expected, parse)


def parse_box(text: str) -> Box:
    """Parse a box x,y,w,h in pixels; raise UserError for anything else."""
    expected = "four numbers x,y,w,h in pixels, such as 120,40,200,420"
    cells = numbers("box", expected, float)(text)
    if len(cells) != 4:
        raise UserError(f"box {text!r}: expected {expected}")
    x, y, width, height = cells
    return x, y, width, height


def check_epochs(text: str) -> str:
    """Return `text` when it is best, last, all or numbers such as 3,4; raise UserError otherwise."""
    if text not in EPOCHS and not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text, re.ASCII):
        raise UserError(f"epochs {text!r}: expected {', '.join(EPOCHS)}, or numbers such as 3,4")
    return text
