"""The validated experiment, and the runs that it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from saesweep.errors import UserError
from saesweep.experiment.check_search import rung_steps
from saesweep.experiment.document import show
from saesweep.experiment.fields import ARCHITECTURE, TARGET_L0
from saesweep.experiment.identity import fingerprint_of
from saesweep.experiment.layers import base_architecture, build_run, layered
from saesweep.experiment.parameters import (
    Parameter,
    corners,
    flatten_space,
    for_architecture,
    grid_size,
    target_parameters,
)
from saesweep.specs import METRICS, BaseRun, ExperimentSpec, Goal, ObjectiveSpec

_DEFAULT_TRIALS = 32


@dataclass(frozen=True)
class Experiment:
    """An experiment file without mistakes. `load_experiment` makes it."""

    spec: ExperimentSpec
    """The file's sections."""
    tree: dict[str, Any] = field(repr=False)
    """The data after environment variables, `--set` and `from_cfg`: what the run directory keeps."""
    architectures: tuple[str, ...]
    """In play: the choices of `sae.architecture` in space, else the base run's, in order."""
    warnings: tuple[str, ...] = ()
    """What can run and may disappoint."""

    @cached_property
    def _parameters(self) -> tuple[Parameter, ...]:
        return (*flatten_space(self.spec.space, self.architectures), *target_parameters(self.spec.objective))

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the space flat: one entry per range, every condition written out, deciders first, a target L0 last."""
        return self._parameters

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
            build_run(layered(self.tree, architecture, params))
            if architecture in self.architectures
            else (None, [(ARCHITECTURE, f"{architecture!r} is none of {', '.join(self.architectures)}")])
        )
        if run is None or problems:
            setting = ", ".join(f"{path} {show(value)}" for path, value in params.items()) or "no parameters"
            raise UserError(f"a trial with {setting}: " + "; ".join(f"{p}: {m}" for p, m in problems))
        return run

    def target_l0(self, params: Mapping[str, Any]) -> float | None:
        """Return the L0 that a trial aims at; None without `objective.matched`."""
        target = params.get(TARGET_L0)
        return None if target is None else float(target)

    def corner_runs(self, architecture: str) -> list[BaseRun]:
        """Return runs of an architecture at the edges of the space: what memory planning must fit."""
        own = for_architecture(self._parameters, architecture)
        fixed = {ARCHITECTURE: architecture} if ARCHITECTURE in self.spec.space else {}
        return [self.resolve({**fixed, **params}) for params in corners(own)]

    def base_run(self) -> BaseRun:
        """Return one run of the experiment, for everything that all trials share: the stream, tokens, devices, seed."""
        return self.corner_runs(self.architectures[0])[0]

    def rung_steps(self) -> tuple[int, ...]:
        """Return the steps at which trials are judged, ascending; empty with `pruner: none`."""
        return rung_steps(self.spec.search, self.base_run())

    def hook_names(self) -> tuple[str, ...]:
        """Return every hook that a trial can ask for."""
        searched = [v for p in self._parameters if p.path == "hook_name" for v in p.spec.choice or ()]
        return tuple(dict.fromkeys(searched or [self.base_run().hook_name]))

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
        """Return whether the model is loaded: never for synthetic activations, for cached ones only if CE metrics are asked for."""
        run, stated = self.base_run(), self.spec.objective
        if run.is_synthetic or not run.use_cached_activations:
            return not run.is_synthetic
        return stated is not None and any(METRICS[name].needs_lm_head for name in stated.metric_names())

    @property
    def n_trials(self) -> int:
        """Trials of the search."""
        stated = self.spec.search.trials
        if not self._parameters:
            return 1
        if self.spec.search.sampler == "grid":
            points = grid_size(self._parameters)
            return points if stated is None else min(stated, points)
        if self.spec.search.sampler == "fixed":
            listed = len(self.spec.search.fixed)
            return listed if stated is None else min(stated, listed)
        return stated if stated is not None else _DEFAULT_TRIALS

    def fingerprint(self) -> str:
        """Return the SHA-256 of everything that must stay the same for a run directory to be continued."""
        return fingerprint_of(self.tree)
