"""Every seed of a run, derived from the experiment's seed and a name: no two uses share a random stream."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: object) -> int:
    """Return a 63-bit seed for one purpose, such as `derive(42, "init", 0)`."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
