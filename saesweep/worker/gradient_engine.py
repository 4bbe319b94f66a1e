"""Chooses how gradients are computed, and keeps the choice so that a resumed run computes the same."""

from __future__ import annotations

from typing import Any, Literal

import torch

from saesweep.cohort import CompiledForward, GradientEngine, ReferenceEngine
from saesweep.cohort.kernels import SparseEngine, kernel_choice, triton_or_none
from saesweep.saes import architecture_for
from saesweep.specs import BaseRun


def make_engine(
    wanted: Literal["auto", "reference"],
    stored: dict[str, Any] | None,
    runs: list[BaseRun],
    *,
    device: torch.device,
    reference: ReferenceEngine,
    autocast: bool,
) -> tuple[GradientEngine, dict[str, Any] | None, list[str]]:
    """Return the engine, the choice to store (None for the reference path), and notes for the user.

    Args:
        wanted: The file's `cohort.kernels`.
        stored: What an earlier start of this run chose.
        runs: One run per architecture in play, widths known.
        device: Training device.
        reference: The reference path.
        autocast: bfloat16 matrix products.
    """
    if wanted == "reference":
        return reference, None, ["kernels: reference, as the file says"]
    # Without Triton a GPU's sparse products are slower than bf16 ones.
    keeps_topk = device.type != "cuda" or triton_or_none() is not None
    probe = SparseEngine(autocast=autocast, topk_with_autocast=keeps_topk)
    reasons = {run.sae.architecture: probe.supports(architecture_for(run.sae)) for run in runs}
    sparse = [name for name, reason in reasons.items() if reason is None]
    notes = [f"kernels: the reference path trains {name}: {reason}" for name, reason in reasons.items() if reason]
    if not sparse:
        return reference, None, notes
    widest = max(runs, key=lambda run: run.sae.d_sae or 0).sae
    assert widest.d_in is not None
    assert widest.d_sae is not None
    choice, source = kernel_choice(widest.d_in, widest.d_sae, device=device, stored=stored)
    fields = ", ".join(f"{name}={value}" for name, value in choice.to_json().items())
    notes.append(f"kernels: sparse ({fields}; {source})")
    return SparseEngine(choice, autocast=autocast, topk_with_autocast=keeps_topk), choice.to_json(), notes


def make_reference(run: BaseRun) -> ReferenceEngine:
    """Return the reference path of a run, compiled where it asks for that."""
    compiled = CompiledForward(run.sae_compilation_mode) if run.compile_sae else None
    return ReferenceEngine(autocast=run.autocast, compiled=compiled)
