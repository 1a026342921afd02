"""Predicting a picture of one's own with the networks of a run.

    photo -> upright RGB -> the competition's crop, 256 pixels -> every fold's network -> the mean of their poses

The crop is a square around the box of the joints, which the competition widens by 40 pixels of its cameras' pictures.
In those a person's box is some 330 pixels long, so the margin here is a share of the box. A network says where joints
lie relative to the pelvis and not where the pelvis is: over the picture the pose is drawn where the crop has its box.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
import torch

from competition.common.arrays import Float64, Image
from competition.common.choices import Box
from competition.common.errors import DataError, RunError, UserError
from competition.common.files import read_bytes, read_json
from competition.common.skeleton import IMAGE_PX
from competition.common.workspace import Workspace
from competition.data.labels import read_labels
from competition.runs.candidates import describe_missing_folds
from competition.runs.folders import FULL, fold_folder, fold_folders
from competition.runs.record import read_config
from competition.training.device import autocast, choose_device, choose_precision
from competition.training.predict import predict_images
from competition.training.predict_run import kept_weights, load_network

MARGIN: Final = 0.124  # of the box's longer side: 40 px at the median of the embedded competition's pictures
LEAST_PX: Final = 16  # of the box's longer side; less is no person
_PNG: Final = b"\x89PNG"  # whose decoder takes broken-off files for whole ones
MOST_BYTES: Final = 1 << 28  # of a photo's file


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was found in a photo."""

    crop: Image  # [256, 256, 3], what the networks saw
    pose_mm: Float64  # [17, 3], camera axes, relative to the pelvis
    pose_px: Float64  # [17, 2], laid over the crop
    trained: str  # what the networks were trained on


def predict_photo(
    workspace: Workspace,
    run: str,
    photo: Path,
    *,
    box: Box | None = None,
    epoch: int | None = None,
    decoder: str | None = None,
    flip: bool | None = None,
) -> Predicted:
    """Predict the pose in a photo, the mean over the run's folds.

    `box` is tight around the person's joints; without it the whole photo counts as a crop of the competition. Raise
    UserError for what is no image, a box outside of it, or a run not trained to its end.
    """
    crop = crop_photo(read_photo(photo), box, photo)
    networks = find_networks(workspace, run, epoch)
    pose_mm = np.mean([_predict(crop, *network, decoder, flip) for network in networks], axis=0)
    if not np.isfinite(pose_mm).all():
        raise RunError(f"run {run}: its pose is not finite: train it again with a lower --lr")
    trained = _tell_training(workspace, run, networks)
    return Predicted(crop=crop, pose_mm=pose_mm, pose_px=place_pose(pose_mm), trained=trained)


def read_photo(path: Path) -> Image:
    """Decode any picture that OpenCV reads as upright RGB [H, W, 3]; raise UserError when it is none, or broken off."""
    content = read_bytes(path, what="photo", limit=MOST_BYTES)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its complaints are ours to tell
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB) if content else None
    except cv2.error as error:  # more pixels than it takes
        raise UserError(f"{path} can't be decoded ({error.err}): expected a photo of under 2^30 pixels") from None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None or (content.startswith(_PNG) and b"IEND" not in content[-16:]):
        what = "is empty" if not content else "is no picture, or broken off"
        raise UserError(f"{path} {what}: expected a whole JPEG, PNG, WebP, TIFF or BMP file")
    return np.asarray(image, np.uint8)


def crop_photo(photo: Image, box: Box | None, name: Path) -> Image:
    """Cut the competition's crop [256, 256, 3] out of a photo [H, W, 3]; beyond its edge the edge is repeated.

    Raise UserError, naming the photo, for a box that isn't inside of it or too small.
    """
    height, width = photo.shape[:2]
    if box is None:
        x, y, w, h, margin = 0.0, 0.0, float(width), float(height), 0.0
    else:
        (x, y, w, h), margin = box, MARGIN
        if not (x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height):  # NaN fails, too
            told = ",".join(f"{value:g}" for value in box)
            raise UserError(f"box {told} isn't inside {name}, {width}x{height} px upright: expected x,y,w,h in pixels")
    if max(w, h) < LEAST_PX:
        raise UserError(f"{name}: a person of {max(w, h):g} px is too small: expected at least {LEAST_PX}")
    side = max(round(max(w, h) * (1 + margin)), 1)
    left, top = round(x + w / 2 - side / 2), round(y + h / 2 - side / 2)
    inside = photo[max(0, top) : top + side, max(0, left) : left + side]
    beyond = (max(0, -top), max(0, top + side - height), max(0, -left), max(0, left + side - width))
    square = cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_REPLICATE)
    return _resize(np.asarray(square, np.uint8), IMAGE_PX)


