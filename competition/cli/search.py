"""Reads the flag --search: settings of a recipe, each optionally with a range or with values."""

from typing import Any, get_args

from competition.cli.flags import reader
from competition.common.errors import UserError
from competition.training.space import Bounds
from models.recipes import Recipe, settings_of

EXAMPLE = "lr=1e-4:1e-2,schedule=constant/cosine,ema"


def parse_search(text: str, recipe: Recipe) -> dict[str, Bounds | None]:
    """Parse settings such as lr=1e-4:1e-2,schedule=constant/cosine,ema; None is for what is declared."""
    declared = settings_of(type(recipe))
    chosen: dict[str, Bounds | None] = {}
    for item in text.split(","):
        name, equals, spec = item.strip().partition("=")
        name = name.strip().replace("-", "_")
        if not name or name in chosen:
            raise UserError(f"--search {text[:80]!r}: expected different settings, such as {EXAMPLE}")
        hint = declared[name][0] if name in declared else None
        chosen[name] = _bounds(name, hint, spec.strip()) if equals and hint is not None else None
    return chosen


def _bounds(name: str, hint: Any, spec: str) -> Bounds:
    what = f"--search {name}"
    is_number = bool({int, float} & {hint, *get_args(hint)}) and bool not in (hint, *get_args(hint))
    low, colon, high = spec.partition(":")
    if colon and is_number:
        read = reader(what, hint)
        return Bounds(low=read(low), high=read(high))
    words = spec.split("/")
    if colon or len(words) < 2 or hint is bool:
        expected = "a range, such as 1:2, or values, such as 1/2" if is_number else "different values, such as a/b"
        raise UserError(f"{what}={spec}: expected {'only the name' if hint is bool else expected}")
    read = reader(what, hint, none=True)
    values = tuple(read(word) for word in words)
    if len(set(values)) < len(values):
        raise UserError(f"{what}={spec}: expected different values")
    return Bounds(values=values)
