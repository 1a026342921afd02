"""Reads the flag --search: settings of a recipe, each optionally with a range or with values."""

from math import isfinite
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
        if not name:
            raise UserError(f"--search {text[:80]}: a setting without a name", fix=f"write it like {EXAMPLE}")
        if name in chosen:
            raise UserError(
                f"--search {text[:80]}: {name} is there twice", fix=f"name each setting once, as in {EXAMPLE}"
            )
        words = name.split()
        if len(words) > 1 and all(word in declared for word in words):
            raise UserError(f"--search {text[:80]}: settings without a comma", fix=f"write {','.join(words)}")
        if equals and not spec.strip():
            raise UserError(f"--search {name}=: no range or values", fix=f"write {name} alone, or like {EXAMPLE}")
        hint = declared[name][0] if name in declared else None
        chosen[name] = _bounds(name, hint, spec.strip()) if equals and hint is not None else None
    return chosen


def _bounds(name: str, hint: Any, spec: str) -> Bounds:
    what = f"--search {name}"
    is_number = bool({int, float} & {hint, *get_args(hint)}) and bool not in (hint, *get_args(hint))
    low, colon, high = (part.strip() for part in spec.partition(":"))
    if colon and is_number and (not low or not high or ":" in high):
        raise UserError(f"{what}={spec}: expected two ends of a range", fix=f"write both, such as {name}=1:2")
    if colon and is_number:
        read = reader(what, hint)
        ends = read(low), read(high)
        if not all(map(isfinite, ends)):
            raise UserError(f"{what}={spec}: expected two finite numbers", fix=f"write them like {name}=1:2")
        return Bounds(low=ends[0], high=ends[1])
    words = spec.split("/")
    if colon or len(words) < 2 or hint is bool:
        expected = "a range, such as 1:2, or values, such as 1/2" if is_number else "different values, such as a/b"
        fix = f"write {name}={spec.replace(':', '/')}" if colon and hint is not bool else ""
        raise UserError(f"{what}={spec}: expected {'only the name' if hint is bool else expected}", fix=fix)
    read = reader(what, hint, none=True)
    values = tuple(read(word) for word in words)
    if len(set(values)) < len(values):
        raise UserError(f"{what}={spec}: expected different values")
    return Bounds(values=values)
