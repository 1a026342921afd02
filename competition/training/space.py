"""The space that a study searches: ranges and values of a recipe's settings, and what a trial makes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin

from competition.common.errors import UserError, unknown_message
from competition.runs.studies import Param, Value
from models.recipes import Recipe, Setting, settings_of

SWITCH = "use_"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the user wants to search instead of what is declared: a range or values."""

    low: float | None = None
    high: float | None = None
    values: tuple[Value, ...] = ()


def make_space(recipe: Recipe, chosen: Mapping[str, Bounds | None] | None = None) -> list[Param]:
    """Return the parameters for some settings of a recipe, by default all that are `searchable`.

    Ranges and values are those declared beside the fields, or the given ones, extended by the recipe's own value. Where
    a range can't contain it (none, or 0 on a logarithmic scale), it is the alternative to the range. Raise UserError
    for settings that are unknown, or can't be searched in this way.
    """
    declared = settings_of(type(recipe))
    for name in chosen or ():
        if name not in declared:
            raise UserError(unknown_message("setting to search", name, declared))
        if get_origin(declared[name][0]) is tuple:
            raise UserError(f"--search {name}: lists of values can't be searched: expected another setting")
        if name == "epochs":
            raise UserError("--search epochs: all trials have the same number of epochs", fix="set it with --epochs")
    chosen = dict.fromkeys(searchable(recipe)) if chosen is None else chosen
    names = [name for name in declared if name in chosen]  # a setting comes after those that it needs
    space: list[Param] = []
    for name in names:
        setting, bounds = declared[name][1], chosen[name]
        needs = {}
        if setting.tune_if is not None:
            other, value = setting.tune_if
            if other in names:
                needs = {"needs": other, "needs_value": value}
            elif getattr(recipe, other) != value:
                raise UserError(
                    f"--search {name}: it is used only with {other}={_text(value)}, but {other} is "
                    f"{_text(getattr(recipe, other))}",
                    fix=f"also search {other}, or pass --{other.replace('_', '-')}",
                )
        space += _params(recipe, name, declared[name][0], setting, bounds, needs)
    return space


def searchable(recipe: Recipe) -> list[str]:
    """Return the names of the settings for which a range or values to search are declared."""
    return [name for name, (_, one) in settings_of(type(recipe)).items() if one.tune or one.tune_values]


def _params(
    recipe: Recipe, name: str, hint: Any, setting: Setting, bounds: Bounds | None, needs: Mapping[str, Any]
) -> list[Param]:
    own = getattr(recipe, name)
    values: tuple[Value, ...] = setting.tune_values or setting.choices or ((False, True) if hint is bool else ())
    low, high = setting.tune or (None, None)
    if bounds is not None:
        values, low, high = bounds.values, bounds.low, bounds.high
    if low is None or high is None:
        if not values:
            fix = f"give one, such as {name}=32:64, or values, such as {name}=32/64"
            raise UserError(f"--search {name}: no range is declared for it", fix=fix)
        _check(recipe, name, values)
        return [Param(name=name, values=values if own in values else (*values, own), **needs)]
    if not low < high:
        what = f"--search {name}={low:g}:{high:g}: the range is {'inverted' if high < low else 'empty'}"
        raise UserError(f"{what}: expected the lower end first, such as {name}={high:g}:{low:g}")
    _check(recipe, name, (low, high))
    log, whole = setting.log and low > 0, int in (hint, *get_args(hint))
    fits = own is not None and (own > 0 or not log)
    if fits:
        low, high = min(low, own), max(high, own)
    switch = [] if fits else [Param(name=SWITCH + name, values=(False, True), **needs)]
    needs = needs if fits else {"needs": SWITCH + name, "needs_value": True}
    return [*switch, Param(name=name, low=float(low), high=float(high), log=log, whole=whole, **needs)]


def _check(recipe: Recipe, name: str, values: Sequence[Value]) -> None:
    """Raise UserError for a value that the recipe doesn't accept."""
    for value in values:
        try:
            with_params(recipe, {name: value})
        except ValueError as error:
            raise UserError(f"--search {name}: {error}") from None


def own_values(recipe: Recipe, space: Sequence[Param]) -> dict[str, Value]:
    """Return the values of the parameters with which a trial has the recipe's own settings."""
    params: dict[str, Value] = {}
    for param in space:
        if param.is_used(params):
            params[param.name] = getattr(recipe, param.name, False)  # a switch is no setting
    return params


def with_params(recipe: Recipe, params: Mapping[str, Value]) -> Recipe:
    """Return the recipe of a trial; raise ValueError for values that don't fit each other."""
    settings: dict[str, Any] = {name: value for name, value in params.items() if hasattr(recipe, name)}
    return replace(recipe, **settings)


def _text(value: object) -> str:
    return "on" if value is True else "off" if value is False else str(value)
