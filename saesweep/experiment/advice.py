"""Warnings: the experiment can run, and its author may not like what comes out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from saesweep.experiment.check_matched import matched_warnings
from saesweep.experiment.check_objective import objective_warnings
from saesweep.experiment.check_search import search_warnings
from saesweep.experiment.draft import Draft
from saesweep.space import Parameter
from saesweep.specs import BaseRun, CohortSpec, SearchSpec, format_count
from saesweep.specs.architectures import JumpReLUSpec, TopKFamilySpec, spec_class

_LONG_RUN_TOKENS = 1_000_000_000
_PENALTIES = (("l1_coefficient", "l1_warm_up_steps", "5%"), ("l0_coefficient", "l0_warm_up_steps", "100%"))
"""Weight of a penalty, how long it takes to rise to that, and how long it had better take."""


def warnings_for(draft: Draft, parameters: Sequence[Parameter], runs: Sequence[BaseRun], n_trials: int) -> list[str]:
    """Return the warnings for an experiment without mistakes; `runs` are those at the edges of its space."""
    found = [*_threshold_warnings(runs), *_warm_up_warnings(runs), *_dtype_warnings(runs), *sink_warnings(runs)]
    found += _pair_warnings(runs)
    fields = {spec_class(name).sparsity_field for name in draft.architectures}
    searches_sparsity = any(p.path.removeprefix("sae.") in fields for p in parameters)
    found += objective_warnings(draft.objective, searches_sparsity)
    if runs:
        search = draft.search or SearchSpec()
        found += _autocast_warnings(runs[0])
        found += _compile_warnings(runs, draft.cohort or CohortSpec())
        found += search_warnings(search, parameters, runs[0])
        if draft.objective is not None and draft.objective.matched is not None:
            found += matched_warnings(draft.objective.matched, search, n_trials, parameters, runs)
    return found


def _autocast_warnings(run: BaseRun) -> list[str]:
    if run.device != "cpu" or not (run.autocast or run.autocast_lm):
        return []
    return [autocast_on_cpu("base.autocast" if run.autocast else "base.autocast_lm")]


def autocast_on_cpu(name: str) -> str:
    """Return the warning about bfloat16 products where they gain nothing."""
    return (
        f"{name} on a CPU: most CPUs compute bfloat16 products more slowly than float32 ones, and less exactly; "
        "leave it out, or set base.device to a GPU"
    )


def _compile_warnings(runs: Sequence[BaseRun], cohort: CohortSpec) -> list[str]:
    run = runs[0]
    if not run.compile_sae or cohort.kernels == "reference":
        return []
    if run.autocast and not any(isinstance(each.sae, TopKFamilySpec) for each in runs):
        return []
    return [
        "base.compile_sae compiles the reference path alone; architectures that the sparse kernels train run as they are; "
        "to compile those too, set cohort.kernels: reference"
    ]


def _threshold_warnings(runs: Sequence[BaseRun]) -> list[str]:
    """Warn about JumpReLU losses that reach only the thresholds, which move by about lr a step."""
    modes = {
        run.sae.jumprelu_sparsity_loss_mode for run in runs if _hardly_moves(run) and isinstance(run.sae, JumpReLUSpec)
    }
    if not modes:
        return []
    tokens = format_count(runs[0].training_tokens)
    return [
        f"jumprelu with jumprelu_sparsity_loss_mode: {mode} hardly becomes sparse in {tokens} tokens "
        "(L0 stays in the hundreds whatever the coefficient; it wants 1B tokens or more); "
        "use by_architecture: {jumprelu: {preset: anthropic-jan-2025, sae.jumprelu_ste_to_input: true}}"
        for mode in sorted(modes)
    ]


def _hardly_moves(run: BaseRun) -> bool:
    """Whether the thresholds of a JumpReLU are all that its sparsity loss reaches, in a run too short for them."""
    return (
        isinstance(run.sae, JumpReLUSpec)
        and run.sae.jumprelu_sparsity_loss_mode != "tanh"
        and not run.sae.jumprelu_ste_to_input
        and run.training_tokens < _LONG_RUN_TOKENS
    )


def _warm_up_warnings(runs: Sequence[BaseRun]) -> list[str]:
    """Warn about penalties at full strength from the first step, which silence latents before they mean anything."""
    found = []
    for coefficient, warm_up, advised in _PENALTIES:
        longest: dict[str, int] = {}  # a space that also searches the warm-up knows what it does
        for run in runs:
            if getattr(run.sae, coefficient, 0) > 0 and not _hardly_moves(run):
                steps = run.to_steps(getattr(run.sae, warm_up))
                longest[run.sae.architecture] = max(steps, longest.get(run.sae.architecture, 0))
        found += [
            f"{name} without {warm_up}: the penalty is at full strength from the first step, which can kill latents for good; "
            f"use by_architecture: {{{name}: {{sae.{warm_up}: {advised}}}}}"
            for name, steps in longest.items()
            if steps == 0
        ]
    return found


def _pair_warnings(runs: Sequence[BaseRun]) -> list[str]:
    """Warn about neighbours that are kept together for nothing."""
    compares = any(getattr(run.sae, "temporal_coefficient", 0.0) > 0 for run in runs)
    if compares or not any(run.neighbour_pairs for run in runs):
        return []
    return [
        "base.neighbour_pairs: no loss of this experiment compares neighbours, and batches that hold them are less varied; "
        "leave it out, or set sae.temporal_coefficient"
    ]


def _dtype_warnings(runs: Sequence[BaseRun]) -> list[str]:
    """Warn about exports in half precision, which are no longer the SAEs that were trained."""
    halves = {run.sae.dtype for run in runs if run.sae.dtype in ("bfloat16", "float16")}
    return [
        f"sae.dtype: {dtype} rounds the exported weights (training keeps float32 ones either way), so that latents near their "
        "threshold switch; keep float32, and use autocast: true where training should be faster"
        for dtype in sorted(halves)
    ]


@dataclass(frozen=True)
class Family:
    """A family of models with sinks in its residual stream."""

    name: str
    pattern: str
    """Of the last part of a model's name, in lower case."""
    known_from: str
    special_only: bool = False
    """The sinks are at BOS, so that `exclude_special_tokens: true` leaves them out."""


