"""Checkpoints: all that is needed to rebuild a network and to resume its training."""

import io
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from competition.common.errors import Command, RunError
from competition.common.files import atomic
from competition.training.calls import create_model
from models.contract import Module

FORMAT = 2
_FIX = "delete it to train again"

Weights: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Part:
    """The progress within an epoch; raise TypeError for values of other types."""

    step: int  # completed steps
    loss_sum: Tensor  # over these steps
    rng: Tensor  # state of torch's generator after them
    gpu_rng: Tensor | None = None  # the same of the GPU, where dropout draws its masks; None on a CPU

    def __post_init__(self) -> None:
        tensors = isinstance(self.loss_sum, Tensor) and isinstance(self.rng, Tensor)
        if type(self.step) is not int or not tensors or not isinstance(self.gpu_rng, Tensor | None):
            raise TypeError("expected an int and two tensors, and a tensor or nothing")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network after `epoch` epochs; to resume training also the states of what trains it."""

    recipe: str  # name of the model
    settings: dict[str, object]  # of the recipe
    epoch: int
    model: Weights
    optimizer: dict[str, object] | None = None
    ema: Weights | None = None  # averaged weights
    part: Part | None = None  # of the next epoch


def checkpoint_of(
    name: str,
    model: Module,
    *,
    epoch: int,
    optimizer: dict[str, object] | None = None,
    ema: Weights | None = None,
    part: Part | None = None,
) -> Checkpoint:
    """Return the checkpoint of a network."""
    settings = asdict(model.recipe)
    if "pretrained" in settings:
        settings["pretrained"] = False  # the file holds the weights: rebuilding must not download others
    return Checkpoint(
        recipe=name, settings=settings, epoch=epoch, model=model.state_dict(), optimizer=optimizer, ema=ema, part=part
    )


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint."""
    state = {
        "format": FORMAT,
        "recipe": checkpoint.recipe,
        "settings": checkpoint.settings,
        "epoch": checkpoint.epoch,
        "model": checkpoint.model,
        "optimizer": checkpoint.optimizer,
        "ema": checkpoint.ema,
        "part": None if checkpoint.part is None else vars(checkpoint.part),
    }
    archive = io.BytesIO()  # torch aborts the process if it can't finish an archive in a file that is closed by then
    torch.save(_canonical(state), archive)
    with atomic(path) as handle:
        handle.write(archive.getbuffer())


def _canonical(value: Any) -> Any:
    """Copy containers and intern strings, so that equal states are saved as equal bytes.

    Pickle writes a repeated object as a reference, and which objects are shared changes when a state is loaded.
    """
    if isinstance(value, dict):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_canonical(item) for item in value])
    return sys.intern(value) if type(value) is str else value


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without executing code in it; raise RunError if it is missing, damaged or of another format."""
    try:
        _reject_compressed(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        command = Command("train", {"model": None, "run": path.parent.parent.name})
        raise RunError(f"no checkpoint at {path}, expected a trained fold", command=command) from None
    except Exception as error:  # torch and pickle raise errors of any kind for damaged bytes
        reason = str(error).strip().split("\n")[0][:100]
        raise RunError(f"{path} is not a readable checkpoint ({reason})", fix=_FIX) from None
    if not isinstance(state, dict) or state.pop("format", None) != FORMAT or not _is_complete(state):
        raise RunError(f"{path} is not a checkpoint of this toolkit (format {FORMAT})", fix=_FIX)
    try:
        part = None if state["part"] is None else Part(**state["part"])
        return Checkpoint(**state | {"part": part})
    except TypeError:
        raise RunError(f"{path} is damaged: its keys or types aren't those of this toolkit", fix=_FIX) from None


def _reject_compressed(path: Path) -> None:
    """Raise ValueError for a compressed zip archive: torch writes none, but would decompress it to any size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > path.stat().st_size:
            raise ValueError(f"compressed: {size:,} bytes when decompressed")


def _is_complete(state: dict[object, object]) -> bool:
    types = {"recipe": str, "settings": dict, "epoch": int, "model": dict}
    return {"optimizer", "ema", "part"} <= set(state) and all(isinstance(state.get(k), v) for k, v in types.items())


def load_weights(model: Module, weights: Weights, path: Path) -> None:
    """Load a checkpoint's weights into a network; raise RunError if their names or shapes differ."""
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        known = model.state_dict()
        if unknown := [name for name in (weights if isinstance(weights, dict) else ()) if name not in known]:
            raise RunError(
                f"{path} is of another version of this network, with {len(unknown)} other weights ({unknown[0]}, ...)",
                fix="train it again as a new run, or use the code at the commit in its config.json",
            ) from None
        detail = " ".join(str(error).split())[:160]
        raise RunError(f"{path}: its weights don't fit this network: {detail}") from None


def load_model(path: Path) -> tuple[Module, str]:
    """Create the network of a checkpoint with the weights used for prediction; return it and its name."""
    checkpoint = load_checkpoint(path)
    try:
        model = create_model(checkpoint.recipe, **checkpoint.settings)
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} doesn't fit the models in this clone: {error}") from None
    load_weights(model, checkpoint.model if checkpoint.ema is None else checkpoint.ema, path)
    return model, checkpoint.recipe
