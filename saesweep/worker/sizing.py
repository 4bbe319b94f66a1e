"""How many SAEs fit, and the sizes of an activation stream: decided in one place for `plan` and `run`, before anything is loaded.

From the specs alone: representative runs of the space, the memory that a slot takes in training, and the memory that measuring takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psutil
import torch

from saesweep.cohort import CALIBRATION_BATCHES
from saesweep.cohort.kernels import SparseEngine, gpu_step_bytes
from saesweep.evaluation.predictions import logit_bytes
from saesweep.experiment import Experiment, with_widths
from saesweep.messages import short_bytes
from saesweep.models.base import CPU_PIECE_TOKENS
from saesweep.saes import architecture_for
from saesweep.saes.exported import rows_at_once
from saesweep.specs import BaseRun, CohortSpec, EvaluationSpec
from saesweep.specs.architectures import NormalizeActivations
from saesweep.worker.stacked_memory import stacked_bytes


def largest_run(experiment: Experiment, architecture: str) -> BaseRun:
    """Return the widest run of one architecture at the edges of the space."""
    return max(
        experiment.corner_runs(architecture),
        key=lambda run: run.sae.d_sae or (run.sae.expansion_factor or 0) * (run.sae.d_in or 1),
    )


def normalize_modes(experiment: Experiment) -> tuple[NormalizeActivations, ...]:
    """Return every `normalize_activations` that a trial may use."""
    runs = [run for name in experiment.architectures for run in experiment.corner_runs(name)]
    searched = [p.spec.choice or () for p in experiment.parameters() if p.path == "sae.normalize_activations"]
    modes = [run.sae.normalize_activations for run in runs]
    return tuple(dict.fromkeys([*modes, *(mode for choice in searched for mode in choice)]))


CPU = torch.device("cpu")
KEPT_BYTES = 1 << 28
"""Main memory at each hook for what clean forward passes over the `select` part gave: SAEs are measured there again and again."""
_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_LAYER_WIDTHS = 24
"""Widths of the residual stream that a block's forward pass holds for each token: its MLP up to 8 times as wide, three times."""
_SAES_AT_ONCE = 16
_LATENT_COPIES = 4


def measuring_bytes(
    run: BaseRun, evaluation: EvaluationSpec, hooks: int, device: torch.device, d_vocab: int | None = None
) -> int:
    """Return the most memory that measuring SAEs of a run takes on the training device, beside their weights.

    A wide vocabulary does not matter: logits exist for a bounded piece of the tokens.

    Args:
        run: A run whose widths are known: the one with the widest SAE.
        evaluation: The held-out parts.
        hooks: Hooks read at once.
        device: Where it trains.
        d_vocab: Tokens of the vocabulary; None before the model is known, for the most that any takes.
    """
    d_in, d_sae = run.sae.d_in or 0, run.sae.d_sae or 0
    latents = 4 * _LATENT_COPIES * rows_at_once(d_sae, device) * d_sae
    if run.is_synthetic:
        return latents
    width, context = d_in * _BYTES[run.dtype], run.context_size
    tokens = (run.eval_batch_size_prompts or run.store_batch_size_prompts) * context
    if device.type == "cpu":
        tokens = min(tokens, max(CPU_PIECE_TOKENS, context))
    forward_pass = tokens * width * (_LAYER_WIDTHS + _SAES_AT_ONCE)
    kept = 0
    if device.type == "cpu":  # where main memory is the device's
        of_ce = evaluation.ce_tokens_of("select", run.training_tokens)
        kept = hooks * (evaluation.select_tokens * width + min(KEPT_BYTES, 2 * of_ce * width))
    return max(latents, logit_bytes(d_vocab, device) + forward_pass) + kept


_AUTO_MAX_SLOTS = 16
_PEERS = 2


def slot_bytes(run: BaseRun, adam_moments: str = "float32") -> int:
    """Return the memory of one slot: master weights and two Adam moments."""
    if run.sae.dtype == "float64":
        return 24 * run.sae.n_parameters()
    return (4 + 2 * _BYTES[adam_moments]) * run.sae.n_parameters()


