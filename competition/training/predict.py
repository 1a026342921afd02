"""Predict poses of images, each image once, sorted by Id."""

from contextlib import nullcontext

import numpy as np
import torch
from torch.utils.data import DataLoader

from competition.common.console import Advance
from competition.common.errors import RunError
from competition.common.pose_csv import Poses
from competition.common.skeleton import JOINTS, MIRROR
from competition.training.calls import forward
from competition.training.device import autocast
from competition.training.loader import Loaded, batches, to_input
from competition.training.saver import Saver
from models.contract import Module


def predict(
    model: Module,
    loader: DataLoader[Loaded],
    *,
    name: str,
    device: torch.device,
    precision: str,
    flip: bool = False,
    advance: Advance | None = None,
    saver: Saver | None = None,
) -> Poses:
    """Predict every image of a loader: poses [n, 17, 3] in mm relative to the pelvis, sorted by Id.

    With `flip`, each pose is the mean over the image and the mirrored image, with its pose mirrored back. With `saver`,
    a signal saves the training that the network belongs to, and ends the process. `name` is the model's. Raise RunError
    if a pose is not finite.
    """
    model.eval()
    ids, poses = [], []
    with torch.inference_mode(), autocast(precision, device):
        for batch in batches(loader, nullcontext if saver is None else saver.while_waiting):
            poses.append(predict_images(model, batch.image.to(device, non_blocking=True), flip, name).cpu())
            ids.append(batch.id)
            if advance is not None:
                advance(len(batch.id), "")
            if saver is not None:
                saver.while_predicting()
    if not ids:  # more processes than rows
        return Poses(np.empty(0, np.int64), np.empty((0, len(JOINTS), 3)))
    id_, pose = torch.cat(ids).numpy(), torch.cat(poses).numpy().astype(np.float64)
    finite = np.isfinite(pose).all(axis=(1, 2))
    if not finite.all():
        what = f"model {name}: the predicted pose of Id {id_[~finite][0]} is not finite"
        raise RunError(what, fix="train it again with a lower learning rate, or clip the gradients")
    order = np.argsort(id_)
    return Poses(id_[order], pose[order])


def predict_images(model: Module, image: torch.Tensor, flip: bool, name: str) -> torch.Tensor:
    """Predict float32 poses [B, 17, 3] in mm of uint8 RGB images [B, S, S, 3] on the model's device (see `predict`)."""
    images = to_input(image, model.spec.mean, model.spec.std)
    pose_mm = forward(name, model, images).pose_mm.float()
    mirrored = forward(name, model, images.flip(3)).pose_mm.float()[:, MIRROR] if flip else None
    return pose_mm if mirrored is None else (pose_mm + mirrored * mirrored.new_tensor([-1, 1, 1])) / 2
