"""Representative runs of a space: what memory planning and the shared stream look at."""

from __future__ import annotations

from saesweep.experiment import Experiment
from saesweep.specs import BaseRun
from saesweep.specs.architectures import NormalizeActivations


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
