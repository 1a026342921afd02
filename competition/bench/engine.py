"""Benchmarks of training, loading, prediction and submission files."""

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor

import models
from competition.bench.measure import Row, extra_mib, lower_is_better, time_both
from competition.common.pose_csv import COLUMNS, read_poses, write_poses
from competition.common.seeds import generator
from competition.common.workers import usable_cores
from competition.data.images import read_image
from competition.data.labels import Labels, TestSet
from competition.training.augment import Augment
from competition.training.device import autocast, choose_device, choose_precision
from competition.training.loader import KeyedBatches, PoseImages, make_loader, to_input
from competition.training.predict import predict
from models.contract import IMAGE_MEAN, IMAGE_STD, JOINTS, Module, Output, Target
from models.heatmaps import decode, gaussian, gaussian_squares, index_to_mm, mm_to_index, sizes
from models.recipes import ThreeD


def _step_row(name: str, model_name: str, batch: int, **settings: Any) -> Row:
    """Time a training step against a baseline of the same network: fp32, contiguous, rendered targets."""
    device = choose_device()
    precision = choose_precision("auto", device)
    random = generator(0, "bench", name)
    fast, plain = (models.create(model_name, **settings).to(device).train() for _ in range(2))
    fast.to(memory_format=torch.channels_last)
    size = fast.input_size
    images = torch.from_numpy(random.integers(0, 255, (batch, size, size, 3), np.uint8))
    px = torch.from_numpy(random.uniform(0, size, (batch, JOINTS, 2)).astype(np.float32)).to(device)
    mm = torch.from_numpy(random.normal(0, 250, (batch, JOINTS, 3)).astype(np.float32)).to(device)
    target = Target(px, mm)
    mean, std = (torch.tensor(value, device=device)[:, None, None] for value in (IMAGE_MEAN, IMAGE_STD))
    optimizers = [
        create_optimizer_v2(fast, opt="adam", lr=1e-4, weight_decay=0.0, fused=True),
        torch.optim.Adam(plain.parameters(), lr=1e-4),
    ]

    def implementation() -> None:
        inputs = to_input(images.to(device), IMAGE_MEAN, IMAGE_STD)
        with autocast(precision, device):
            loss = fast.loss(fast(inputs), target)["total"]
        optimizers[0].zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizers[0].step()
        _wait(device)

    def baseline() -> None:
        scaled = images.float().div(255).permute(0, 3, 1, 2).contiguous().to(device)
        inputs = (scaled - mean) / std
        loss = _plain_loss(plain, plain(inputs), target)
        optimizers[1].zero_grad()
        torch.autograd.backward(loss)
        optimizers[1].step()
        _wait(device)

    note = f"{model_name}, batch {batch}, {size} px, {device.type}, {precision}; against fp32 with rendered targets"
    return lower_is_better(name, *time_both(implementation, baseline), "ms", note, 1000)


def _plain_loss(model: Module, output: Output, target: Target) -> Tensor:
    """Render every target and compute the mean squared error, as published implementations do."""
    losses = []
    for maps in output.maps:
        if isinstance(model.recipe, ThreeD):
            positions = mm_to_index(target.pose_mm, sizes(maps), model.recipe.cube_mm)
        else:
            positions = target.pose2d_px / 4
        rendered = render(positions, tuple(maps.shape[2:]), 2.0)
        losses.append(torch.nn.functional.mse_loss(maps, rendered))
    if not isinstance(model.recipe, ThreeD):
        losses.append(torch.nn.functional.mse_loss(output.pose_mm / 1000, target.pose_mm / 1000))
    return torch.stack(losses).sum()


def render(positions: Tensor, shape: tuple[int, ...], sigma: float) -> Tensor:
    """Render Gaussians at positions [B,J,2 or 3], in pixels, as maps [B,J,H,W] or volumes [B,J,D,H,W]."""
    rows = [gaussian(positions[..., axis], size, sigma) for axis, size in enumerate(reversed(shape))]
    plane = rows[1][..., :, None] * rows[0][..., None, :]
    return plane if len(rows) == 2 else rows[2][..., :, None, None] * plane[:, :, None]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def train_2d_x1() -> list[Row]:
    return [_step_row("train-2dhg-x1", "2dhg", 4, stacks=1)]


