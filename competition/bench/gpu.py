"""Benchmarks of whole training steps on a GPU, against a public-style implementation and against the memory."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor

import models
from competition.bench.engine import _wait, render
from competition.bench.hourglass import PublicHourglass, training_bytes
from competition.bench.measure import Row
from competition.common.seeds import generator
from competition.training.device import autocast, choose_device, choose_precision
from competition.training.graph import WARMUP_STEPS
from competition.training.loader import Batch
from competition.training.step import Gradients
from models.contract import IMAGE_MEAN, IMAGE_STD, JOINTS, Module
from models.heatmaps import mm_to_index, sizes
from models.recipes import ThreeD

BATCHES = (32, 128)
STEPS = 10
COPIED = 2**30  # bytes; larger than any cache


def train_2d_gpu() -> list[Row]:
    return _all_rows("2dhg")


def train_3d_gpu() -> list[Row]:
    return _all_rows("3dhg")


def _all_rows(name: str) -> list[Row]:
    device = choose_device()
    return [] if device.type == "cpu" else [row for batch in BATCHES for row in step_rows(name, batch, device)]


def step_rows(name: str, batch: int, device: torch.device, **settings: Any) -> list[Row]:
    """Return images per second of a training step, against public-style steps and against the memory's bandwidth."""
    precision = choose_precision("auto", device)
    model = models.create(name, **settings)
    scores, channels, size = _scores(model), int(model.recipe.channels), model.input_size  # type: ignore[attr-defined]
    ours, used = images_per_second(lambda: own_step(name, model, batch, device, precision), batch, device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    note = f"{name}, batch {batch}, {size} px, {card}, {precision}, {used:.1f} GiB"
    rows = []
    for kind in ("tf32", "bf16"):
        make = partial(public_step, model, channels, scores, device=device, kind=kind)
        fitting, (public, used) = _largest_batch(batch, make, device)
        other = f"a public-style network, {kind}, NCHW, rendered targets, batch {fitting}, {used:.1f} GiB"
        rows.append(
            Row(f"gpu-{name}-{batch}-{kind}", ours, public, ours / public, "images/s", f"{note}; against {other}")
        )
    moved, bandwidth = training_bytes(channels, scores, size), copy_bandwidth(device)
    floor = bandwidth / moved
    note = f"{note}; against the floor of {moved / 1e9:.2f} GB per image at {bandwidth / 1e12:.2f} TB/s of a copy"
    return [*rows, Row(f"gpu-{name}-{batch}-floor", ours, floor, ours / floor, "images/s", note)]


def _scores(model: Module) -> tuple[int, ...]:
    recipe = model.recipe
    if isinstance(recipe, ThreeD):
        return tuple(JOINTS * depth for depth in recipe.depths)
    return (JOINTS,) * recipe.stacks  # type: ignore[attr-defined, no-any-return]


def make_batch(batch: int, size: int) -> Batch:
    random = generator(0, "bench", "gpu")
    return Batch(
        torch.arange(batch),
        torch.from_numpy(random.integers(0, 255, (batch, size, size, 3), np.uint8)),
        torch.from_numpy(random.uniform(0, size, (batch, JOINTS, 2)).astype(np.float32)),
        torch.from_numpy(random.normal(0, 250, (batch, JOINTS, 3)).astype(np.float32)),
    )


def own_step(name: str, model: Module, batch: int, device: torch.device, precision: str) -> Callable[[], Tensor]:
    """Return a function that takes a training step as `train` does, replayed if there is a GPU."""
    model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(model, opt="adam", lr=1e-4, weight_decay=0.0, fused=True)
    gradients = Gradients(name=name, model=model, network=model, precision=precision, device=device, micro_batch=None)
    if device.type == "cuda":
        gradients.use_graph()
    data = make_batch(batch, model.input_size)
    data = data.to(device) if device.type == "cpu" else data._map(torch.Tensor.pin_memory)

    def step() -> Tensor:
        loss = gradients(data)
        optimizer.step()
        return loss

    return step


def public_step(
    model: Module, channels: int, scores: tuple[int, ...], batch: int, *, device: torch.device, kind: str
) -> Callable[[], Tensor]:
    """Return a public-style training step: NCHW, rendered targets, a mean squared error per stack, Adam, no graph.

    kind: tf32 (float32, whose products may be rounded) or bf16 (autocast).
    """
    network = PublicHourglass(channels, scores).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    data = make_batch(batch, model.input_size)
    mean, std = (torch.tensor(value, device=device)[:, None, None] for value in (IMAGE_MEAN, IMAGE_STD))
    recipe = model.recipe

    def step() -> Tensor:
        on_device = data.to(device)
        image, pose2d_px, pose_mm = on_device.step_inputs
        images = (image.permute(0, 3, 1, 2).float().div(255).contiguous() - mean) / std
        losses = []
        with autocast("bf16" if kind == "bf16" else "fp32", device):
            found = network(images)
        for score in found:
            maps = score.float()
            positions = pose2d_px / 4
            if isinstance(recipe, ThreeD):
                maps = maps.unflatten(1, (JOINTS, -1))
                positions = mm_to_index(pose_mm, sizes(maps), recipe.cube_mm)
            losses.append(torch.nn.functional.mse_loss(maps, render(positions, tuple(maps.shape[2:]), 2.0)))
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()

    return step


def _largest_batch(
    batch: int, make: Callable[[int], Callable[[], Tensor]], device: torch.device
) -> tuple[int, tuple[float, float]]:
    """Measure steps of a batch, or of a half, a quarter, ... if the memory is too small."""
    while True:
        try:
            with _settings_of_public_code():
                return batch, images_per_second(partial(make, batch), batch, device)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        batch //= 2  # outside of the handler, which keeps the tensors of the failed step


@contextmanager
def _settings_of_public_code() -> Iterator[None]:
    """Let cuDNN time its algorithms, and let float32 products be rounded to TF32."""
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def images_per_second(
    make: Callable[[], Callable[[], Tensor]], batch: int, device: torch.device
) -> tuple[float, float]:
    """Return the speed of a step and the GiB of the GPU that it needs; its tensors are freed afterwards."""
    _free(device)
    step = make()
    for _ in range(WARMUP_STEPS + 2):  # the graph is captured after the warm-up
        step()
    seconds = timed(step, device) / STEPS
    used = torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else 0.0
    del step
    _free(device)
    return batch / seconds, used


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of STEPS calls, the GPU's work included."""
    _wait(device)
    started = time.perf_counter()
    for _ in range(STEPS):
        call()
    _wait(device)
    return time.perf_counter() - started


def copy_bandwidth(device: torch.device, size: int = COPIED) -> float:
    """Return the bytes per second that a copy reads and writes."""
    source = torch.zeros(size if device.type == "cuda" else size // 64, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.numel() * STEPS / timed(lambda: target.copy_(source), device)


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
