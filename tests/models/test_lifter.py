"""The lifter of 2dhg: its augmented copies, and that its gradient stops at the heatmaps."""

import numpy as np
import torch

import models
from competition.common.geometry import mirror_pose_mm
from models.lifter import MAX_ROTATION_DEG, MAX_SCALE, MAX_SHIFT, augment_lifting, mirror, swap_sides
from models.two_d import scale_gradient

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
    limbs, limbs_mm = moved - moved[:, :1], moved_mm[..., :2] / 400  # the root of pose_mm is 0
    scale = (limbs * limbs_mm).sum((1, 2)) / limbs_mm.square().sum((1, 2))
    torch.testing.assert_close(limbs, scale[:, None, None] * limbs_mm, atol=1e-5, rtol=1e-4)
    assert 1 - MAX_SCALE <= float(scale.min()) < 1 - 0.6 * MAX_SCALE
    assert 1 + 0.6 * MAX_SCALE < float(scale.max()) <= 1 + MAX_SCALE
    assert 0.8 * MAX_SHIFT < float(moved[:, 0].abs().max()) <= MAX_SHIFT + 1e-6  # the root was at 0


def gradient_into_maps(module: models.Module, maps: torch.Tensor, target: models.Target) -> torch.Tensor:
    maps = maps.clone().requires_grad_()
    pose_mm = module.lift(*module.detect(maps))  # type: ignore[operator]
    module.loss(models.Output(pose_mm, (maps,)), target)["pose"].backward()
    assert maps.grad is not None
    return maps.grad


def test_the_pose_gradient_into_a_map_is_weighted_by_its_peak() -> None:
    """The decoder is invariant to the maps' scale, so its gradient alone would grow as the maps become flat."""
    torch.manual_seed(0)
    module = models.create("2dhg-small", **SMALL, lifter_dropout=0.0, lifter_copies=3).eval()
    _, target = batch(module)
    size = module.spec.input_size // 4
    index = torch.arange(size)
    row = torch.exp(-0.5 * ((index - 5.3) / module.sigmas[0]) ** 2)  # type: ignore[index]
    peak = (row[:, None] * row).expand(4, J, size, size)
    with_peaks = gradient_into_maps(module, peak, target)
    assert float(with_peaks.abs().max()) > 0
    nearly_flat = gradient_into_maps(module, 1e-6 * peak, target)
    assert float(nearly_flat.abs().max()) < 1e-2 * float(with_peaks.abs().max())


def test_scaled_gradients_keep_the_values() -> None:
    values = torch.tensor([0.3, -7.25], requires_grad=True)
    weights = torch.tensor([0.0, 0.25])
    scaled = scale_gradient(values, weights)
    assert torch.equal(scaled, values)
    scaled.sum().backward()
    assert torch.equal(values.grad, weights)  # type: ignore[arg-type]


def test_copies_do_not_train_the_hourglasses() -> None:
    torch.manual_seed(0)
    module = models.create("2dhg-small", **SMALL, lifter_copies=3).train()
    images, target = batch(module)
    maps = module(images).maps[-1]
    module.copies_loss(maps, target.pose2d_px / 64, target.pose_mm).backward()  # type: ignore[operator]
    with_gradient = {name.split(".")[0] for name, value in module.named_parameters() if value.grad is not None}
    assert with_gradient == {"lifter"}


def test_a_single_image_has_no_copies() -> None:
    module = models.create("2dhg-small", **SMALL, lifter_copies=3).train()
    images, target = batch(module)
    output, one = module(images[:1]), models.Target(target.pose2d_px[:1], target.pose_mm[:1])
    before = {name: value.clone() for name, value in module.lifter.named_buffers()}  # type: ignore[union-attr]
    module.loss(output, one)
    assert all(torch.equal(value, before[name]) for name, value in module.lifter.named_buffers())  # type: ignore[union-attr]


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
