"""From what a calibration measured to the time of a search."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from saesweep.evaluation import needs_language_model
from saesweep.experiment import Experiment
from saesweep.planning.planned import Calibration, Seconds

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
    winner = evaluation.test_tokens / evaluation.select_tokens * calibration.reconstruction_seconds
    winner += _PASSES * of_test / of_select * calibration.splice_seconds
    n_winners = min(1.0, work.at_end)
    return Seconds(
        sae=work.sae_tokens / batch_tokens * step_seconds,
        language_model=work.streamed_tokens / calibration.model_tokens_per_second,
        measuring=work.at_rungs * at_rung
        + work.at_end * (calibration.reconstruction_seconds + calibration.splice_seconds)
        + n_winners * winner,
        start_up=calibration.start_up_seconds,
    )
