"""How many SAEs fit: decided before anything is loaded, from the specs alone."""

from __future__ import annotations

from dataclasses import dataclass

from saesweep.specs import BaseRun, CohortSpec

_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_AUTO_MAX_SLOTS = 16
_PEERS = 2


def slot_bytes(run: BaseRun, adam_moments: str = "float32") -> int:
    """Return the memory of one slot: master weights and two Adam moments."""
    if run.sae.dtype == "float64":
        return 24 * run.sae.n_parameters()
    return (4 + 2 * _BYTES[adam_moments]) * run.sae.n_parameters()


def shared_bytes(
    runs: list[BaseRun], hooks: int, weight_bytes: int, adam_moments: str = "float32", measuring_bytes: int = 0
) -> int:
    """Return the memory that the slots share: one set of gradients, the widest step's activations, the window, the model.

    Measuring comes between steps, so that the larger of the two counts.
    """
    first = runs[0]
    widest = max(run.sae.d_sae or 0 for run in runs)
    d_in = max(run.sae.d_in or 0 for run in runs)
    # One set of gradients; moments kept narrow are widened for one slot at a time.
    sets = 1 if adam_moments == "float32" else 3
    gradients = sets * max(4 * run.sae.n_parameters() for run in runs)
    # The reference path keeps about six [batch, d_sae] tensors alive; the sparse kernels less on a CPU, and up to eight on a
    # GPU, which works on whole batches and on factors in three halves.
    step = 8 * 4 * first.train_batch_size_tokens * widest
    window = first.window_tokens * d_in * _BYTES[first.dtype] * hooks
    return max(gradients + step, measuring_bytes) + window + 2 * weight_bytes


@dataclass(frozen=True)
class SlotPlan:
    """How many slots, and why."""

    slots: int
    reason: str
    slot_bytes: int
    shared_bytes: int
    measuring_bytes: int
    """Most memory that measuring takes; `shared_bytes` holds it where it is more than a training step's."""
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
        measuring_bytes: Most memory that measuring takes.
        host_bytes: Memory that is free now on the host, where checkpoints are copied to; None where that is `free_bytes`.
    """
    per_slot = max(slot_bytes(run, cohort.adam_moments) for run in runs)
    shared = shared_bytes(runs, hooks, weight_bytes, cohort.adam_moments, measuring_bytes)

    def planned(slots: int, reason: str) -> SlotPlan:
        # More SAEs at once are worth more than a copy: where there is no room for one, training waits for checkpoints.
        copied = slots * per_slot
        if host_bytes is None:
            is_copied = 2 * copied + shared <= free_bytes * cohort.memory_fraction
        else:
            is_copied = copied <= host_bytes * cohort.memory_fraction
        copy = (
            f"{copied / (1 << 30):.2f} GiB of main memory to write checkpoints from"
            if is_copied
            else "no room for a copy: training waits while checkpoints are written"
        )
        return SlotPlan(slots, f"{reason}; {copy}", per_slot, shared, measuring_bytes, is_copied)

    if cohort.size != "auto":
        trials = max(1, min(cohort.size // replicates, n_trials))
        return planned(trials * replicates, "as the file says")
    usable = free_bytes * cohort.memory_fraction - shared
    fitting = int(usable // per_slot)
    # A third of the trials at once leaves the sampler something to learn from; two of each architecture show at the first
    # rung how they differ.
    worthwhile = max(4, -(-n_trials // 3), _PEERS * len(runs))
    wanted = replicates * max(1, min(n_trials, _AUTO_MAX_SLOTS // replicates, worthwhile))
    slots = max(replicates, min(wanted, fitting // replicates * replicates))
    gib = 1 << 30
    why = f"{per_slot / gib:.2f} GiB per SAE, {shared / gib:.2f} GiB shared, {free_bytes / gib:.1f} GiB free" + (
        f"; memory holds {max(fitting, 0)}"
        if fitting < wanted
        else f"; a third of {n_trials} trials"
        + f" or {_PEERS} of each architecture"
        + f", at most {_AUTO_MAX_SLOTS}"
        + (f", {replicates} SAEs each" if replicates > 1 else "")
    )
    return planned(slots, why)