def train_2d_x2() -> list[Row]:
    return [_step_row("train-2dhg-x2", "2dhg", 4, stacks=2)]


def train_2d_x8() -> list[Row]:
    return [_step_row("train-2dhg-x8", "2dhg", 4)]


def train_3d() -> list[Row]:
    return [_step_row("train-3dhg", "3dhg", 4)]


def train_3d_small() -> list[Row]:
    return [_step_row("train-3dhg-small", "3dhg-small", 8)]


def volume_loss() -> list[Row]:
    """Compare the closed form of the volumetric loss with the mean squared error over a rendered target.

    Measures time, forward and backward, and memory beyond the volume itself. Volumes are channels_last, as the networks
    return them, or contiguous.
    """
    device = choose_device()
    rows = []
    for batch, layout in ((4, "channels_last"), (4, "contiguous"), (16, "channels_last"), (16, "contiguous")):
        maps = torch.rand(batch, JOINTS * 64, 64, 64, device=device)
        if layout == "channels_last":
            maps = maps.contiguous(memory_format=torch.channels_last)
        volume = maps.view(batch, JOINTS, 64, 64, 64).requires_grad_()
        positions = 63 * torch.rand(batch, JOINTS, 3, device=device)

        def implementation(volume: Tensor = volume, positions: Tensor = positions) -> None:
            torch.autograd.grad(gaussian_squares(volume, positions, (2.0, 2.0, 2.0)), volume)
            _wait(device)

        def baseline(volume: Tensor = volume, positions: Tensor = positions) -> None:
            target = render(positions, (64, 64, 64), 2.0)
            torch.autograd.grad(torch.nn.functional.mse_loss(volume, target), volume)
            _wait(device)

        note = f"17x64x64x64, {layout}, batch {batch}, {device.type}, forward and backward; against a target by outer "
        name = f"volume-loss-{batch}" + "-contiguous" * (layout == "contiguous")
        rows.append(
            lower_is_better(name, *time_both(implementation, baseline), "ms", note + "products and mse_loss", 1000)
        )
        if layout == "channels_last" and all(extra := [extra_mib(loss, device) for loss in (implementation, baseline)]):
            rows.append(
                lower_is_better(f"volume-memory-{batch}", extra[0], extra[1], "MiB", note + "products; peak memory")
            )
    return rows


def _write_images(folder: Path, count: int) -> list[str]:
    """Write JPEGs with about as much detail as photographs."""
    random = generator(0, "bench", "pictures")
    (folder / "images").mkdir()
    names = [f"{index:04d}.jpg" for index in range(count)]
    for name in names:
        rough = random.integers(0, 255, (32, 32, 3), np.uint8)
        smooth = cv2.resize(rough, (256, 256), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / name), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return names


def loading() -> list[Row]:
    """Time decoding and augmentation on one core against PIL and torchvision's transforms."""
    from PIL import Image
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomAffine(
                30, translate=(0.04, 0.04), scale=(0.85, 1.15), interpolation=v2.InterpolationMode.BILINEAR
            ),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.2, contrast=0.2),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomErasing(p=0.3),
            v2.Normalize(IMAGE_MEAN, IMAGE_STD),
        ]
    )
    count, batch, threads = 128, 16, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        names = _write_images(folder, count)
        poses = np.full((count, JOINTS, 2), 128, np.float32), np.zeros((count, JOINTS, 3), np.float32)
        images = PoseImages(folder, Labels(np.arange(count), names, *poses), size=256, augment=Augment(256, seed=0))
        loader = make_loader(images, KeyedBatches(np.arange(count), batch), workers=0, device=torch.device("cpu"))

        def implementation() -> None:
            for _ in loader:
                pass

        def baseline() -> None:
            for first in range(0, count, batch):
                files = [folder / "images" / name for name in names[first : first + batch]]
                torch.stack([transform(Image.open(file).convert("RGB")) for file in files])

        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        try:
            seconds = time_both(implementation, baseline)
        finally:
            torch.set_num_threads(threads)
            cv2.setNumThreads(-1)
    rates = [count / second for second in seconds]
    note = f"256 px, batch {batch}, one core: decode, default augmentation, collate; against PIL and torchvision"
    return [Row("loader", rates[0], rates[1], rates[0] / rates[1], "images/s", note)]