def shared_bytes(
    runs: list[BaseRun],
    hooks: int,
    weight_bytes: int,
    adam_moments: str = "float32",
    measuring_bytes: int = 0,
    *,
    device: torch.device = CPU,
    kernels: str = "auto",
) -> int:
    """Return the memory that the slots share: one set of gradients, the widest step's activations, the window, the model.

    Measuring comes between steps, so that the larger of the two counts.

    Args:
        runs: One resolved run per architecture in play.
        hooks: Hooks read at once.
        weight_bytes: Weights of the language model.
        adam_moments: How the moments are kept.
        measuring_bytes: Maximum memory that measuring takes.
        device: Where the SAEs train.
        kernels: The file's `cohort.kernels`.
    """
    first = runs[0]
    d_in = max(max(run.sae.d_in or 0, getattr(run.sae, "d_out", None) or 0) for run in runs)
    # One set of gradients; moments kept narrow are widened for one slot at a time.
    sets = 1 if adam_moments == "float32" else 3
    gradients = sets * max(4 * run.sae.n_parameters() for run in runs)
    step = max(_step_bytes(run, device, kernels) for run in runs)
    row = d_in * _BYTES[first.dtype] * hooks
    window = first.window_tokens * row
    if device.type == "cuda":
        # The last batches are kept, to calibrate thresholds on; on a CPU what a step is planned with is more than both.
        step += CALIBRATION_BATCHES * first.train_batch_size_tokens * row
    return max(gradients + step, measuring_bytes) + window + 2 * weight_bytes


def _step_bytes(run: BaseRun, device: torch.device, kernels: str) -> int:
    """Return what a step takes beside weights, moments and gradients."""
    if device.type == "cuda" and kernels != "reference":
        sae = run.sae
        if sae.is_transcoder and getattr(sae, "d_out", None) is None:  # `plan` may not know the other hook's width
            sae = sae.model_copy(update={"d_out": sae.d_in})
        architecture = architecture_for(sae)
        if SparseEngine(autocast=run.autocast).supports(architecture) is None:
            return gpu_step_bytes(architecture, run.train_batch_size_tokens)
    return 4 * run.train_batch_size_tokens * run.sae.floats_per_token()


@dataclass(frozen=True)
class SlotPlan:
    """How many slots, and why."""

    slots: int
    reason: str
    slot_bytes: int
    shared_bytes: int
    """Of a step and of measuring; where SAEs are stacked, of a step of all of them at once."""
    measuring_bytes: int
    """Maximum memory that measuring takes; `shared_bytes` holds it where it is more than a training step's."""
    background_checkpoints: bool
    """Main memory holds a copy of every slot beside them, which is written while training continues."""


