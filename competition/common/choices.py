"""The words that flags accept, refused in milliseconds: before torch, optuna or any data are loaded."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from competition.common.errors import UserError, unknown

METHODS: Final = ("optuna", "exact", "greedy", "mean", "median")
GRANULARITIES: Final = ("auto", "global", "axis", "joint", "coordinate")
SAMPLERS: Final = ("cmaes", "tpe")
PRECISIONS: Final = ("auto", "fp32", "bf16")
EPOCHS: Final = ("best", "last", "all")
N = TypeVar("N", int, float)
Box: TypeAlias = tuple[float, float, float, float]  # x, y, width, height in pixels of an upright picture
_FIXED: Final = {"greedy": ("auto", "coordinate"), "mean": ("auto",), "median": ("auto",)}  # others tie as asked


def one_of(what: str, known: Sequence[str]) -> Callable[[str], str]:
    """Make a function that returns a word when it is known, and raises UserError with the nearest match otherwise."""

    def check(word: str) -> str:
        if word not in known:
            raise UserError(unknown(what, word, known))
        return word

    return check


def numbers(what: str, expected: str, kind: Callable[[str], N]) -> Callable[[str], tuple[N, ...]]:
    """Make a function that reads finite numbers separated by commas, and raises UserError for anything else."""

    def read(text: str) -> tuple[N, ...]:
        try:
            found = tuple(kind(cell) for cell in text.split(","))
            if all(map(math.isfinite, found)):
                return found
        except (ValueError, OverflowError):
            pass
        raise UserError(f"{what} {text[:60]!r}: expected {expected}")

    return read


def parse_box(text: str) -> Box:
    """Read x,y,w,h in pixels; raise UserError."""
    expected = "four numbers x,y,w,h in pixels, such as 120,40,200,420"
    cells = numbers("box", expected, float)(text)
    if len(cells) != 4:
        raise UserError(f"box {text!r}: expected {expected}")
    x, y, width, height = cells
    return x, y, width, height


def check_epochs(text: str) -> str:
    """Refuse (UserError) what is neither best, last, all nor numbers such as 3,4."""
    if text not in EPOCHS and not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text, re.ASCII):
        raise UserError(f"epochs {text!r}: expected {', '.join(EPOCHS)}, or numbers such as 3,4")
    return text


def check_blend(method: str, granularity: str) -> None:
    """Refuse (UserError) unknown words, and a granularity that the method would not heed."""
    one_of("method", METHODS)(method)
    one_of("granularity", GRANULARITIES)(granularity)
    if granularity not in (known := _FIXED.get(method, GRANULARITIES)):
        ways = "knows only weights by coordinate" if method == "greedy" else "has no weights"
        raise UserError(
            f"method {method} with granularity {granularity}: {method} {ways}; expected granularity "
            f"{' or '.join(known)}, or method optuna or exact"
        )
