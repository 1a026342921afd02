"""The words that a blend's options accept; loads neither optuna nor scipy."""

from typing import Final

from competition.common.choices import one_of
from competition.common.errors import UserError

METHODS: Final = ("optuna", "exact", "greedy", "mean", "median")
GRANULARITIES: Final = ("auto", "global", "axis", "joint", "coordinate")
SAMPLERS: Final = ("cmaes", "tpe")
_FIXED: Final = {"greedy": ("auto", "coordinate"), "mean": ("auto",), "median": ("auto",)}  # others tie as asked


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
