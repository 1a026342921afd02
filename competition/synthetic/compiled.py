"""Compile numerical loops with numba, and cache the machine code between processes.

Numba's cache only notices changes in the file of the outermost function, not in functions and constants that it uses
from other files. The cache folder is therefore named by a hash of all sources of this package.
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
    """Return the cache folder for compiled code; None when it isn't writable."""
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
    """Compile a function with numba on its first call; without a writable cache folder, once per process."""
    folder, before = _folder(), numba_config.CACHE_DIR
    try:
        if folder is not None:
            numba_config.CACHE_DIR = folder
        compiled: Callable[P, T] = numba.njit(cache=folder is not None, error_model="numpy", fastmath=True)(function)
    finally:
        numba_config.CACHE_DIR = before
    return compiled
