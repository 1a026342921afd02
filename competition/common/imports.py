"""Importing the package `models`, which users change, and which a package of theirs may hide."""

import importlib.util
import linecache
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from competition.common.errors import UserError

MODELS: Final = Path(__file__).parents[2] / "models"
_RECIPES: Final = "expected recipes with @dataclass(frozen=True, kw_only=True), and in MODELS one instance of each"


@contextmanager
def importing_models() -> Iterator[None]:
    """Import in the block what needs `models`; raise UserError if that is another package, or its files have an error.

    Raised errors name the other package's place, or the file and the line.
    """
    if (found := _other_models()) is not None:
        raise UserError(
            f"import models: Python finds {found}, expected {MODELS}",
            fix=f"rename it, or let {MODELS.parent} come first in sys.path (PYTHONPATH), and start Python again",
        )
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        executed = [(Path(frame.filename), frame.lineno or 0) for frame in frames if frame.name == "<module>"]
        if isinstance(error, SyntaxError):
            executed.append((Path(error.filename or ""), error.lineno or 0))
        places = [(file, line) for file, line in executed if file.parent == MODELS]
        if not places or isinstance(error, UserError):
            raise
        file, line = places[-1]
        what = (
            f"models/{file.name}:{line}: {_code(file, line)!r}: {type(error).__name__}: {' '.join(str(error).split())}"
        )
        raise UserError(what, fix=_RECIPES if isinstance(error, TypeError) else "") from error


def _other_models() -> Path | None:
    """Return the place of a package or module `models` that Python finds instead of the toolkit's."""
    specification = importlib.util.find_spec("models")  # imports nothing
    if specification is None:
        return None
    place = next(
        iter(specification.submodule_search_locations or ()), specification.origin or "a module without a file"
    )
    return None if Path(place).resolve() == MODELS.resolve() else Path(place)


def _code(file: Path, line: int) -> str:
    """Return a line of a file; for a decorator, the line that it decorates."""
    code = linecache.getline(str(file), line).strip()
    return _code(file, line + 1) if code.startswith("@") else code[:80]