def bottleneck() -> list[Row]:
    """Compare the loader's rate on all cores with the training rate: below 1 the network waits for images."""
    fed = loading()[0].ours * usable_cores()
    rows = []
    for model_name, batch in (("3dhg-small", 8), ("2dhg-small", 16)):
        taken = 1000 * batch / _step_row(f"train-{model_name}", model_name, batch).ours
        slower = "the network" if fed > taken else "the loader"
        note = f"the loader on all cores at 256 px; against training {model_name}: {slower} is the bottleneck"
        rows.append(Row(f"bottleneck-{model_name}", fed, taken, fed / taken, "images/s", note))
    return rows


def predict_set() -> list[Row]:
    """Time the prediction of image files in batches against one image at a time."""
    device = choose_device()
    precision = choose_precision("auto", device)
    count = 64
    model = models.create("3dhg-small").to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = models.create("3dhg-small").to(device).eval()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        names = _write_images(folder, count)
        test = TestSet(np.arange(1, count + 1), names)
        images = PoseImages(folder, test, size=model.input_size)
        batches = make_loader(images, KeyedBatches(np.arange(count), 32), workers=0, device=device)

        def implementation() -> None:
            predict(model, batches, name="3dhg-small", device=device, precision=precision)

        def baseline() -> None:
            with torch.no_grad():
                for name in names:
                    image = torch.from_numpy(read_image(folder / "images" / name, model.input_size))
                    scaled = image.float().div(255).permute(2, 0, 1).contiguous()[None]
                    plain(scaled.to(device)).pose_mm.cpu().numpy()

        seconds = time_both(implementation, baseline)
    rates = [count / second for second in seconds]
    note = f"3dhg-small from files, {device.type}, {precision}; against one image at a time in fp32"
    return [Row("predict", rates[0], rates[1], rates[0] / rates[1], "images/s", note)]


def csv_files() -> list[Row]:
    """Time writing and reading a submission of the real competition's size."""
    count = 10_987
    pose_mm = generator(0, "bench", "csv").normal(0, 300, (count, JOINTS, 3)).round(3)
    ids = np.arange(1, count + 1)
    table = np.column_stack([ids, pose_mm.reshape(count, -1)])
    header = ",".join(("Id", *COLUMNS))
    with tempfile.TemporaryDirectory() as root:
        path, baseline_path = Path(root) / "poses.csv.gz", Path(root) / "baseline.csv.gz"

        def baseline() -> None:
            np.savetxt(
                baseline_path, table, fmt=["%d"] + ["%.3f"] * len(COLUMNS), delimiter=",", header=header, comments=""
            )

        write = time_both(lambda: write_poses(path, ids, pose_mm), baseline)
        read = time_both(lambda: read_poses(path), lambda: pd.read_csv(baseline_path))
    note = "10,987 rows, gzip; "
    return [
        lower_is_better("csv-write", *write, "s", note + "against numpy.savetxt"),
        lower_is_better("csv-read", *read, "s", note + "every cell checked; against pandas without checks"),
    ]


def decoders() -> list[Row]:
    """Compare errors of decoding Gaussians in a noisy 64^3 volume with those of the highest voxel (argmax)."""
    random = torch.Generator().manual_seed(0)
    positions = 8 + 47 * torch.rand(8, JOINTS, 3, generator=random)
    volume = render(positions, (64, 64, 64), 2.0)
    volume += 0.05 * torch.randn(volume.shape, generator=random)
    argmax, *others = (_decoding_error_mm(volume, positions, method) for method in ("argmax", "dark", "local"))
    note = "64^3 over 2000 mm, sigma 2, voxel noise .05, absolute; against argmax"
    return [
        lower_is_better(f"decoder-{method}", error, argmax, "mm", note)
        for method, error in zip(("dark", "local"), others, strict=True)
    ]


def _decoding_error_mm(volume: Tensor, positions: Tensor, method: str) -> float:
    found, _ = decode(volume, method, (2.0, 2.0, 2.0))
    difference = index_to_mm(found, 64, 2000.0) - index_to_mm(positions, 64, 2000.0)
    return float(torch.linalg.vector_norm(difference, dim=-1).mean())
