"""Random order from a key, so that any piece of it can be made again without what came before."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def key_generator(seed: int, *key: str | int) -> np.random.Generator:
    """Return numpy's Philox generator for (seed, *key): the same key always gives the same numbers."""
    words = [_word(part) for part in key]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words])))


def key_seed(seed: int, *key: str | int) -> int:
    """Return a 63-bit seed for (seed, *key), for generators of other libraries."""
    return int(key_generator(seed, *key).integers(2**63, dtype=np.int64))


def key_permutation(size: int, seed: int, *key: str | int) -> Indices:
    """Return a permutation of `range(size)` for (seed, *key)."""
    return key_generator(seed, *key).permutation(size).astype(np.int64, copy=False)


def _word(part: str | int) -> int:
    # hash() of a string differs between processes.
    return part if isinstance(part, int) else int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "big")
