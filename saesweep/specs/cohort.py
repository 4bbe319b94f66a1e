"""How many SAEs train at once, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from saesweep.specs.model import Spec
from saesweep.specs.units import TokenCount


class CohortSpec(Spec):
    """The SAEs that train together: on each device a cohort of its own, from the same stream."""

    size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Slots of each worker. `auto` plans memory, says what it chose and why, and keeps that number when the run resumes."""
    devices: Annotated[int, Field(ge=1)] | list[str] | str = "auto"
    """A worker trains on each: `auto` (every visible GPU, else `base.device`), `4` GPUs, `[cuda:0, cuda:1]` or `cpu x 2`; several take Ray."""
    kernels: Literal["auto", "reference"] = "auto"
    """`reference`: plain PyTorch autograd. `auto`: the exact sparse kernels wherever they apply."""
    adam_moments: Literal["float32", "bfloat16"] = "float32"
    """How Adam's moments are kept between steps: `bfloat16`, rounded stochastically, takes 8 instead of 12 bytes per parameter, and is not exact."""
    block_tokens: TokenCount | None = Field(None, ge=1)
    """Tokens between two scheduling decisions; from the rungs when left out."""
    checkpoint_seconds: float | None = Field(None, ge=0)
    """Least seconds between two checkpoints; when left out, 10 or as many as keep their measured cost within 2% of the time."""
    memory_fraction: float = Field(0.8, gt=0, le=1)
    """Share of the free memory that `size: auto` plans with."""
    max_skipped_batches: int = Field(100, ge=0)
    """Batches with NaN or infinite activations are skipped and counted; more than this many end the run with an error."""
