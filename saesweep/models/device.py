"""Which device a name of the experiment file means on this machine, and whether it computes with weights of 16 bits."""

from __future__ import annotations

from pathlib import Path

import torch

from saesweep.errors import UserError
from saesweep.models.inspection import ModelFacts


def resolve_device(name: str, *, place: str = "base.device") -> torch.device:
    """Return the device for `auto` (CUDA, then MPS, then CPU) or a torch device name.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        place: Path of the field it comes from, for the message.

    Raises:
        UserError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{place}: {name!r} is no device; use auto, cpu, cuda, cuda:0 or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"{place}: {name!r} asks for a CUDA device, this machine has {count}; use auto or cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"{place}: {name!r} is not available on this machine; use auto or cpu")
    return device


_CPU_INFO = Path("/proc/cpuinfo")
_NATIVE = {"avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16", "bf16", "asimdhp"}
"""Flags of processors that have products of bfloat16 or float16 numbers, on x86 and Arm."""


def slow_half_precision(facts: ModelFacts, device: str, cpu_info: Path = _CPU_INFO) -> str | None:
    """Return a warning about a model of 16-bit weights on a CPU without products of such numbers; None where all is well.

    Args:
        facts: What the preflight found.
        device: Type of the device that the model runs on.
        cpu_info: Says what the processor can do; nothing is claimed where it cannot be read.
    """
    bytes_per_parameter = facts.weight_bytes / max(1, facts.n_parameters)
    if device != "cpu" or not 1.5 < bytes_per_parameter < 2.5:
        return None
    try:
        flags = set(cpu_info.read_text(errors="replace").split())
    except OSError:
        return None
    if flags & _NATIVE:
        return None
    return (
        "base.model_from_pretrained_kwargs: the model's weights have 16 bits, and this processor has no products of such "
        "numbers: the model may run at a quarter of its speed. {dtype: float32} takes twice the memory and is exact"
    )
