"""Recipes: all settings of a model and its training, as frozen dataclasses; models/__init__.py lists them by name.

Recipe holds the training settings; one subclass per network adds the settings of the network. Every field is a flag of
`train`, and its Setting says what the flag means. This file imports neither torch nor timm.
"""

import math
from dataclasses import dataclass, fields
from types import UnionType
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

SCHEDULES = ("constant", "halve", "cosine")
AUGMENTATIONS = ("full", "light")
DECODERS = ("argmax", "dark", "local")
OPTIMIZERS = (  # those of timm that need no other package; listed here, because importing timm takes seconds
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamp", "adamw", "adan", "adopt", "lamb",
    "laprop", "larc", "lars", "lion", "madgrad", "mars", "momentum", "muon", "nadam", "nadamw", "nesterov", "novograd",
    "radam", "rmsprop", "sgd", "sgdp", "sgdw",
)  # fmt: skip
HOURGLASS_STRIDE = 64  # input pixels: the stem reduces the resolution 4 times, the four poolings 16 times


def require(holds: bool, what: str, expected: str, got: object) -> None:
    """Raise ValueError, with the expected and the actual value, unless the condition holds."""
    if not holds:
        raise ValueError(f"{what} must be {expected}, but got {what}={got!r}")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The declaration of a setting, beside the type and the default of its field.

    A subclass that repeats a field only to change its default inherits the declaration.
    """

    help: str  # a phrase that makes sense without the name
    unit: str = ""
    choices: tuple[str, ...] = ()  # the allowed values; empty: all values of the type
    tune: tuple[float, float] | None = None  # the range to search for the best value, both ends included
    log: bool = False  # search the range on a logarithmic scale
    tune_values: tuple[str | float | None, ...] = ()  # the values to try instead of a range
    tune_if: tuple[str, bool | str] | None = None  # searched only where another setting has this value


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training settings; the defaults are those of the poster."""

    network: ClassVar[str] = ""  # "module:class", imported when a model is created

    epochs: Annotated[int, Setting(help="passes over the training images")] = 4  # as in the 3D runs
    # the default is as many as fitted into the authors' GPU
    batch: Annotated[int, Setting(help="images per training step", tune_values=(4, 8, 16, 32))] = 4
    optimizer: Annotated[
        str,
        Setting(
            help="optimizer, named as in timm; muon is this toolkit's own",
            choices=OPTIMIZERS,
            tune_values=("adam", "adamw", "muon"),
        ),
    ] = "adam"
    lr: Annotated[float, Setting(help="learning rate after the warm-up", tune=(1e-5, 1e-2), log=True)] = 2.5e-4
    weight_decay: Annotated[
        float, Setting(help="weight decay, as the optimizer defines it", tune=(1e-5, 0.1), log=True)
    ] = 0.0
    schedule: Annotated[
        str,
        Setting(
            help="learning rate over time; halve: halved after each epoch, cosine: decays to zero at the last epoch",
            choices=SCHEDULES,
            tune_values=SCHEDULES,
        ),
    ] = "constant"
    warmup_epochs: Annotated[
        float, Setting(help="linear learning-rate warm-up from zero", unit="epochs", tune=(0.0, 1.0))
    ] = 0.0
    clip_norm: Annotated[
        float | None,
        Setting(help="maximum norm of the whole gradient; none: no clipping", tune_values=(None, 0.3, 1.0, 3.0)),
    ] = None
    micro_batch: Annotated[
        int | None,
        Setting(help="images per forward pass, where a batch doesn't fit into memory; none: the whole batch"),
    ] = None
    ema: Annotated[
        float | None,
        Setting(
            help="largest decay of an exponential moving average of the weights, which is then used for prediction; "
            "in step t it is 1 - t^(-2/3) if that is less; none: off",
            tune_values=(None, 0.99, 0.999, 0.9995),
        ),
    ] = None
    flip_test: Annotated[bool, Setting(help="average the predictions for an image and its mirror image")] = False
    augment: Annotated[bool, Setting(help="augment the training images", tune_values=(False, True))] = False
    augmentation: Annotated[
        str,
        Setting(
            help="transforms that augment the images; light: mirroring, brightness and colour, full: also rotation, "
            "scale, shift and dropout (used only with --augment)",
            choices=AUGMENTATIONS,
            tune_values=AUGMENTATIONS,
            tune_if=("augment", True),
        ),
    ] = "full"

    def __post_init__(self) -> None:
        check_declarations(self)
        require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        require(self.batch >= 1, "batch", "at least 1", self.batch)
        require(
            self.micro_batch is None or self.micro_batch >= 1, "micro_batch", "at least 1 or unset", self.micro_batch
        )
        require(self.ema is None or 0 < self.ema < 1, "ema", "above 0 and under 1, or unset", self.ema)
        require(self.lr > 0, "lr", "above 0", self.lr)
        require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        within = 0 <= self.warmup_epochs <= self.epochs
        require(within, "warmup_epochs", f"0 to epochs={self.epochs}", self.warmup_epochs)
        require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "above 0 or unset", self.clip_norm)


