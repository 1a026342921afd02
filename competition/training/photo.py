"""Predict the pose in a photo with the networks of a run.

    photo -> upright RGB -> crop of 256 pixels, as in the competition -> every fold's network -> mean of the poses

The crop is a square around the bounding box of the joints with a margin. The competition's margin is 40 pixels of its
camera images; here it is a fraction of the box, as photos have any size. Networks predict joints relative to the pelvis
but not its position, so that the pose is drawn over the crop by fitting its bounding box (`place_pose`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch

from competition.common.arrays import Float64, Image
from competition.common.choices import Box
from competition.common.errors import Command, DataError, RunError, UserError
from competition.common.files import read_bytes
from competition.common.skeleton import IMAGE_PX
from competition.common.workspace import Workspace
from competition.data.dataset import Dataset
from competition.runs.folders import FULL, fold_folder, fold_folders
from competition.runs.missing import missing_folds
from competition.runs.record import RunConfig, read_config
from competition.training.device import autocast, choose_device, choose_precision, fold_threads, threads
from competition.training.predict import predict_images
from competition.training.predict_run import find_weights, load_network

MARGIN: Final = 0.124  # fraction of the box's longer side: 40 px for the median box of the synthetic competition
MIN_BOX_PX: Final = 16  # length of the box's longer side
_PNG: Final = b"\x89PNG"  # OpenCV decodes truncated PNG files without an error
MAX_BYTES: Final = 1 << 28  # size of a photo's file


@dataclass(frozen=True, kw_only=True)
class PhotoPrediction:
    """The predicted pose of a photo."""

    crop: Image  # [256, 256, 3], the networks' input
    pose_mm: Float64  # [17, 3], camera axes, relative to the pelvis
    pose_px: Float64  # [17, 2], pixels of the crop
    trained: str  # description of the networks and their training images


def predict_photo(
    workspace: Workspace,
    run: str,
    photo: Path,
    *,
    box: Box | None = None,
    epoch: int | None = None,
    decoder: str | None = None,
    flip: bool | None = None,
) -> PhotoPrediction:
    """Predict the pose in a photo as the mean over the networks of all folds.

    `box` is tight around the person's joints; without it the whole photo is the crop. Raise UserError for a file that
    is not an image, a box outside the photo, or a run that is not completely trained.
    """
    crop = crop_photo(read_photo(photo), box, photo)
    networks = find_networks(workspace, run, epoch)
    pose_mm = np.mean([_predict(crop, network, decoder, flip) for network in networks], axis=0)
    if not np.isfinite(pose_mm).all():
        raise RunError(f"run {run} predicts a pose that is not finite", fix="train it again with a lower --lr")
    trained = _describe_networks(workspace, run, networks)
    return PhotoPrediction(crop=crop, pose_mm=pose_mm, pose_px=place_pose(pose_mm), trained=trained)


def read_photo(path: Path) -> Image:
    """Decode an image file as upright RGB [H, W, 3]; raise UserError if it is not an image, or truncated."""
    content = read_bytes(path, what="photo", limit=MAX_BYTES)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the errors below replace its messages
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB) if content else None
    except cv2.error as error:  # such as too many pixels
        raise UserError(f"{path} can't be decoded ({error.err}): expected a photo of under 2^30 pixels") from None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None or (content.startswith(_PNG) and b"IEND" not in content[-16:]):
        reason = "is empty" if not content else "is not an image, or truncated"
        raise UserError(f"{path} {reason}: expected a complete JPEG, PNG, WebP, TIFF or BMP file")
    return np.asarray(image, np.uint8)


def crop_photo(photo: Image, box: Box | None, name: Path) -> Image:
    """Crop a photo [H, W, 3] to [256, 256, 3] as the competition's images are; pixels beyond its edge repeat the edge.

    Without a box, the whole photo is the box, without a margin. Raise UserError, naming the photo, for a box that isn't
    inside it or is too small.
    """
    height, width = photo.shape[:2]
    if box is None:
        x, y, w, h, margin = 0.0, 0.0, float(width), float(height), 0.0
    else:
        (x, y, w, h), margin = box, MARGIN
        if not (x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height):  # false for NaN, too
            given = ",".join(f"{value:g}" for value in box)
            raise UserError(f"box {given} isn't inside {name}, {width}x{height} px upright: expected x,y,w,h in pixels")
    if max(w, h) < MIN_BOX_PX:
        raise UserError(f"{name}: a person of {max(w, h):g} px is too small: expected at least {MIN_BOX_PX} px")
    side = max(round(max(w, h) * (1 + margin)), 1)
    left, top = round(x + w / 2 - side / 2), round(y + h / 2 - side / 2)
    inside = photo[max(0, top) : top + side, max(0, left) : left + side]
    beyond = (max(0, -top), max(0, top + side - height), max(0, -left), max(0, left + side - width))
    square = cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_REPLICATE)
    return _resize(np.asarray(square, np.uint8), IMAGE_PX)


def place_pose(pose_mm: Float64) -> Float64:
    """Project a pose [17, 3] in mm to pixels [17, 2] of its crop, so that its box fills the crop up to the margin."""
    xy_mm = pose_mm[:, :2]
    low, high = xy_mm.min(axis=0), xy_mm.max(axis=0)
    scale = IMAGE_PX / (1 + MARGIN) / max(float((high - low).max()), 1e-6)
    return np.asarray((xy_mm - (low + high) / 2) * scale + (IMAGE_PX - 1) / 2)


@dataclass(frozen=True, kw_only=True)
class Network:
    """The saved network of a fold."""

    weights: Path
    epoch: int
    config: RunConfig


def find_networks(workspace: Workspace, run: str, epoch: int | None) -> list[Network]:
    """Find the weights of every fold of a run, or of fold `full` if there is no other.

    Raise RunError for a run that is missing, not completely trained, or without networks.
    """
    source = workspace.existing_run(run)
    folders = fold_folders(source) or [folder for folder in (fold_folder(source, FULL),) if folder.is_dir()]
    configs = [read_config(folder) for folder in folders if (folder / "config.json").exists()]
    if not configs:
        command = Command("train", {"model": None, "run": run})
        raise RunError(f"{source} contains no networks, expected a trained run", command=command)
    if predicted_from := next((config.predicted_from for config in configs if config.predicted_from), None):
        raise RunError(f"{source} contains only poses predicted with run {predicted_from}", fix="use that run")
    unfinished = [folder.name for folder in folders if not (folder / "done.json").exists()]
    missing = missing_folds(source, workspace.folds)
    if unfinished or missing is not None:
        reason = missing or f"{', '.join(unfinished)} (of {len(folders)} folds) unfinished"
        raise RunError(
            f"run {run} is not completely trained: {reason}",
            fix="resume with the same flags",
            command=Command("train", {"model": configs[0].recipe, "run": run}),
        )
    networks = []
    for folder in folders:
        weights, saved = find_weights(folder, epoch)
        networks.append(Network(weights=weights, epoch=saved, config=read_config(folder)))
    return networks


def _predict(crop: Image, network: Network, decoder: str | None, flip: bool | None) -> Float64:
    """Predict a pose [17, 3] in mm with one fold's network."""
    device = choose_device()
    model, name = load_network(network.weights, decoder, device)
    precision = choose_precision(network.config.precision, device)
    image = torch.from_numpy(_resize(crop, model.spec.input_size))[None].to(device)
    with threads(fold_threads(name, device)), torch.inference_mode(), autocast(precision, device):
        pose_mm = predict_images(model, image, model.recipe.flip_test if flip is None else flip, name)
    return np.asarray(pose_mm[0].cpu().numpy(), np.float64)


def _resize(square: Image, size: int) -> Image:
    if square.shape[0] == size:
        return square
    interpolation = cv2.INTER_AREA if size < square.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=interpolation), np.uint8)


def _describe_networks(workspace: Workspace, run: str, networks: list[Network]) -> str:
    """Describe the networks and their training images for the output."""
    config, dataset = networks[0].config, Dataset(workspace.data)
    epochs = ", ".join(str(network.epoch) for network in networks)
    name = f"run {run} ({config.recipe}), {len(networks)} network{'s' * (len(networks) > 1)} (epoch {epochs})"
    try:
        same = dataset.images_sha256 == config.images_sha256
    except DataError:
        same = False
    if not same:
        return f"{name}, trained on other images than those in {workspace.data}"
    note = " (synthetic images: expect poor results on photos)" if dataset.is_synthetic else ""
    return f"{name}, trained on the {len(dataset.labels.id):,} images of {workspace.data}{note}"
