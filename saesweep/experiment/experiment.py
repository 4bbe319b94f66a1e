"""The validated experiment, the runs that it leads to, and the settings of its trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from saesweep.errors import UserError
from saesweep.experiment.check_search import rung_steps
from saesweep.experiment.document import Place, block, show
from saesweep.experiment.fields import ARCHITECTURE, NESTED, TARGET_L0, flatten
from saesweep.experiment.identity import fingerprint_of
from saesweep.experiment.overrides import filled, has_reference, with_references
from saesweep.experiment.parameters import (
    base_architecture,
    build_run,
    flatten_space,
    for_architecture,
    layered,
    target_parameters,
)
from saesweep.space import Parameter, Space, corners, grid_size, space_size
from saesweep.specs import METRICS, BaseRun, ControlPlan, ExperimentSpec, Goal, ObjectiveSpec
from saesweep.specs.architectures import CrosscoderSpec, TranscoderSpec
from saesweep.specs.joint_hooks import hooks_in

_DEFAULT_TRIALS = 32


@dataclass(frozen=True)
class Experiment:
    """An experiment file without mistakes. `load_experiment` makes it."""

    spec: ExperimentSpec = field(repr=False)
    """The file's sections."""
    tree: dict[str, Any] = field(repr=False)
    """The data after environment variables, `--set` and `from_cfg`; `written` is what the run directory keeps."""
    architectures: tuple[str, ...]
    """In play: the choices of `sae.architecture` in space, else the base run's, in order."""
    warnings: tuple[str, ...] = ()
    """What can run and may disappoint."""
    references: Mapping[Place, str] = field(default_factory=dict, repr=False)
    """Texts with `${env:NAME}` as they were written, by the place in `tree` that holds the value."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The variables that the experiment names, as far as they are set."""

    @cached_property
    def written(self) -> dict[str, Any]:
        """The data as it is written: like `tree`, with references in place of secrets and places."""
        return with_references(self.tree, self.references)

    @property
    def written_references(self) -> tuple[str, ...]:
        """`evaluation.references` as they are written: what rows and files call them."""
        return tuple(self.written.get("evaluation", {}).get("references", ()))

    @cached_property
    def space(self) -> Space:
        """What is searched: one parameter per range, every condition written out, deciders first, a target L0 last."""
        return Space(
            (*flatten_space(self.spec.space, self.architectures), *target_parameters(self.spec.objective)),
        )

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the parameters of the space."""
        return self.space.parameters

    def resolve(self, params: Mapping[str, Any]) -> BaseRun:
        """Return the full run of a trial.

        Args:
            params: Values by dotted path. The architecture may be left out where the space does not search it. With
                `objective.matched`, `target_l0` is among them.

        Raises:
            UserError: The values contradict each other or the base run.
        """
        architecture = params.get(ARCHITECTURE, base_architecture(self.tree))
        run, problems = (
            build_run(layered(self.tree, architecture, filled(dict(params), self.environment)))
            if architecture in self.architectures
            else (None, [(ARCHITECTURE, f"{architecture!r} is none of {', '.join(self.architectures)}")])
        )
        if run is None or problems:
            setting = ", ".join(f"{path} {show(value)}" for path, value in params.items()) or "no parameters"
            raise UserError(f"a trial with {setting}: " + "; ".join(f"{p}: {m}" for p, m in problems))
        return run.with_references(self._references_of(params))

    def _references_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a trial's run that hold references, as they are written, by dotted path."""
        base = block(self.written, "base")
        paths = {".".join(map(str, p[1 : 3 if p[1] in NESTED else 2])) for p in self.references if p[0] == "base"}
        found = {path: flatten(base)[path] for path in paths if path not in params}
        return {**found, **{path: value for path, value in params.items() if has_reference(value)}}

    def target_l0(self, params: Mapping[str, Any]) -> float | None:
        """Return the L0 that a trial aims at; None without `objective.matched`."""
        target = params.get(TARGET_L0)
        return None if target is None else float(target)

    def corner_params(self, architecture: str) -> list[dict[str, Any]]:
        """Return settings of an architecture at the edges of the space, by dotted path."""
        own = for_architecture(self.parameters(), architecture)
        fixed = {ARCHITECTURE: architecture} if ARCHITECTURE in self.spec.space else {}
        return [{**fixed, **params} for params in corners(own)]

    def corner_runs(self, architecture: str) -> list[BaseRun]:
        """Return runs of an architecture at the edges of the space: what memory planning must fit."""
        return [self.resolve(params) for params in self.corner_params(architecture)]

    def base_run(self) -> BaseRun:
        """Return one run of the experiment, for everything that all trials share: the stream, tokens, devices, seed."""
        return self.corner_runs(self.architectures[0])[0]

    def rung_steps(self) -> tuple[int, ...]:
        """Return the steps at which trials are judged, ascending; empty with `pruner: none`."""
        return rung_steps(self.spec.search, self.base_run())

    def hook_names(self) -> tuple[str, ...]:
        """Return every hook that a trial can ask for: what it reads, and what transcoders reconstruct."""
        return self._hook_names

    @cached_property
    def _hook_names(self) -> tuple[str, ...]:
        different: dict[Any, dict[str, Any]] = {}
        for name in self.architectures:
            for params in self.corner_params(name):
                different.setdefault((name, params.get("hook_name"), params.get("hook_name_out")), params)
        runs = [self.resolve(params) for params in different.values()]
        targets = [run.hook_name_out for run in runs if run.hook_name_out is not None]
        return tuple(dict.fromkeys([*(run.hook_name for run in runs), *targets]))

    def objective(self, has_lm_head: bool) -> ObjectiveSpec:
        """Return the objective: the stated one, else a front of L0 and what reconstruction costs the model's predictions.

        That is cross-entropy, or the KL divergence where `seqpos_slice` selects no position with a next token.

        Args:
            has_lm_head: Whether the activations' source has a language-model head to measure cross-entropy with.

        Raises:
            UserError: A stated metric needs a head that the model lacks.
        """
        stated = self.spec.objective
        if stated is None:
            loss = "delta_ce" if self.base_run().has_next_tokens else "kl_div"
            cost = Goal(minimize=loss) if has_lm_head else Goal(maximize="explained_variance")
            return ObjectiveSpec(pareto=(Goal(minimize="l0"), cost))
        lacking = [name for name in stated.metric_names() if METRICS[name].needs_lm_head and not has_lm_head]
        if lacking:
            raise UserError(
                f"objective: {lacking[0]} needs a language-model head, and this source has none; use explained_variance"
            )
        return stated

    def reads_language_model(self) -> bool:
        """Return whether the model is loaded: never for synthetic activations, for cached ones only for CE metrics and probes."""
        run, stated = self.base_run(), self.spec.objective
        if run.is_synthetic or not run.use_cached_activations:
            return not run.is_synthetic
        if self.spec.evaluation.probes is not None:
            return True
        return stated is not None and any(METRICS[name].needs_lm_head for name in stated.metric_names())

    @property
    def n_trials(self) -> int:
        """Trials of the search."""
        stated = self.spec.search.trials
        if not self.parameters():
            return 1
        if self.spec.search.sampler == "grid":
            points = grid_size(self.parameters())
            return points if stated is None else min(stated, points)
        if self.spec.search.sampler == "fixed":
            listed = len(self.spec.search.fixed)
            return listed if stated is None else min(stated, listed)
        wanted = stated if stated is not None else _DEFAULT_TRIALS
        size = space_size(self.parameters())  # a point is tried once: a copy would train to the same bits
        return wanted if size is None else min(wanted, size)

    def fingerprint(self) -> str:
        """Return the SHA-256 of everything that decides what the trials are; a run that continues with another space has several."""
        return fingerprint_of(self.written)


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
