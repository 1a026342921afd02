"""Compile a numerical loop to machine code on its first call, and keep the result for the next process."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
T = TypeVar("T")


def jit(function: Callable[P, T]) -> Callable[P, T]:
    """Compile with numba; where no folder can be written to, the code is compiled anew in each process."""
    try:
        compiled: Callable[P, T] = numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no place for its cache
        compiled = numba.njit(error_model="numpy")(function)
    return compiled
