"""Recipes: all settings of a model and its training, as frozen dataclasses; models/__init__.py lists them by name.

Recipe holds the training settings; one subclass per network adds the settings of the network. Field types are simple,
so that every field can become a command-line flag. This file imports neither torch nor timm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

SCHEDULES = ("constant", "halve", "cosine")
AUGMENTATIONS = ("full", "light")  # full: also rotation, scale, shift and dropout
DECODERS = ("argmax", "dark", "local")
OPTIMIZERS = (  # those of timm that need no other package; listed here, because importing timm takes seconds
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamp", "adamw", "adan", "adopt", "lamb",
    "laprop", "larc", "lars", "lion", "madgrad", "mars", "momentum", "muon", "nadam", "nadamw", "nesterov", "novograd",
    "radam", "rmsprop", "sgd", "sgdp", "sgdw",
)  # fmt: skip
CHOICES = {  # the allowed values of settings
    "schedule": SCHEDULES,
    "augmentation": AUGMENTATIONS,
    "decoder": DECODERS,
    "optimizer": OPTIMIZERS,
}
HOURGLASS_STRIDE = 64  # input pixels: the stem reduces the resolution 4 times, the four poolings 16 times


def require(holds: bool, what: str, expected: str, got: object) -> None:
    """Raise ValueError, with the expected and the actual value, unless the condition holds."""
    if not holds:
        raise ValueError(f"{what} must be {expected}, but got {what}={got!r}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training settings; the defaults are those of the poster."""

    network: ClassVar[str] = ""  # "module:class", imported when a model is created

    epochs: int = 4  # passes over the training images; as in the poster's 3D runs
    batch: int = 4  # images per training step; as many as fitted into the authors' GPU
    optimizer: str = "adam"  # name in timm's optimizer factory
    lr: float = 2.5e-4  # initial learning rate, after the warm-up; the poster's
    weight_decay: float = 0.0  # as the optimizer defines it; the poster used none
    schedule: str = "constant"  # constant, halve (every epoch) or cosine (to zero at the last epoch)
    warmup_epochs: float = 0.0  # epochs of linear warm-up from zero; 0: off
    clip_norm: float | None = None  # maximum norm of the whole gradient; None: no clipping
    micro_batch: int | None = None  # images per forward pass, to save memory; None: the whole batch
    ema: float | None = None  # decay of the averaged weights, which then predict; None: off
    flip_test: bool = False  # average the predictions for an image and its mirror image
    augment: bool = False  # transform the training images at random
    augmentation: str = "full"  # full, or light (mirror, brightness, colour), for short training

    def __post_init__(self) -> None:
        check_types(self)
        require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        require(self.batch >= 1, "batch", "at least 1", self.batch)
        require(
            self.micro_batch is None or self.micro_batch >= 1, "micro_batch", "at least 1 or unset", self.micro_batch
        )
        require(self.ema is None or 0 < self.ema < 1, "ema", "above 0 and under 1, or unset", self.ema)
        require(self.optimizer in OPTIMIZERS, "optimizer", "one of " + ", ".join(OPTIMIZERS), self.optimizer)
        require(self.lr > 0, "lr", "above 0", self.lr)
        require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        require(self.schedule in SCHEDULES, "schedule", "one of " + ", ".join(SCHEDULES), self.schedule)
        known = "one of " + ", ".join(AUGMENTATIONS)
        require(self.augmentation in AUGMENTATIONS, "augmentation", known, self.augmentation)
        within = 0 <= self.warmup_epochs <= self.epochs
        require(within, "warmup_epochs", f"0 to epochs={self.epochs}", self.warmup_epochs)
        require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "above 0 or unset", self.clip_norm)


@dataclass(frozen=True, kw_only=True)
class TwoD(Recipe):
    """Stacked hourglass (Newell et al. 2016) whose heatmaps feed a lifter (Martinez et al. 2017), trained together."""

    network: ClassVar[str] = "models.two_d:TwoDHourglass"

    input_size: int = 256  # side of the square image in pixels; maps are a quarter as wide
    stacks: int = 8  # hourglasses one after another
    channels: int = 256  # feature channels of the hourglasses
    sigma: float = 1.0  # map pixels, of the target Gaussians; Newell's
    decoder: str = "local"  # method that decodes coordinates from the maps
    lifter_width: int = 1024  # units of each hidden layer of the lifter; Martinez'
    lifter_dropout: float = 0.5  # dropout rate of the lifter; Martinez'
    lifter_copies: int = 0  # augmented copies of each sample that the lifter also trains on; the poster had none
    pose_weight: float = 1.0  # weight of the pose loss relative to the heatmap loss; both start near 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_hourglass(self.input_size, self.channels, self.sigma, self.decoder)
        require(self.stacks >= 1, "stacks", "at least 1", self.stacks)
        require(self.lifter_width >= 1, "lifter_width", "at least 1", self.lifter_width)
        require(0 <= self.lifter_dropout < 1, "lifter_dropout", "at least 0 and under 1", self.lifter_dropout)
        require(self.lifter_copies >= 0, "lifter_copies", "at least 0", self.lifter_copies)
        require(self.pose_weight > 0, "pose_weight", "above 0", self.pose_weight)


