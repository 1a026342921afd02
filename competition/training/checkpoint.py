"""Checkpoints: all that is needed to rebuild a network and to resume its training."""

import sys
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import models
from competition.common.errors import Command, RunError
from competition.common.files import atomic
from models.contract import Module

FORMAT = 2
_FIX = "delete it to train again"


def save_checkpoint(
    path: Path,
    name: str,
    model: Module,
    *,
    epoch: int,
    optimizer: dict[str, Any] | None = None,
    ema: dict[str, Any] | None = None,
    part: dict[str, Any] | None = None,
) -> None:
    """Save a network after `epoch` epochs.

    To resume training, also pass the states of the optimizer and of the averaged weights, and in `part` the progress
    within the next epoch.
    """
    settings = asdict(model.recipe)
    if "pretrained" in settings:
        settings["pretrained"] = False  # the file holds the weights: rebuilding must not download others
    state = {
        "format": FORMAT,
        "recipe": name,
        "settings": settings,
        "epoch": epoch,
        "model": model.state_dict(),
        "optimizer": optimizer,
        "ema": ema,
        "part": part,
    }
    with atomic(path) as handle:  # not a path: torch would write its name into the archive
        try:
            torch.save(_canonical(state), handle)
        except RuntimeError as error:
            if isinstance(full := error.__context__, OSError):  # torch reports only that it can't close the archive
                raise full from None
            raise


def _canonical(value: Any) -> Any:
    """Copy containers and intern strings, so that equal states are saved as equal bytes.

    Pickle writes a repeated object as a reference, and which objects are shared changes when a state is loaded.
    """
    if isinstance(value, dict):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_canonical(item) for item in value])
    return sys.intern(value) if type(value) is str else value


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without executing code in it; raise RunError if it is missing, damaged or of another format."""
    try:
        _reject_compressed(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"no checkpoint at {path}, expected a trained fold", command=Command("train")) from None
    except Exception as error:  # torch and pickle raise errors of any kind for damaged bytes
        reason = str(error).strip().split("\n")[0][:100]
        raise RunError(f"{path} is not a readable checkpoint ({reason})", fix=_FIX) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT or not _is_complete(state):
        raise RunError(f"{path} is not a checkpoint of this toolkit (format {FORMAT})", fix=_FIX)
    return state


def _reject_compressed(path: Path) -> None:
    """Raise ValueError for a compressed zip archive: torch writes none, but would decompress it to any size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > path.stat().st_size:
            raise ValueError(f"compressed: {size:,} bytes when decompressed")


def _is_complete(state: dict[str, Any]) -> bool:
    types = {"recipe": str, "settings": dict, "epoch": int, "model": dict}
    return {"optimizer", "ema", "part"} <= set(state) and all(isinstance(state.get(k), v) for k, v in types.items())


def load_weights(model: Module, state: dict[str, Any], path: Path) -> None:
    """Load a checkpoint's weights into a network; raise RunError if their shapes differ."""
    try:
        model.load_state_dict(state["model"])
    except (RuntimeError, TypeError, AttributeError) as error:
        detail = " ".join(str(error).split())[:160]
        raise RunError(f"{path}: weights of {state['recipe']} don't fit this network: {detail}") from None


def load_model(path: Path) -> tuple[Module, dict[str, Any]]:
    """Create the network of a checkpoint with the weights used for prediction; return it and the checkpoint."""
    state = load_checkpoint(path)
    try:
        model = models.create(state["recipe"], **state["settings"])
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} doesn't fit the models in this clone: {error}") from None
    averaged = state["ema"]
    load_weights(model, state if averaged is None else state | {"model": averaged}, path)
    return model, state