# Settings of several networks

InputSize = Annotated[int, Setting(help="side of the network's square input", unit="pixels")]
Channels = Annotated[int, Setting(help="feature channels of each hourglass")]
Sigma = Annotated[
    float, Setting(help="standard deviation of the target Gaussians", unit="heatmap pixels", tune=(0.7, 3.0))
]
Decoder = Annotated[str, Setting(help="method that reads coordinates from heatmaps", choices=DECODERS)]
CubeMm = Annotated[float, Setting(help="edge of the predicted volume around the pelvis", unit="mm")]


@dataclass(frozen=True, kw_only=True)
class TwoD(Recipe):
    """Stacked hourglass (Newell et al. 2016) whose heatmaps feed a lifter (Martinez et al. 2017), trained together."""

    network: ClassVar[str] = "models.two_d:TwoDHourglass"

    input_size: InputSize = 256  # maps are a quarter as wide
    stacks: Annotated[int, Setting(help="number of stacked hourglasses")] = 8
    channels: Channels = 256
    sigma: Sigma = 1.0  # Newell's
    decoder: Decoder = "local"
    lifter_width: Annotated[
        int, Setting(help="units of each hidden layer of the network that lifts 2D joints to 3D")
    ] = 1024  # Martinez'
    lifter_dropout: Annotated[
        float, Setting(help="dropout rate of the network that lifts 2D joints to 3D", tune=(0.0, 0.6))
    ] = 0.5  # Martinez'
    lifter_copies: Annotated[
        int,
        Setting(
            help="augmented copies of each sample's 2D joints that the lifting network also trains on", tune=(0, 16)
        ),
    ] = 0  # as on the poster
    pose_weight: Annotated[
        float, Setting(help="weight of the pose loss relative to the heatmap loss", tune=(0.1, 10.0), log=True)
    ] = 1.0  # both start near 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_hourglass(self.input_size, self.channels, self.sigma)
        require(self.stacks >= 1, "stacks", "at least 1", self.stacks)
        require(self.lifter_width >= 1, "lifter_width", "at least 1", self.lifter_width)
        require(0 <= self.lifter_dropout < 1, "lifter_dropout", "at least 0 and under 1", self.lifter_dropout)
        require(self.lifter_copies >= 0, "lifter_copies", "at least 0", self.lifter_copies)
        require(self.pose_weight > 0, "pose_weight", "above 0", self.pose_weight)


@dataclass(frozen=True, kw_only=True)
class ThreeD(Recipe):
    """Coarse-to-fine volumetric hourglass (Pavlakos et al. 2017) over a root-centred metric cube."""

    network: ClassVar[str] = "models.three_d:ThreeDHourglass"

    input_size: InputSize = 256  # maps are a quarter as wide
    # the default is the poster's; for 8 stacks: 1,2,4,8,16,32,48,64
    depths: Annotated[tuple[int, ...], Setting(help="depth bins of each stack's volume")] = (1, 2, 4, 64)
    channels: Channels = 256
    cube_mm: CubeMm = 2000.0  # arms stretched upward just fit
    sigma: Sigma = 2.0  # the same length in z, unless the bins are coarse
    decoder: Decoder = "dark"  # more accurate than local

    def __post_init__(self) -> None:
        super().__post_init__()
        check_hourglass(self.input_size, self.channels, self.sigma)
        increasing = all(shallow < deep for shallow, deep in zip(self.depths, self.depths[1:], strict=False))
        sensible = len(self.depths) > 0 and self.depths[0] >= 1 and self.depths[-1] >= 4
        require(increasing and sensible, "depths", "increasing from at least 1 to at least 4", self.depths)
        require(self.cube_mm > 0, "cube_mm", "above 0", self.cube_mm)


