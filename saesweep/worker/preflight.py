"""Checks of model, hooks, data and starting weights before anything is opened for training."""

from __future__ import annotations

from saesweep.activations import check_source
from saesweep.engines.records import StreamFacts
from saesweep.errors import UserError
from saesweep.experiment import Experiment, streams_of, with_widths
from saesweep.saes import check_pretrained
from saesweep.worker.references import open_references


def preflight(experiment: Experiment) -> tuple[StreamFacts, ...]:
    """Check every stream of an experiment; no language model is loaded.

    Raises:
        UserError: Something does not fit together.
    """
    found = []
    for stream in streams_of(experiment):
        try:
            found.append(_check_stream(stream.label, stream.experiment))
        except UserError as error:
            if not stream.label:
                raise
            raise UserError(f"{stream.label}: {error}") from error
    return tuple(found)


def _check_stream(label: str, experiment: Experiment) -> StreamFacts:
    run = experiment.base_run()
    facts = check_source(run, experiment.spec.evaluation, experiment.hook_names(), training_tokens=run.training_tokens)
    check_pretrained(
        with_widths(corner, facts.d_in)
        for architecture in experiment.architectures
        for corner in experiment.corner_runs(architecture)
    )
    for _ in open_references(experiment, facts.d_in):
        pass
    return StreamFacts(
        label=label,
        d_in=dict(facts.d_in),
        has_lm_head=None if facts.model is None else facts.model.has_lm_head,
        warnings=tuple(facts.warnings),
    )
