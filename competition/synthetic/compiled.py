"""Compile a numerical loop to machine code on its first call, and keep the result for the next process.

Numba keeps code by the file of the outermost function, and takes no notice when a function that it calls, or a
constant, has changed in another file. The code is therefore kept under a hash of this package's sources.
"""

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ParamSpec, TypeVar

import numba
import numba.core.config as numba_config

P = ParamSpec("P")
T = TypeVar("T")


@cache
def _folder() -> str | None:
    """Where compiled code is kept; None where nothing can be written."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(package.glob("*.py")):
        digest.update(source.read_bytes())
    folder = package / "__pycache__" / f"numba-{digest.hexdigest()[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


def jit(function: Callable[P, T]) -> Callable[P, T]:
    """Compile with numba; where no folder can be written to, the code is compiled anew in each process."""
    folder, before = _folder(), numba_config.CACHE_DIR
    try:
        if folder is not None:
            numba_config.CACHE_DIR = folder
        compiled: Callable[P, T] = numba.njit(cache=folder is not None, error_model="numpy", fastmath=True)(function)
    finally:
        numba_config.CACHE_DIR = before
    return compiled
