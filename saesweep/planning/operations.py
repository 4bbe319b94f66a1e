"""How long a search takes, from the number of operations alone: nothing is loaded, and a model's width and depth must be known."""

from __future__ import annotations

import math
import re

from saesweep.errors import UserError
from saesweep.experiment import Experiment
from saesweep.experiment.local_config import local_config
from saesweep.models import ModelFacts, inspect_model
from saesweep.models.library import locate
from saesweep.planning.planned import Calibration
from saesweep.specs import BaseRun
from saesweep.specs.architectures import TopKFamilySpec

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