@dataclass(frozen=True, kw_only=True)
class ThreeD(Recipe):
    """Coarse-to-fine volumetric hourglass (Pavlakos et al. 2017) over a root-centred metric cube."""

    network: ClassVar[str] = "models.three_d:ThreeDHourglass"

    input_size: int = 256  # side of the square image in pixels; maps are a quarter as wide
    depths: tuple[int, ...] = (1, 2, 4, 64)  # depth bins of each stack; the poster's. For 8 stacks: 1,2,4,8,16,32,48,64
    channels: int = 256  # feature channels of the hourglasses
    cube_mm: float = 2000.0  # edge of the cube around the pelvis; arms stretched upward just fit
    sigma: float = 2.0  # map pixels, of the target Gaussians; the same length in z, unless the bins are coarse
    decoder: str = "dark"  # method that decodes coordinates from the last volume; more accurate than local

    def __post_init__(self) -> None:
        super().__post_init__()
        check_hourglass(self.input_size, self.channels, self.sigma, self.decoder)
        increasing = all(shallow < deep for shallow, deep in zip(self.depths, self.depths[1:], strict=False))
        sensible = len(self.depths) > 0 and self.depths[0] >= 1 and self.depths[-1] >= 4
        require(increasing and sensible, "depths", "increasing from at least 1 to at least 4", self.depths)
        require(self.cube_mm > 0, "cube_mm", "above 0", self.cube_mm)


@dataclass(frozen=True, kw_only=True)
class Integral(Recipe):
    """A timm backbone with deconvolutions and integral regression (Sun et al. 2018)."""

    network: ClassVar[str] = "models.integral:IntegralRegression"

    epochs: int = 8  # averaged weights need more than the poster's 4
    batch: int = 32  # images per training step; batch normalisation needs more than the poster's 4
    optimizer: str = "adamw"  # decouples weight decay from the gradient
    lr: float = 5e-4  # after the warm-up; 1e-3 can diverge without warm-up or clipping
    weight_decay: float = 0.01  # AdamW's default
    warmup_epochs: float = 0.5  # the softmax over a whole volume is unstable at the start
    clip_norm: float | None = 1.0  # the same reason
    ema: float | None = 0.999  # better than a decaying learning rate
    flip_test: bool = True  # more accurate; prediction takes twice as long
    augment: bool = True  # a pretrained backbone overfits otherwise

    input_size: int = 256  # side of the square image in pixels
    backbone: str = "resnet50"  # any timm model that supports features_only
    pretrained: bool = False  # download pretrained weights of the backbone
    deconvolution_channels: int = 256  # channels of each of the three deconvolutions; Sun's
    bins: int = 64  # depth bins of the volume
    cube_mm: float = 2000.0  # edge of the cube that the volume covers

    def __post_init__(self) -> None:
        super().__post_init__()
        valid = self.input_size >= 32 and self.input_size % 32 == 0
        require(valid, "input_size", "a positive multiple of 32", self.input_size)
        require(bool(self.backbone), "backbone", "a name that timm knows", self.backbone)
        require(self.deconvolution_channels >= 1, "deconvolution_channels", "at least 1", self.deconvolution_channels)
        require(self.bins >= 2, "bins", "at least 2", self.bins)
        require(self.cube_mm > 0, "cube_mm", "above 0", self.cube_mm)


def check_hourglass(input_size: int, channels: int, sigma: float, decoder: str) -> None:
    """Check the settings that both hourglass networks share."""
    valid = input_size >= HOURGLASS_STRIDE and input_size % HOURGLASS_STRIDE == 0
    require(valid, "input_size", f"a positive multiple of {HOURGLASS_STRIDE}", input_size)
    require(channels >= 4 and channels % 4 == 0, "channels", "a positive multiple of 4", channels)
    require(sigma > 0, "sigma", "above 0", sigma)
    require(decoder in DECODERS, "decoder", "one of " + ", ".join(DECODERS), decoder)


def check_types(recipe: Recipe) -> None:
    """Check every value against its field's type; an int is a valid float, a bool is neither; floats must be finite."""
    hints = get_type_hints(type(recipe))
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        hint = hints[field.name]
        expected = hint.__name__ if isinstance(hint, type) else str(hint)
        require(is_of_type(value, hint), field.name, f"of type {expected}", value)
        require(not isinstance(value, float) or math.isfinite(value), field.name, "finite", value)


def is_of_type(value: object, hint: Any) -> bool:
    """Return whether a value has an annotated type, of those that recipes use."""
    if isinstance(hint, UnionType):
        return any(is_of_type(value, member) for member in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(is_of_type(item, get_args(hint)[0]) for item in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)
