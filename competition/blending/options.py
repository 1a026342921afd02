"""The values that a blend's options accept; imports neither optuna nor scipy."""

from typing import Final

from competition.common.choices import one_of
from competition.common.errors import UserError

METHODS: Final = ("optuna", "exact", "greedy", "mean", "median")
GRANULARITIES: Final = ("auto", "global", "axis", "joint", "coordinate")
SAMPLERS: Final = ("cmaes", "tpe")
_FIXED: Final = {
    "greedy": ("auto", "coordinate"),
    "mean": ("auto",),
    "median": ("auto",),
}  # others accept all


def check_blend(method: str, granularity: str) -> None:
    """Raise UserError for an unknown method or granularity, or a granularity that the method ignores."""
    one_of("method", METHODS)(method)
    one_of("granularity", GRANULARITIES)(granularity)
    if granularity not in (accepted := _FIXED.get(method, GRANULARITIES)):
        reason = "supports only coordinate weights" if method == "greedy" else "has no weights"
        raise UserError(
            f"method {method} with granularity {granularity}: {method} {reason}; expected granularity "
            f"{' or '.join(accepted)}, or method optuna or exact"
        )
