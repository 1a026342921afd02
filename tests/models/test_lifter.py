"""The lifter of 2dhg: its augmented copies, and that its gradient stops at the heatmaps."""

import numpy as np
import pytest
import torch

import models
from competition.common.geometry import mirror_pose_mm
from models.lifter import MAX_ROTATION_DEG, augment_lifting, mirror, swap_sides

B, J = 64, 17
SMALL = {"input_size": 64, "channels": 16, "stacks": 2, "lifter_width": 32}


def samples() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return positions, peak heights and poses, for an orthographic camera: 400 mm are 1 in the image."""
    generator = torch.Generator().manual_seed(0)
    pose_mm = 150 * torch.randn(B, J, 3, generator=generator)
    pose_mm[:, 0] = 0
    return pose_mm[..., :2] / 400, torch.rand(B, J, generator=generator), pose_mm


def batch(module: models.Module) -> tuple[torch.Tensor, models.Target]:
    """Return noise images and the first samples as their labels."""
    positions, _, pose_mm = samples()
    size = module.spec.input_size
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    return images, models.Target(size * (positions[:4] + 1) / 2 - 0.5, pose_mm[:4])


def test_mirroring_matches_the_augmentation_of_images() -> None:
    _, _, pose_mm = samples()
    expected = np.stack([mirror_pose_mm(pose) for pose in pose_mm.numpy()])
    np.testing.assert_array_equal(mirror(pose_mm).numpy(), expected)
    assert torch.equal(swap_sides(swap_sides(pose_mm)), pose_mm)


def test_augmented_positions_and_poses_stay_consistent() -> None:
    """Rotation and mirroring apply to both; scale and shift change only the positions; depth never changes."""
    torch.manual_seed(0)
    positions, peaks, pose_mm = samples()
    moved, moved_peaks, moved_mm = augment_lifting(positions, peaks, pose_mm)
    mirrored = ~torch.isclose(moved_mm[..., 2], pose_mm[..., 2]).all(1)
    assert 10 < int(mirrored.sum()) < B - 10
    torch.testing.assert_close(moved_peaks, torch.where(mirrored[:, None], swap_sides(peaks), peaks))
    before = torch.where(mirrored[:, None, None], mirror(pose_mm), pose_mm)
    torch.testing.assert_close(moved_mm[..., 2], before[..., 2])
    torch.testing.assert_close(moved_mm.norm(dim=2), before.norm(dim=2))
    planes = before[..., :2].double(), moved_mm[..., :2].double()
    cross = (planes[0][..., 0] * planes[1][..., 1] - planes[0][..., 1] * planes[1][..., 0]).sum(1)
    degrees = torch.atan2(cross, (planes[0] * planes[1]).sum((1, 2))).rad2deg()
    assert MAX_ROTATION_DEG * 0.8 < float(degrees.abs().max()) <= MAX_ROTATION_DEG + 1e-3
    scale = (moved - moved[:, :1]).norm(dim=2)[:, 1:] / (moved_mm[..., :2].norm(dim=2)[:, 1:] / 400)
    assert float(scale.std(1).max()) < 1e-3  # one scale per sample
    assert 0.84 < float(scale.min()) < 0.9 < 1.1 < float(scale.max()) < 1.16


@pytest.mark.parametrize("copies", [0, 3])
def test_the_pose_loss_trains_the_lifter_and_not_the_hourglasses(copies: int) -> None:
    torch.manual_seed(0)
    module = models.create("2dhg-small", **SMALL, lifter_copies=copies).train()
    images, target = batch(module)
    module.loss(module(images), target)["pose"].backward()
    with_gradient = {name.split(".")[0] for name, value in module.named_parameters() if value.grad is not None}
    assert with_gradient == {"lifter"}


def test_copies_change_the_loss_in_training_only() -> None:
    torch.manual_seed(0)
    module = models.create("2dhg-small", **SMALL, lifter_dropout=0.0, lifter_copies=3)
    images, target = batch(module)
    for training in (True, False):
        module.train(training)
        output = module(images)
        losses = []
        for module.lifter_copies in (0, 3):  # type: ignore[assignment]
            losses.append(module.loss(output, target)["pose"].item())
        assert (losses[0] != losses[1]) is training


@pytest.mark.parametrize("name", ["2dhg-small", "3dhg-small"])
def test_an_untrained_residual_block_is_its_skip(name: str) -> None:
    module = models.create(name)
    stack = module.hourglass.stacks[0].features  # type: ignore[union-attr, index]
    x = torch.randn(2, models.recipe(name).channels, 4, 4)  # type: ignore[attr-defined]
    assert torch.equal(stack[1](x), x)
