"""One metric of a finished trial by context, kept on disk: comparing trials on the same contexts measures nothing again.

Shape suffixes: C contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from saesweep.evaluation import PairedSums
from saesweep.runs import RunDirectory, write_bytes


def _path(directory: RunDirectory, number: int) -> Path:
    return directory.trial(number) / "by_context.safetensors"


def save_by_context(directory: RunDirectory, number: int, metric: str, replicates: Sequence[PairedSums]) -> None:
    """Write a trial's metric by context, the mean over its replicates."""
    mean = PairedSums.stacked(replicates).mean()
    tensors = {
        "numerator_C": mean.numerator_SC[0].contiguous(),
        "denominator_C": mean.denominator_C.contiguous(),
        "offset_and_sign": torch.tensor([mean.offset, mean.sign], dtype=torch.float64),
    }
    write_bytes(_path(directory, number), save(tensors, metadata={"metric": metric}))


def load_by_context(directory: RunDirectory, number: int, metric: str) -> PairedSums | None:
    """Return what `save_by_context` wrote; None where that is missing, damaged or of another metric."""
    try:
        with safe_open(_path(directory, number), framework="pt") as file:
            if (file.metadata() or {}).get("metric") != metric:
                return None
            numerator_C, denominator_C = file.get_tensor("numerator_C"), file.get_tensor("denominator_C")
            offset, sign = file.get_tensor("offset_and_sign").tolist()
    except (OSError, SafetensorError, ValueError):
        return None
    if numerator_C.ndim != 1 or numerator_C.shape != denominator_C.shape:
        return None
    return PairedSums(numerator_C[None], denominator_C, offset, sign)
