"""Records: dataclasses that are stored as JSON objects, checked against their annotations when they are read.

A record names its format in `FORMAT`; its file has the number under the key `format`, which is raised when a reader of
the old format would misunderstand the new one. Missing keys take the field's default; unknown keys are ignored, so that
a file may have more keys than this version knows.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from competition.common.errors import UserError
from competition.common.files import read_json, write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    R = TypeVar("R", bound=DataclassInstance)
else:
    R = TypeVar("R")


def read_record(kind: type[R], path: Path, *, what: str) -> R:
    """Read a JSON file as a record; raise UserError if it is missing, damaged, or a value has another type."""
    return from_json(kind, read_json(path, what=what), f"{what}: {path}")


def write_record(path: Path, record: DataclassInstance) -> None:
    """Write a record as a JSON file."""
    write_json(path, to_json(record))


def to_json(record: DataclassInstance) -> dict[str, Any]:
    """Return a record as a JSON object: `format`, if its class names one, then the fields in their order."""
    number = getattr(type(record), "FORMAT", None)
    return ({} if number is None else {"format": number}) | dataclasses.asdict(record)


def from_json(kind: type[R], value: Any, where: str) -> R:
    """Build a record from a JSON object; raise UserError, which begins with `where`, if it doesn't fit."""
    if not isinstance(value, dict):
        raise UserError(f"{where} holds {type(value).__name__}, expected a JSON object")
    known, found = getattr(kind, "FORMAT", None), value.get("format")
    if known is not None and found is not None and found != known:
        raise UserError(
            f"{where} has format {found!r}, expected {known}", fix="use the version of the toolkit that wrote it"
        )
    hints = get_type_hints(kind)
    arguments = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            arguments[field.name] = _convert(hints[field.name], value[field.name], f"{where}: {field.name!r}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where} lacks {field.name!r}", fix="the file was not written by this toolkit")
    return kind(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Convert a JSON value to an annotated type: plain types, unions, lists, tuples, dicts, nested records."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return value
    if origin in (Union, UnionType):
        if value is None and NoneType in parts:
            return None
        others = [part for part in parts if part is not NoneType]
        if len(others) == 1:
            return _convert(others[0], value, where)
        fitting = [part for part in others if _fits(get_origin(part) or part, value)]
        if fitting:
            return value
    elif origin in (list, tuple) and isinstance(value, list):
        items = [_convert(parts[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
        return items if origin is list else tuple(items)
    elif origin is dict and isinstance(value, dict):
        return {key: _convert(parts[1], item, f"{where}[{key!r}]") for key, item in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, where)
    elif _fits(hint, value):
        with suppress(OverflowError):  # of an integer beyond the range of floats
            return float(value) if hint is float else value
    expected = hint.__name__ if isinstance(hint, type) and origin is None else str(hint)
    raise UserError(
        f"{where} is {type(value).__name__}, expected {expected}", fix="the file was not written by this toolkit"
    )


def _fits(hint: Any, value: Any) -> bool:
    if isinstance(value, bool):
        return hint is bool
    return isinstance(hint, type) and isinstance(value, (int, float) if hint is float else hint)