def plan_slots(
    cohort: CohortSpec,
    *,
    n_trials: int,
    runs: list[BaseRun],
    hooks: int,
    weight_bytes: int,
    free_bytes: int,
    replicates: int = 1,
    measuring_bytes: int = 0,
    host_bytes: int | None = None,
    device: torch.device = CPU,
) -> SlotPlan:
    """Choose the number of slots.

    Args:
        cohort: The file's wishes.
        n_trials: Trials of the experiment.
        runs: One resolved run per architecture in play, widths known.
        hooks: Hooks read at once.
        weight_bytes: Weights of the language model.
        free_bytes: Memory that is free now on the training device.
        replicates: SAEs per trial; the slots are a multiple of it, because replicates train side by side.
        measuring_bytes: Maximum memory that measuring takes.
        host_bytes: Memory that is free now on the host, where checkpoints are copied to; None where that is `free_bytes`.
        device: The training device.
    """
    per_slot = max(slot_bytes(run, cohort.adam_moments) for run in runs)
    in_training = per_slot + (max(map(stacked_bytes, runs)) if cohort.kernels == "stacked" else 0)
    shared = shared_bytes(
        runs, hooks, weight_bytes, cohort.adam_moments, measuring_bytes, device=device, kernels=cohort.kernels
    )

    def planned(slots: int, reason: str) -> SlotPlan:
        # More SAEs at once are worth more than a copy: where there is no room for one, training waits for checkpoints.
        copied = slots * per_slot
        if host_bytes is None:
            is_copied = copied + slots * in_training + shared <= free_bytes * cohort.memory_fraction
        else:
            is_copied = copied <= host_bytes * cohort.memory_fraction
        copy = (
            f"{short_bytes(copied)} of main memory to write checkpoints from"
            if is_copied
            else "no room for a copy: training waits while checkpoints are written"
        )
        return SlotPlan(
            slots=slots,
            reason=f"{reason}; {copy}",
            slot_bytes=per_slot,
            shared_bytes=shared + slots * (in_training - per_slot),
            measuring_bytes=measuring_bytes,
            background_checkpoints=is_copied,
        )

    if cohort.size != "auto":
        trials = max(1, min(cohort.size // replicates, n_trials))
        return planned(trials * replicates, "as the file says")
    usable = free_bytes * cohort.memory_fraction - shared
    fitting = int(usable // in_training)
    # A third of the trials at once leaves the sampler something to learn from; two of each architecture show at the first
    # rung how they differ.
    worthwhile = max(4, -(-n_trials // 3), _PEERS * len(runs))
    useful = replicates * max(1, min(n_trials, _AUTO_MAX_SLOTS // replicates, worthwhile))
    slots = max(replicates, min(useful, fitting // replicates * replicates))
    why = f"{short_bytes(in_training)} per SAE, {short_bytes(shared)} shared, {short_bytes(free_bytes)} free" + (
        f"; memory holds {max(fitting, 0)}"
        if fitting < useful
        else f"; a third of {n_trials} trials"
        + f" or {_PEERS} of each architecture"
        + f", at most {_AUTO_MAX_SLOTS}"
        + (f", {replicates} SAEs each" if replicates > 1 else "")
    )
    return planned(slots, why)


@dataclass(frozen=True)
class StreamSizes:
    """What memory says about one stream."""

    runs: tuple[BaseRun, ...]
    """The widest run of each architecture in play, widths known."""
    slots: SlotPlan
    """What memory holds now; a run that resumes keeps the number that it began with."""
    holds_stacks: bool
    """Memory holds what a stacked step takes for all slots at once."""


def size_stream(
    own: Experiment, n_trials: int, d_in: Mapping[str, int], device: torch.device, sharing: int = 1
) -> StreamSizes:
    """Decide the sizes of a stream.

    Args:
        own: The experiment as the stream sees it.
        n_trials: Trials that are expected there.
        d_in: Width at every hook of the stream.
        device: Where the cohort trains.
        sharing: Workers among which the main memory is divided.

    Raises:
        UserError: A stated width contradicts `d_in`.
    """
    search, cohort = own.spec.search, own.spec.cohort
    runs = [with_widths(largest_run(own, name), d_in) for name in own.architectures]
    own_bytes, host = free_bytes(device), host_bytes(device)
    own_bytes = own_bytes // sharing if device.type == "cpu" else own_bytes
    slots = plan_slots(
        cohort,
        n_trials=max(1, n_trials),
        runs=runs,
        hooks=len(own.hook_names()),
        weight_bytes=0,  # a model on the device has already taken its memory from what is free
        free_bytes=own_bytes,
        replicates=search.replicates,
        # The vocabulary is taken as wide as any, because `plan` does not know it, and `run` is to decide as `plan` does.
        measuring_bytes=max(measuring_bytes(run, own.spec.evaluation, len(own.hook_names()), device) for run in runs),
        host_bytes=None if host is None else host // sharing,
        device=device,
    )
    stacked = slots.slots * (slots.slot_bytes + max(map(stacked_bytes, runs))) + slots.shared_bytes
    return StreamSizes(tuple(runs), slots, holds_stacks=stacked <= own_bytes * cohort.memory_fraction)


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def host_bytes(device: torch.device) -> int | None:
    """Return the main memory that is free now; None where SAEs train in it, and `free_bytes` says it."""
    return None if device.type == "cpu" else int(psutil.virtual_memory().available)