def place_pose(pose_mm: Float64) -> Float64:
    """Lay a pose [17, 3] in mm over its crop: pixels [17, 2], its box where the crop rule puts that of the joints."""
    flat = pose_mm[:, :2]
    low, high = flat.min(axis=0), flat.max(axis=0)
    scale = IMAGE_PX / (1 + MARGIN) / max(float((high - low).max()), 1e-6)
    return np.asarray((flat - (low + high) / 2) * scale + (IMAGE_PX - 1) / 2)


Network: TypeAlias = tuple[Path, int, dict[str, Any]]  # its weights, their epoch, config.json of the fold


def find_networks(workspace: Workspace, run: str, epoch: int | None) -> list[Network]:
    """Find the weights of every fold of a run, or of the fold that trained on everything where there is no other.

    Raise RunError for a run that is unknown, not trained to its end, or not this toolkit's.
    """
    source = workspace.run(run)
    if not source.is_dir():
        raise RunError(f"no run at {source}; `make board` lists the runs")
    folders = fold_folders(source) or [folder for folder in (fold_folder(source, FULL),) if folder.is_dir()]
    if not any((folder / "config.json").exists() for folder in folders):
        raise RunError(f"{source} holds no networks: expected a run that `make train` made")
    configs = [read_config(folder) for folder in folders if (folder / "config.json").exists()]
    if any("predicted_from" in config for config in configs):
        raise RunError(f"{source} holds poses that run {configs[0].get('predicted_from')} predicted: take that run")
    undone = [folder.name for folder in folders if not (folder / "done.json").exists()]
    lacking = describe_missing_folds(source, workspace.folds)
    if undone or lacking:
        told = lacking or f"{', '.join(undone)} of {len(folders)} folds isn't finished: the same training goes on"
        raise RunError(f"run {run} is half trained: {told}")
    return [(*kept_weights(f, epoch), read_config(f)) for f in folders]


def _predict(
    crop: Image, weights: Path, _epoch: int, config: dict[str, Any], decoder: str | None, flip: bool | None
) -> Float64:
    """Predict one pose [17, 3] by one fold's network."""
    device = choose_device()
    model = load_network(weights, decoder, device)
    precision = choose_precision(str(config["settings"].get("precision", "auto")), device)
    image = torch.from_numpy(_resize(crop, model.spec.input_size))[None].to(device)
    with torch.inference_mode(), autocast(precision, device):
        pose_mm = predict_images(model, image, model.recipe.flip_test if flip is None else flip)
    return np.asarray(pose_mm[0].cpu().numpy(), np.float64)


def _resize(square: Image, size: int) -> Image:
    if square.shape[0] == size:
        return square
    way = cv2.INTER_AREA if size < square.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=way), np.uint8)


def _tell_training(workspace: Workspace, run: str, networks: list[Network]) -> str:
    """Say which networks these are and what they have seen."""
    config = networks[0][2]
    epochs = ", ".join(str(epoch) for _, epoch, _ in networks)
    who = f"run {run} ({config.get('recipe')}), {len(networks)} network{'s' * (len(networks) > 1)}, of epoch {epochs}"
    try:
        labels = read_labels(workspace.data)
    except DataError:
        labels = None
    if labels is None or labels.images_sha256 != config.get("images_sha256"):
        return f"{who}, trained on other images than those of {workspace.data}"
    manifest = workspace.data / "manifest.json"
    drawn = manifest.exists() and read_json(manifest, what="manifest").get("synthetic") is True
    people = "drawn people: expect little on photos" if drawn else "the competition's people"
    return f"{who}, trained on the {len(labels.id):,} images of {workspace.data} ({people})"
