"""Checkpoints: a network that rebuilds itself, and the optimiser's state to go on from."""

import sys
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import models
from competition.common.errors import RunError
from competition.common.files import atomic
from models.contract import Module

FORMAT = 2


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

    Where training is to go on: with the states of the optimiser and of the averaged weights, and `part` of the steps
    taken since.
    """
    settings = asdict(model.recipe)
    if "pretrained" in settings:
        settings["pretrained"] = False  # its weights are in the file: none are to be downloaded again
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
    with atomic(path) as handle:  # through a handle: given a path, torch writes its name into the archive
        try:
            torch.save(_canonical(state), handle)
        except RuntimeError as error:
            if isinstance(full := error.__context__, OSError):  # torch complains of the archive that it can't close
                raise full from None
            raise


def _canonical(value: Any) -> Any:
    """Rebuild containers and intern strings: pickle writes an object that it meets twice as a reference, so that equal
    states would differ in their bytes by whether they had been loaded from a file before."""
    if isinstance(value, dict):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_canonical(item) for item in value])
    return sys.intern(value) if type(value) is str else value


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code in it; raise RunError when it is missing, damaged or of another format."""
    try:
        _refuse_bomb(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"no checkpoint at {path}") from None
    except Exception as error:  # torch and pickle raise what they like on damaged bytes
        reason = str(error).strip().split("\n")[0][:100]
        raise RunError(f"{path} is no whole checkpoint of this toolkit ({reason}): delete it to train anew") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT or not _is_whole(state):
        raise RunError(f"{path} is not a checkpoint of this toolkit (format {FORMAT}): delete it to train anew")
    return state


def _refuse_bomb(path: Path) -> None:
    """Raise ValueError when a zip archive unpacks to more than it holds: torch packs nothing, and unpacks anything."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > path.stat().st_size:
            raise ValueError(f"it unpacks to {size:,} bytes")


def _is_whole(state: dict[str, Any]) -> bool:
    named = {"recipe": str, "settings": dict, "epoch": int, "model": dict}
    return {"optimizer", "ema", "part"} <= set(state) and all(isinstance(state.get(k), v) for k, v in named.items())


def load_weights(model: Module, state: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into a network of the same shape."""
    try:
        model.load_state_dict(state["model"])
    except (RuntimeError, TypeError, AttributeError) as error:
        detail = " ".join(str(error).split())[:160]
        raise RunError(f"{path} holds a {state['recipe']} of other sizes: {detail}") from None


def rebuild(path: Path) -> tuple[Module, dict[str, Any]]:
    """Make the network that a checkpoint holds, with the weights that predict."""
    state = load_checkpoint(path)
    try:
        model = models.create(state["recipe"], **state["settings"])
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} was made by another version of the models: {error}") from None
    averaged = state["ema"]
    load_weights(model, state if averaged is None else state | {"model": averaged}, path)
    return model, state
