"""Where the worker of a run is."""

from __future__ import annotations

from saesweep.specs.model import Spec


class RaySpec(Spec):
    """A Ray cluster (`pip install saesweep[ray]`)."""

    address: str | None = None
    """Address of the cluster; `auto`: the one that this machine belongs to. Left out: `RAY_ADDRESS`, or a cluster that this run starts."""


class EngineSpec(Spec):
    """Where the worker of a run is: in the same process, unless another engine is named."""

    ray: RaySpec | None = None
    """Let a Ray actor train: it is started again where it is killed, and repeats what it had done since its last checkpoint."""
