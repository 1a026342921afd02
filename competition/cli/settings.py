"""Turns every setting of a recipe into a flag of `train`."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final, get_args, get_origin, get_type_hints

from competition.common.choices import numbers
from models.recipes import CHOICES

# Help texts by setting; a setting that is missing here gets its name as the text.
DESCRIPTIONS: Final = {
    "epochs": "passes over the training images",
    "batch": "images per training step",
    "optimizer": "optimizer, named as in timm; muon is this toolkit's own",
    "lr": "learning rate after the warm-up",
    "weight_decay": "weight decay of the optimizer",
    "schedule": "learning rate over time; halve: halved after each epoch, cosine: decays to zero at the last epoch",
    "warmup_epochs": "epochs of linear learning-rate warm-up",
    "clip_norm": "clip the norm of the whole gradient to this value; none: off",
    "micro_batch": "accumulate gradients over chunks of this many images, where a batch does not fit into memory; "
    "none: off",
    "ema": "decay of an exponential moving average of the weights, which is then used for prediction; none: off",
    "flip_test": "average the predictions for an image and its mirror image",
    "augment": "augment the training images",
    "augmentation": "transforms that augment the images; light: mirroring, brightness and colour, full: also rotation, "
    "scale, shift and dropout (used only with --augment)",
    "input_size": "side of the network's square input in pixels",
    "stacks": "number of stacked hourglasses",
    "channels": "feature channels of each hourglass",
    "sigma": "standard deviation of the target Gaussians in heatmap pixels",
    "decoder": "method that reads coordinates from heatmaps",
    "lifter_width": "units of each hidden layer of the network that lifts 2D joints to 3D",
    "lifter_dropout": "dropout rate of the network that lifts 2D joints to 3D",
    "lifter_copies": "augmented copies of each sample's 2D joints that the lifting network also trains on",
    "pose_weight": "weight of the pose loss relative to the heatmap loss",
    "depths": "depth bins of each stack's volume, separated by commas",
    "cube_mm": "edge of the predicted volume around the pelvis in mm",
    "backbone": "timm model that extracts the features",
    "pretrained": "download pretrained weights of the backbone",
    "deconvolution_channels": "channels of each of the three deconvolutions",
    "bins": "depth bins of the volume",
}


def add_settings(parser: argparse.ArgumentParser, model: str, recipe: Any) -> None:
    """Add a flag for every setting of a recipe, with the recipe's value as its default."""
    group = parser.add_argument_group(f"settings of {model}")
    hints = get_type_hints(type(recipe))
    for setting in fields(recipe):
        flag, default, hint = f"--{setting.name.replace('_', '-')}", getattr(recipe, setting.name), hints[setting.name]
        description = DESCRIPTIONS.get(setting.name, setting.name.replace("_", " "))
        if setting.name in CHOICES:
            description += f"; one of {', '.join(CHOICES[setting.name])}"
        description = f"{description} (default: {_as_flag(default)})".replace("%", "%%")
        if hint is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=description)
        else:
            convert = _parser_of(hint, setting.name)
            group.add_argument(flag, type=convert, default=default, metavar="X", help=description)


def _as_flag(value: object) -> str:
    """Write a setting's value as it is typed on the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)


def _parser_of(hint: Any, name: str) -> Callable[[str], Any]:
    """Return a function that parses a flag's text into a value of the annotated type."""
    if get_origin(hint) is tuple:
        return numbers(name, "whole numbers separated by commas, such as 1,16", get_args(hint)[0])
    if type(None) in get_args(hint):
        inner = next(member for member in get_args(hint) if member is not type(None))

        def parse_optional(text: str) -> Any:
            return None if text == "none" else inner(text)

        return parse_optional
    convert: Callable[[str], Any] = hint
    return convert
