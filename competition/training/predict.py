"""Prediction: every image once, by Id."""

import numpy as np
import torch
from torch.utils.data import DataLoader

from competition.common.console import Advance
from competition.common.errors import RunError
from competition.common.pose_csv import Poses
from competition.common.skeleton import JOINTS, MIRROR
from competition.training.device import autocast
from competition.training.loader import Batch, batches, to_input
from models.contract import Module
from models.recipes import Recipe

BATCH, BATCH_ON_GPU = 32, 64  # images at a time; a 17 x 64^3 volume takes 17 MiB


def predict(
    model: Module,
    loader: DataLoader[Batch],
    *,
    device: torch.device,
    precision: str,
    flip: bool = False,
    advance: Advance,
) -> Poses:
    """Predict every image of a loader: poses [n, 17, 3] in mm relative to the pelvis, by ascending Id.

    With `flip` also the mirrored image, whose pose is mirrored back: the mean of both.
    """
    model.eval()
    ids, poses = [], []
    with torch.inference_mode(), autocast(precision, device):
        for batch in batches(loader):
            poses.append(predict_images(model, batch.image.to(device, non_blocking=True), flip).cpu())
            ids.append(batch.id)
            advance(len(batch.id), "")
    if not ids:  # more processes than rows
        return Poses(np.empty(0, np.int64), np.empty((0, len(JOINTS), 3)))
    id_, pose = torch.cat(ids).numpy(), torch.cat(poses).numpy().astype(np.float64)
    finite = np.isfinite(pose).all(axis=(1, 2))
    if not finite.all():
        raise RunError(f"the network's pose of Id {id_[~finite][0]} is not finite: lower --lr or set --clip-norm")
    order = np.argsort(id_)
    return Poses(id_[order], pose[order])


def images_at_once(device: torch.device, recipe: Recipe) -> int:
    """Return how many images are predicted at a time."""
    most = BATCH_ON_GPU if device.type == "cuda" else BATCH
    return min(most, recipe.micro_batch or most)


def predict_images(model: Module, image: torch.Tensor, flip: bool) -> torch.Tensor:
    """Predict uint8 RGB images [B, S, S, 3] on the model's device: float32 poses [B, 17, 3] in mm (see `predict`)."""
    images = to_input(image, model.spec.mean, model.spec.std)
    pose_mm: torch.Tensor = model(images).pose_mm.float()
    if flip:
        mirrored = model(images.flip(3)).pose_mm.float()[:, MIRROR]
        pose_mm = (pose_mm + mirrored * mirrored.new_tensor([-1, 1, 1])) / 2
    return pose_mm