@dataclass(frozen=True, kw_only=True)
class Integral(Recipe):
    """A timm backbone with deconvolutions and integral regression (Sun et al. 2018)."""

    network: ClassVar[str] = "models.integral:IntegralRegression"

    epochs: int = 8  # averaged weights need more than the poster's 4
    batch: int = 32  # batch normalisation needs more than the poster's 4
    optimizer: str = "adamw"  # decouples weight decay from the gradient
    lr: float = 5e-4  # 1e-3 can diverge without warm-up or clipping
    weight_decay: float = 0.01  # AdamW's default
    warmup_epochs: float = 0.5  # the softmax over a whole volume is unstable at the start
    clip_norm: float | None = 1.0  # the same reason
    ema: float | None = 0.999  # better than a decaying learning rate
    flip_test: bool = True  # more accurate; prediction takes twice as long
    augment: bool = True  # a pretrained backbone overfits otherwise

    input_size: InputSize = 256
    backbone: Annotated[str, Setting(help="timm model that extracts the features")] = "resnet50"  # needs features_only
    pretrained: Annotated[bool, Setting(help="download pretrained weights of the backbone")] = False
    deconvolution_channels: Annotated[int, Setting(help="channels of each of the three deconvolutions")] = 256  # Sun's
    bins: Annotated[int, Setting(help="depth bins of the volume")] = 64
    cube_mm: CubeMm = 2000.0
    sigma: Sigma = 2.0
    heatmap_weight: Annotated[
        float,
        Setting(
            help="weight of the cross-entropy of the volume's marginals relative to the L1 loss of the pose",
            tune=(0.01, 1.0),
            log=True,
        ),
    ] = 0.1  # learns faster from scratch; 0 is Sun's loss

    def __post_init__(self) -> None:
        super().__post_init__()
        valid = self.input_size >= 32 and self.input_size % 32 == 0
        require(valid, "input_size", "a positive multiple of 32", self.input_size)
        require(bool(self.backbone), "backbone", "a name that timm knows", self.backbone)
        require(self.deconvolution_channels >= 1, "deconvolution_channels", "at least 1", self.deconvolution_channels)
        require(self.bins >= 2, "bins", "at least 2", self.bins)
        require(self.sigma > 0, "sigma", "above 0", self.sigma)
        require(self.heatmap_weight >= 0, "heatmap_weight", "at least 0", self.heatmap_weight)
        require(self.cube_mm > 0, "cube_mm", "above 0", self.cube_mm)


def check_hourglass(input_size: int, channels: int, sigma: float) -> None:
    """Check the settings that both hourglass networks share."""
    valid = input_size >= HOURGLASS_STRIDE and input_size % HOURGLASS_STRIDE == 0
    require(valid, "input_size", f"a positive multiple of {HOURGLASS_STRIDE}", input_size)
    require(channels >= 4 and channels % 4 == 0, "channels", "a positive multiple of 4", channels)
    require(sigma > 0, "sigma", "above 0", sigma)


def settings_of(kind: type[Recipe]) -> dict[str, tuple[Any, Setting]]:
    """Return the type and the declaration of every field; a field without one gets its name as the help text."""
    declared: dict[str, Setting] = {}
    for base in reversed(kind.__mro__):
        for name, hint in get_type_hints(base, include_extras=True).items():
            for data in getattr(hint, "__metadata__", ()):
                if isinstance(data, Setting):
                    declared[name] = data
    types = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    return {name: (types[name], declared.get(name, Setting(help=name.replace("_", " ")))) for name in names}


def check_declarations(recipe: Recipe) -> None:
    """Check every value against its field's type and choices; an int is a valid float, a bool is neither."""
    for name, (hint, setting) in settings_of(type(recipe)).items():
        value = getattr(recipe, name)
        expected = hint.__name__ if isinstance(hint, type) else str(hint)
        require(is_of_type(value, hint), name, f"of type {expected}", value)
        require(not isinstance(value, float) or math.isfinite(value), name, "finite", value)
        require(not setting.choices or value in setting.choices, name, "one of " + ", ".join(setting.choices), value)


def is_of_type(value: object, hint: Any) -> bool:
    """Return whether a value has an annotated type, of those that recipes use."""
    if isinstance(hint, UnionType):
        return any(is_of_type(value, member) for member in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(is_of_type(item, get_args(hint)[0]) for item in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)
