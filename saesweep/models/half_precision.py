"""Weights of 16 bits on a processor that computes with 32."""

from __future__ import annotations

from pathlib import Path

from saesweep.models.inspection import ModelFacts

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
