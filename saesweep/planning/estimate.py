"""How long a search takes, and the main memory that its process needs at its peak, where SAEs train there.

The time comes from what a calibration measured, or from the number of operations alone: then nothing is loaded, and a model's
width and depth must be known.
"""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass

import psutil
import torch

from saesweep.errors import UserError
from saesweep.evaluation import needs_language_model
from saesweep.experiment import Experiment
from saesweep.experiment.local_config import local_config
from saesweep.models import ModelFacts, inspect_model
from saesweep.models.library import locate
from saesweep.planning.planned import Calibration, Seconds
from saesweep.planning.probing import probes_seconds
from saesweep.specs import METRICS, BaseRun
from saesweep.specs.architectures import TopKFamilySpec
from saesweep.worker.sizing import StreamSizes, measuring_bytes, shared_bytes
from saesweep.worker.stacked_memory import stacked_bytes

_PASSES = 3
"""Forward passes over the `test` part for its one SAE: clean, ablated, spliced."""


@dataclass(frozen=True)
class Work:
    """What a number of trials do."""

    sae_tokens: float
    """Tokens trained on, over all SAEs."""
    at_rungs: float
    """Measurements of an SAE at a rung."""
    at_end: float
    """SAEs that train to their end and are measured there."""
    streamed_tokens: float
    """Tokens that the stream serves: each batch to all slots at once."""

    def times(self, replicates: int) -> Work:
        """Return the same for trials of several SAEs, side by side."""
        return Work(
            replicates * self.sae_tokens, replicates * self.at_rungs, replicates * self.at_end, self.streamed_tokens
        )


def seconds_of(experiment: Experiment, work: Work, calibration: Calibration) -> Seconds:
    """Return where the time of the trials of one stream goes.

    Architectures have equal shares. The language model and the SAEs are counted one after the other, which is what
    happens unless `prefetch_llm_batches` lets them overlap.

    Args:
        experiment: The whole experiment.
        work: What the trials do.
        calibration: What was measured on their stream.
    """
    batch_tokens = experiment.base_run().train_batch_size_tokens
    step_seconds = statistics.fmean(calibration.step_seconds.values())
    objective = experiment.objective(calibration.splice_seconds > 0)
    evaluation, tokens = experiment.spec.evaluation, experiment.base_run().training_tokens
    decided_by = [*(goal.metric for goal in objective.goals), *objective.subject_to]
    of_select, of_test = (evaluation.ce_tokens_of(part, tokens) for part in ("select", "test"))
    at_rung = (
        evaluation.at_rung(evaluation.select_tokens) / evaluation.select_tokens * calibration.reconstruction_seconds
    )
    if needs_language_model(decided_by):
        at_rung += evaluation.at_rung(of_select) / of_select * calibration.splice_seconds
    if any(METRICS[name].needs_probes for name in decided_by if name in METRICS):
        at_rung += calibration.probes_seconds
    winner = evaluation.test_tokens / evaluation.select_tokens * calibration.reconstruction_seconds
    winner += _PASSES * of_test / of_select * calibration.splice_seconds
    n_winners = min(1.0, work.at_end)
    return Seconds(
        sae=work.sae_tokens / batch_tokens * step_seconds,
        language_model=work.streamed_tokens / calibration.model_tokens_per_second,
        measuring=work.at_rungs * at_rung
        + work.at_end * (calibration.reconstruction_seconds + calibration.splice_seconds + calibration.probes_seconds)
        + n_winners * winner,
        start_up=calibration.start_up_seconds,
    )


_SPARSE_PRODUCTS, _DENSE_PRODUCTS = 2, 6
"""Encoder-sized matrix products of a training step: both ways, where only active latents are computed, and where all are."""


