"""The values that a blend's options accept, derived from the methods; imports neither numpy nor optuna."""

from typing import Final

from competition.blending.methods import GRANULARITIES as _GRANULARITIES
from competition.blending.methods import METHODS as _METHODS
from competition.blending.methods import SAMPLERS, Median, Method
from competition.common.choices import one_of
from competition.common.errors import UserError

METHODS: Final = tuple(method.name for method in _METHODS)
GRANULARITIES: Final = ("auto", *_GRANULARITIES)

__all__ = ["GRANULARITIES", "METHODS", "SAMPLERS", "check_blend"]


def check_blend(method: str, granularity: str, stack: bool | None = None, *, views: bool = False) -> Method:
    """Return the method; raise UserError if it or the granularity is unknown, or if the choices contradict each other.

    A second level (`stack`) stands on the coordinate weights of the default method, other cameras (`views`) on any
    weights.
    """
    one_of("method", METHODS)(method)
    one_of("granularity", GRANULARITIES)(granularity)
    found = next(one for one in _METHODS if one.name == method)
    if granularity not in ("auto", *found.granularities):
        only = " or ".join(found.granularities)
        reason = f"supports only {only} weights" if only else "has no weights"
        others = [one.name for one in _METHODS if granularity in one.granularities]
        raise UserError(
            f"method {method} with granularity {granularity}: {method} {reason}; expected granularity "
            f"{' or '.join(('auto', *found.granularities))}, or method {' or '.join(others)}"
        )
    if stack and (found is not _METHODS[0] or granularity not in ("auto", "coordinate")):
        raise UserError(
            f"--stack with method {method} and granularity {granularity}: it corrects coordinate weights; expected "
            f"method {_METHODS[0].name} and granularity auto or coordinate"
        )
    if views and isinstance(found, Median):
        weighted = ", ".join(one.name for one in _METHODS if not isinstance(one, Median))
        raise UserError(f"--views with method {method}, which has no weights; expected method {weighted}")
    return found
