"""The experiment's space in the terms of the study."""

from __future__ import annotations

from saesweep.experiment import Experiment
from saesweep.study import ParameterView, SpaceView


def space_view(experiment: Experiment) -> SpaceView:
    """Return the experiment's space as the study needs it."""
    parameters = []
    for p in experiment.parameters():
        spec, is_range = p.spec, p.spec.kind != "choice"
        parameters.append(
            ParameterView(
                path=p.path,
                kind=spec.kind,
                low=spec.low if is_range else None,
                high=spec.high if is_range else None,
                log=spec.log,
                step=spec.step,
                choices=spec.choice or (),
                when=p.when,
                grid=spec.grid,
            )
        )
    base = {"sae.architecture": experiment.architectures[0]}
    return SpaceView(parameters=tuple(parameters), base=base)
