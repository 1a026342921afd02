"""Predict poses of images, each image once, sorted by Id."""

import numpy as np
import torch
from torch.utils.data import DataLoader

from competition.common.console import Advance
from competition.common.errors import RunError
from competition.common.pose_csv import Poses
from competition.common.skeleton import JOINTS, MIRROR
from competition.training.device import autocast
from competition.training.failures import NOT_FINITE_FIX
from competition.training.loader import Batch, batches, to_input
from models.contract import Module
from models.recipes import Recipe

BATCH_ON_CPU, BATCH_ON_GPU = 32, 64  # images; a heatmap volume of 17 x 64^3 float32 takes 17 MiB per image


def predict(
    model: Module,
    loader: DataLoader[Batch],
    *,
    device: torch.device,
    precision: str,
    flip: bool = False,
    advance: Advance,
) -> Poses:
    """Predict every image of a loader: poses [n, 17, 3] in mm relative to the pelvis, sorted by Id.

    With `flip`, each pose is the mean over the image and the mirrored image, with its pose mirrored back. Raise
    RunError if a pose is not finite.
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
        raise RunError(f"the predicted pose of Id {id_[~finite][0]} is not finite: {NOT_FINITE_FIX}")
    order = np.argsort(id_)
    return Poses(id_[order], pose[order])


def prediction_batch(device: torch.device, recipe: Recipe) -> int:
    """Return the batch size of prediction: at most the recipe's micro-batch, if it is set."""
    largest = BATCH_ON_GPU if device.type == "cuda" else BATCH_ON_CPU
    return min(largest, recipe.micro_batch or largest)


def predict_images(model: Module, image: torch.Tensor, flip: bool) -> torch.Tensor:
    """Predict float32 poses [B, 17, 3] in mm of uint8 RGB images [B, S, S, 3] on the model's device (see `predict`)."""
    images = to_input(image, model.spec.mean, model.spec.std)
    pose_mm: torch.Tensor = model(images).pose_mm.float()
    if flip:
        mirrored = model(images.flip(3)).pose_mm.float()[:, MIRROR]
        pose_mm = (pose_mm + mirrored * mirrored.new_tensor([-1, 1, 1])) / 2
    return pose_mm
