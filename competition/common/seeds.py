"""Derive all seeds from one root seed by name.

    derive(seed, "augment", epoch, index)

A seed depends on its keys alone, so results depend neither on the number of workers nor on their order.
"""

import hashlib

import numpy as np

from competition.common.arrays import Intp


def derive(seed: int, *keys: str | int) -> int:
    """Derive a 63-bit seed from the root seed and keys that name its use."""
    text = "/".join([str(seed), *map(str, keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def sample_rows(rows: int, limit: int) -> Intp:
    """Choose at most `limit` of `rows` row numbers at random, ascending and always the same ones."""
    return np.sort(generator(0, "sample").permutation(rows)[:limit])


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """Return a numpy generator seeded by `derive(seed, *keys)`."""
    return np.random.Generator(np.random.PCG64(derive(seed, *keys)))
