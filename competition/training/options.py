"""Values that training options accept; must not import torch, as the command line does."""

from typing import Final

PRECISIONS: Final = ("auto", "fp32", "bf16")
