"""The settings of one trial: what decides its training, and what is said about it; the same for driver and worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saesweep.experiment.experiment import Experiment
from saesweep.specs import BaseRun, ControlPlan, ObjectiveSpec
from saesweep.specs.architectures import CrosscoderSpec, TranscoderSpec
from saesweep.specs.joint_hooks import hooks_in


@dataclass(kw_only=True)
class TrialSettings:
    """A trial's number, its parameters and what follows from them."""

    number: int
    params: dict[str, Any]
    run: BaseRun
    replicates: int = 1
    target_l0: float | None = None
    """The L0 that it aims at, with `objective.matched`."""
    control: ControlPlan | None = None
    """How its coefficient is steered there; None where it is not."""
    frozen: list[float] = field(default_factory=list)
    """The coefficient that each replicate ended with, once it is finished."""

    def exported_run(self, replicate: int) -> BaseRun:
        """Return the run that an exported SAE states: the coefficient that the replicate ended with, if it was steered."""
        if self.control is None or not self.frozen:
            return self.run
        sae = self.run.sae.model_copy(update={self.control.field: self.frozen[replicate]})
        return self.run.model_copy(update={"sae": sae})

    @property
    def coefficient(self) -> dict[str, Any]:
        """How the coefficient was steered, for records: field, start, what each replicate ended with; empty without."""
        if self.control is None:
            return {}
        field_name = self.control.field
        batch_tokens = self.run.train_batch_size_tokens
        return {
            "field": f"sae.{field_name}",
            "start": getattr(self.run.sae, field_name),
            "frozen": self.frozen,
            "frozen_from_tokens": self.control.freeze_step * batch_tokens,
        }

    @property
    def total_tokens(self) -> int:
        """Training tokens of the whole run."""
        return self.run.total_steps * self.run.train_batch_size_tokens


def settings_for(
    experiment: Experiment,
    objective: ObjectiveSpec,
    d_in: Mapping[str, int],
    number: int,
    params: dict[str, Any],
) -> TrialSettings:
    """Return the settings of a trial.

    Args:
        experiment: The whole experiment.
        objective: What is optimised; with matched L0 it says how the trial is steered.
        d_in: Width at every hook of its stream.
        number: Of the trial.
        params: Its parameters by dotted path.
    """
    run, target_l0 = with_widths(experiment.resolve(params), d_in), experiment.target_l0(params)
    return TrialSettings(
        number=number,
        params=params,
        run=run,
        replicates=experiment.spec.search.replicates,
        target_l0=target_l0,
        control=control_plan(run, target_l0, objective),
    )


def control_plan(run: BaseRun, target_l0: float | None, objective: ObjectiveSpec) -> ControlPlan | None:
    """Return how a trial's coefficient is steered to its target L0; None where it is not."""
    matched = objective.matched
    return None if target_l0 is None or matched is None else ControlPlan.of(run, target_l0, matched)


def with_widths(run: BaseRun, d_in: Mapping[str, int]) -> BaseRun:
    """Return a run with `d_in` and `d_sae` filled in from its hook, a transcoder's `d_out` where it is known, a crosscoder's `n_layers`."""
    d_out = None if run.hook_name_out is None else d_in.get(run.hook_name_out)
    if isinstance(run.sae, TranscoderSpec):
        return run.model_copy(update={"sae": run.sae.resolve_widths(d_in[run.hook_name], d_out)})
    if isinstance(run.sae, CrosscoderSpec):
        n_layers = len(hooks_in(run.hook_name))
        return run.model_copy(update={"sae": run.sae.resolve_widths(d_in[run.hook_name], n_layers)})
    return run.model_copy(update={"sae": run.sae.resolve_widths(d_in[run.hook_name])})
