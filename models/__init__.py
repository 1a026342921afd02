"""The models by name, with their recipes. Importing this package doesn't import torch."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from models.recipes import Integral, Recipe, ThreeD, TwoD

if TYPE_CHECKING:
    from models.contract import Module

# For a modern GPU: chosen on the small siblings (models/README.md). Muon learns faster than Adam, a constant rate with
# averaged weights better than a decaying one. The batch is larger than that of the siblings, for a GPU's speed.
MODERN: dict[str, Any] = {
    "epochs": 8,
    "batch": 32,
    "optimizer": "muon",
    "lr": 4e-3,
    "ema": 0.999,
    "flip_test": True,
    "augment": True,
    "augmentation": "light",
}

# The small networks see few images and take few steps, and are trained likewise.
SMALL = {**MODERN, "batch": 16}
SMALL_2D = TwoD(
    **{**SMALL, "epochs": 6},
    input_size=128,
    stacks=1,
    channels=64,
    sigma=1.5,
    lifter_width=256,
    lifter_dropout=0.1,
    lifter_copies=8,
)
SMALL_3D = ThreeD(  # the metric cube isn't aligned with the pixels: at 64 of them it learns about twice as fast
    **SMALL,
    input_size=64,
    depths=(1, 16),
    channels=64,
    sigma=1.5,
)

MODELS: dict[str, Recipe] = {
    # The poster's, but for the initial weights and the weighting of the lifter's gradient into the maps.
    "2dhg": TwoD(epochs=2, stacks=8, augment=True),
    "2dhg-decay": TwoD(epochs=2, stacks=4, augment=True, schedule="halve"),
    "3dhg": ThreeD(),
    "3dhg-aug": ThreeD(augment=True, schedule="halve"),
    # Beyond the poster.
    "2dhg-plus": TwoD(**MODERN, lifter_copies=8),
    "3dhg-plus": ThreeD(**MODERN),
    "integral": Integral(**MODERN),
    # The same code for two CPU cores. Halving every epoch ends the learning after a few, so those have five.
    "2dhg-small": SMALL_2D,
    "2dhg-decay-small": replace(SMALL_2D, schedule="halve", epochs=5),
    "2dhg-plus-small": replace(SMALL_2D, epochs=12),
    "3dhg-small": SMALL_3D,
    "3dhg-plus-small": replace(SMALL_3D, epochs=16),
    "3dhg-aug-small": replace(SMALL_3D, schedule="halve", epochs=5, augmentation="full"),
    "integral-small": Integral(
        **{**SMALL, "epochs": 12},
        input_size=64,
        backbone="test_resnet",
        deconvolution_channels=64,
        bins=16,
    ),
}


def names() -> list[str]:
    """Return the names of all models."""
    return list(MODELS)


def is_small(name: str) -> bool:
    """Return whether a model is meant for a CPU, where it trains with one thread: whether its name ends in -small."""
    return name.endswith("-small")


def recipe(name: str, **settings: Any) -> Recipe:
    """Return a model's recipe with settings replaced; raise ValueError for unknown names and invalid values."""
    require_known("model", name, MODELS)
    defaults = MODELS[name]
    check_recipe(name, defaults)
    known = [field.name for field in fields(defaults)]
    for setting in settings:
        require_known(f"setting of {name}", setting, known)
    return replace(defaults, **settings)


def create(name: str, **settings: Any) -> Module:
    """Create a model's network, with settings of its recipe replaced; raise the same errors as recipe()."""
    chosen = recipe(name, **settings)
    created: Module = network_class(name, chosen)(chosen)
    return created


def check_recipe(name: str, defaults: Any) -> None:
    """Raise ValueError if an entry of MODELS isn't a recipe, or has settings that aren't fields of a dataclass."""
    expected = "@dataclass(frozen=True, kw_only=True)"
    kind = defaults if isinstance(defaults, type) else type(defaults)
    if not isinstance(defaults, Recipe):
        found = f"the class {kind.__name__}" if kind is defaults else f"a {kind.__name__}"
        raise ValueError(f"model {name}: MODELS has {found}, expected an instance of a recipe: {expected}")
    hints = inspect.get_annotations(kind)
    settings = [setting for setting, hint in hints.items() if "ClassVar" not in str(hint)]
    if settings and "__dataclass_fields__" not in vars(kind):
        what = f"{kind.__name__}, which has settings ({', '.join(settings)})"
        raise ValueError(f"model {name}: expected {expected} above the class {what}")


def network_class(name: str, chosen: Recipe) -> Any:
    """Return the class of a model's network; raise ValueError if its recipe names none."""
    module, _, network = chosen.network.partition(":")
    expected = f'network = "models.file:Class" in {type(chosen).__name__}, but got network={chosen.network!r}'
    try:
        found = getattr(importlib.import_module(module or "models"), network or "", None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that the network's file imports
        found = None
    if found is None:
        raise ValueError(f"model {name}: expected {expected}")
    return found


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raise ValueError, with the nearest match and the list of known names, unless a name is known."""
    known = list(known)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise ValueError(f"unknown {what} {name!r}: {suggestion}expected one of {', '.join(known)}")


def __getattr__(name: str) -> Any:
    """Import the types of models.contract on first use, because they need torch."""
    if name in ("Module", "Output", "Spec", "Target"):
        return getattr(importlib.import_module("models.contract"), name)
    raise AttributeError(f"module 'models' has no attribute {name!r}")
