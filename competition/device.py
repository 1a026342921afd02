"""Which device to use, and in which precision; said once."""

from contextlib import AbstractContextManager, nullcontext

import torch

from competition.errors import UserError, unknown

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device() -> torch.device:
    """Return the GPU when there is one, otherwise the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(precision: str, device: torch.device) -> str:
    """Resolve auto: bf16 where the device computes in it, fp32 elsewhere."""
    if precision not in PRECISIONS:
        raise UserError(unknown("precision", precision, PRECISIONS))
    if precision != "auto":
        return precision
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return "bf16" if fast else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Compute matrix products and convolutions in bf16; losses and decoders stay in fp32 by their own doing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
