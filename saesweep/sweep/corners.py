"""Representative points of a space: what memory planning and the shared stream look at."""

from __future__ import annotations

from typing import Any

from saesweep.experiment import Experiment
from saesweep.specs import BaseRun

_WIDTHS = ("sae.d_sae", "sae.expansion_factor")


def largest_run(experiment: Experiment, architecture: str) -> BaseRun:
    """Return the run of one architecture with every range at its low end, every choice at its first, widths at their largest."""
    params: dict[str, Any] = {}
    if any(p.path == "sae.architecture" for p in experiment.parameters()):
        params["sae.architecture"] = architecture
    for parameter in experiment.parameters():
        if parameter.path in params or not _active(parameter.when, params):
            continue
        extremes = parameter.spec.extremes()
        params[parameter.path] = max(extremes) if parameter.path in _WIDTHS else extremes[0]
    return experiment.resolve(params)


def hooks_of(experiment: Experiment) -> tuple[str, ...]:
    """Return every hook that a trial may read, in order."""
    searched = [p.spec.choice or () for p in experiment.parameters() if p.path == "hook_name"]
    if searched:
        return tuple(dict.fromkeys(value for choice in searched for value in choice))
    return (largest_run(experiment, experiment.architectures[0]).hook_name,)


def normalize_modes(experiment: Experiment) -> tuple[str, ...]:
    """Return every `normalize_activations` that a trial may use."""
    modes = [largest_run(experiment, name).sae.normalize_activations for name in experiment.architectures]
    searched = [p.spec.choice or () for p in experiment.parameters() if p.path == "sae.normalize_activations"]
    return tuple(dict.fromkeys([*modes, *(mode for choice in searched for mode in choice)]))


def _active(when: dict[str, tuple[Any, ...]], params: dict[str, Any]) -> bool:
    return all(params.get(path) in values for path, values in when.items())
