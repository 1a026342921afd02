"""Derive all seeds from one root seed by name.

    derive(seed, "augment", epoch, index)

A seed depends on its keys alone, so results depend neither on the number of workers nor on their order.
"""

import hashlib

import numpy as np


def derive(seed: int, *keys: str | int) -> int:
    """Derive a 63-bit seed from the root seed and keys that name its use."""
    text = "/".join([str(seed), *map(str, keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """Return a numpy generator seeded by `derive(seed, *keys)`."""
    return np.random.Generator(np.random.PCG64(derive(seed, *keys)))
