"""What trains the SAEs of a cohort: the reference path, or the sparse kernels, one SAE after another or stacked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from saesweep.cohort import CompiledForward, GradientEngine, ReferenceEngine, Stacks, is_stackable
from saesweep.cohort.kernels import SparseEngine, kernel_choice, triton_or_none
from saesweep.errors import UserError
from saesweep.saes import architecture_for
from saesweep.specs import BaseRun, CohortSpec
from saesweep.worker.sizing import StreamSizes

_STACKED = {"stacked": True, "sparse": False}
"""What `cohort.kernels` says about stacking; for `auto` it is measured."""


def make_engine(
    cohort: CohortSpec,
    stored: dict[str, Any] | None,
    sizes: StreamSizes,
    *,
    device: torch.device,
    reference: ReferenceEngine,
    autocast: bool,
) -> tuple[GradientEngine, dict[str, Any] | None, list[str]]:
    """Return the engine, the choice to store (None for the reference path), and notes for the user.

    Args:
        cohort: The file's wishes.
        stored: What an earlier start of this run chose.
        sizes: Of the stream: one run per architecture in play, and whether memory holds stacked steps.
        device: Training device.
        reference: The reference path.
        autocast: bfloat16 matrix products.

    Raises:
        UserError: Stacked steps are asked for by name, and nothing here can be trained by them.
    """
    if cohort.kernels == "reference":
        return reference, None, ["kernels: reference, as the file says"]
    # Without Triton a GPU's sparse products are slower than bf16 ones.
    keeps_topk = device.type != "cuda" or triton_or_none() is not None
    probe = SparseEngine(autocast=autocast, topk_with_autocast=keeps_topk)
    architectures = {run.sae.architecture: architecture_for(run.sae) for run in sizes.runs}
    reasons = {name: probe.supports(architecture) for name, architecture in architectures.items()}
    sparse = [name for name, reason in reasons.items() if reason is None]
    notes = [f"kernels: the reference path trains {name}: {reason}" for name, reason in reasons.items() if reason]
    stackable = [name for name in sparse if is_stackable(architectures[name], probe)]
    if cohort.kernels == "stacked" and not stackable:
        raise UserError(
            "cohort.kernels: stacked is for topk, batchtopk and matryoshka_batchtopk SAEs that the sparse kernels train, "
            "and no trial here is one; use auto"
        )
    if not sparse:
        return reference, None, notes
    widest = max(sizes.runs, key=lambda run: run.sae.d_sae or 0).sae
    assert widest.d_in is not None
    assert widest.d_sae is not None
    choice, source = kernel_choice(
        widest.d_in, widest.d_sae, device=device, stored=stored, stacked=_STACKED.get(cohort.kernels)
    )
    may_choose = choice.stacked != "no" and stored is None and cohort.kernels == "auto"
    if may_choose and (reason := _not_stacked(cohort, sizes, stackable)):
        choice = replace(choice, stacked="no")
        notes.append(f"kernels: not stacked, {reason}")
    fields = ", ".join(f"{name}={value}" for name, value in choice.to_json().items())
    notes.append(f"kernels: sparse ({fields}; {source})")
    return SparseEngine(choice, autocast=autocast, topk_with_autocast=keeps_topk), choice.to_json(), notes


def _not_stacked(cohort: CohortSpec, sizes: StreamSizes, stackable: list[str]) -> str | None:
    """Return why nothing is to be stacked in this run, whatever is faster on this machine; None where it may be."""
    if not stackable:
        return "no trial here is a topk, batchtopk or matryoshka_batchtopk SAE"
    if cohort.adam_moments != "float32":
        return f"adam_moments is {cohort.adam_moments}"
    return None if sizes.holds_stacks else "the memory planned for does not hold a step of all SAEs at once"


def make_reference(run: BaseRun) -> ReferenceEngine:
    """Return the reference path of a run, compiled where it asks for that."""
    compiled = CompiledForward(run.sae_compilation_mode) if run.compile_sae else None
    return ReferenceEngine(autocast=run.autocast, compiled=compiled)


def make_stacks(engine: GradientEngine) -> Stacks | None:
    """Return what trains slots together; None where each is trained by itself."""
    return Stacks(engine) if isinstance(engine, SparseEngine) and engine.choice.stacked != "no" else None