def facts_at_hand(own: Experiment) -> ModelFacts | None:
    """Return what the configuration of a stream's language model says; None without one, or where it is not (all) on this machine.

    Raises:
        UserError: It does not go with the experiment.
    """
    run = own.base_run()
    if not own.reads_language_model() or local_config(run.model_name, run.model_from_pretrained_kwargs) is None:
        return None
    try:
        return inspect_model(run, own.hook_names(), offline=True)
    except UserError:
        if not locate(run).is_local:  # the Hub's cache may hold the configuration and nothing else
            return None
        raise


def estimated(
    own: Experiment, runs: tuple[BaseRun, ...], facts: ModelFacts | None, gflops: float, label: str
) -> Calibration | None:
    """Return what a calibration would find if every matrix product ran at one speed; None where the model is unknown.

    Args:
        own: The experiment as the stream sees it.
        runs: The widest run of each architecture.
        facts: What is known of the language model.
        gflops: That speed.
        label: The stream's.
    """
    run, speed = runs[0], gflops * 1e9
    evaluation = own.spec.evaluation
    weights = {r.sae.architecture: (r.sae.d_in or 0) * (r.sae.d_sae or 0) for r in runs}
    before = after = 0.0
    if own.reads_language_model():
        if facts is None:
            return None
        before, after = _operations(own, facts)
    return Calibration(
        label=label,
        model_tokens_per_second=speed / before if before else math.inf,
        step_seconds={
            r.sae.architecture: 2
            * weights[r.sae.architecture]
            * run.train_batch_size_tokens
            * (_SPARSE_PRODUCTS if isinstance(r.sae, TopKFamilySpec) else _DENSE_PRODUCTS)
            / speed
            for r in runs
        },
        reconstruction_seconds=2 * 2 * max(weights.values()) * evaluation.select_tokens / speed,
        splice_seconds=after * evaluation.ce_tokens_of("select", run.training_tokens) / speed,
        start_up_seconds=0.0,
        probes_seconds=probes_seconds(evaluation.probes, runs, speed),
    )


def _operations(own: Experiment, facts: ModelFacts) -> tuple[float, float]:
    """Return the operations for a token up to the last hook, and from the first hook to the logits."""
    run = own.base_run()
    config = local_config(run.model_name, run.model_from_pretrained_kwargs)
    width, layers = (None, None) if config is None else (config.width, config.n_layers)
    head = facts.d_vocab * (width or max(facts.hooks.values()))
    body = max(0, facts.n_parameters - head)
    depths = [
        (int(found[1]) + 1) / layers if layers and (found := re.search(r"\.(\d+)(?:\.|$)", hook)) else 1.0
        for hook in own.hook_names()
    ]
    last, first = min(1.0, max(depths)), min(1.0, min(depths))
    skipped = first if all(depth < 1 for depth in depths) else 0.0
    return 2 * body * last, 2 * (body * (1 - skipped) + head * facts.has_lm_head) * facts.has_lm_head


_LIBRARIES = 250 << 20
"""What a run loads beyond what `plan` has loaded: datasets with Arrow, and what an allocator keeps between uses."""


def process_peak(own: Experiment, sizes: StreamSizes, facts: ModelFacts) -> int:
    """Return the most memory that a run's process takes on a CPU: Python with its libraries, the model, the SAEs, measuring.

    Args:
        own: The experiment as the stream sees it.
        sizes: The stream's.
        facts: What is known of its language model.
    """
    runs, slots, hooks = list(sizes.runs), sizes.slots, len(own.hook_names())
    measuring = max(
        measuring_bytes(run, own.spec.evaluation, hooks, torch.device("cpu"), facts.d_vocab * facts.has_lm_head)
        for run in runs
    )
    shared = shared_bytes(runs, hooks, 0, own.spec.cohort.adam_moments, measuring)
    copies = 1 + slots.background_checkpoints
    stacked = slots.slots * max(map(stacked_bytes, runs)) if own.spec.cohort.kernels == "stacked" else 0
    return int(
        psutil.Process().memory_info().rss
        + _LIBRARIES
        + facts.weight_bytes
        + copies * slots.slots * slots.slot_bytes
        + shared
        + stacked
    )
