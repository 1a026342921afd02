"""The words that options of training accept; loads no torch."""

from typing import Final

PRECISIONS: Final = ("auto", "fp32", "bf16")