# Only what was measured with this program, or what the source says about these very models.
FAMILIES = (
    Family("SmolLM2", r"smollm2", "measured on SmolLM2-135M: 35 of 8,192 tokens hold 99% of the variance at layer 12"),
    Family("Llama 2", r"llama-?2", "Sun et al. 2024, arXiv 2402.17762"),
    Family("Qwen", r"qwen", "the documentation of dictionary_learning's ActivationBuffer"),
    Family("Pythia", r"pythia", "Gallego-Feliciano et al. 2025, arXiv 2508.03616"),
    Family(
        "Gemma 3", r"gemma-?3", "measured on Gemma 3 270M: BOS holds 91% of the variance at layer 9", special_only=True
    ),
)
_RESIDUAL = re.compile(r"(\.(layers|h|blocks)|^blocks)\.\d+(\.hook_resid_(pre|mid|post))?$")


def sink_warnings(runs: Sequence[BaseRun]) -> list[str]:
    """Return a warning for each family whose residual stream is read with its sinks."""
    families = {family.name: family for run in runs if (family := _family(run)) is not None}
    return [
        f"{family.name} models have attention sinks ({family.known_from}): few tokens hold much of the variance of the "
        "residual stream, and explained variance and the scale of normalisation follow them. Set "
        + ("exclude_special_tokens: true or " if family.special_only else "")
        + "max_activation_norm_multiple: 10; `run` and `plan --calibrate` measure them"
        for family in families.values()
    ]


def _family(run: BaseRun) -> Family | None:
    if run.is_synthetic or run.model_name is None or run.max_activation_norm_multiple is not None:
        return None
    if run.seqpos_slice and len(run.seqpos_slice) > 1 and run.seqpos_slice[0]:  # begins after the first position
        return None
    if not _RESIDUAL.search(run.hook_name):
        return None
    name = run.model_name.rstrip("/").rsplit("/", 1)[-1].lower()
    for family in FAMILIES:
        if re.search(family.pattern, name):
            return None if family.special_only and run.exclude_special_tokens is True else family
    return None
