"""Warnings: the experiment can run, and its author may not like what comes out."""

from __future__ import annotations

from collections.abc import Sequence

from saesweep.experiment.check_matched import matched_warnings
from saesweep.experiment.check_objective import objective_warnings
from saesweep.experiment.check_search import search_warnings
from saesweep.experiment.draft import Draft
from saesweep.experiment.parameters import Parameter
from saesweep.specs import BaseRun, SearchSpec, format_count
from saesweep.specs.architectures import JumpReLUSpec, spec_class

_LONG_RUN_TOKENS = 1_000_000_000


def warnings_for(draft: Draft, parameters: Sequence[Parameter], runs: Sequence[BaseRun], n_trials: int) -> list[str]:
    """Return the warnings for an experiment without mistakes; `runs` are those at the edges of its space."""
    found = _threshold_warnings(runs)
    fields = {spec_class(name).sparsity_field for name in draft.architectures}
    searches_sparsity = any(p.path.removeprefix("sae.") in fields for p in parameters)
    found += objective_warnings(draft.objective, searches_sparsity)
    if runs:
        search = draft.search or SearchSpec()
        found += search_warnings(search, parameters, runs[0])
        if draft.objective is not None and draft.objective.matched is not None:
            found += matched_warnings(draft.objective.matched, search, n_trials, parameters, runs)
    return found


def _threshold_warnings(runs: Sequence[BaseRun]) -> list[str]:
    """Warn about JumpReLU losses that reach only the thresholds, which move by about lr a step."""
    modes = {
        run.sae.jumprelu_sparsity_loss_mode
        for run in runs
        if isinstance(run.sae, JumpReLUSpec)
        and run.sae.jumprelu_sparsity_loss_mode != "tanh"
        and not run.sae.jumprelu_ste_to_input
        and run.training_tokens < _LONG_RUN_TOKENS
    }
    if not modes:
        return []
    tokens = format_count(runs[0].training_tokens)
    return [
        f"jumprelu with jumprelu_sparsity_loss_mode: {mode} hardly becomes sparse in {tokens} tokens "
        "(L0 stays in the hundreds whatever the coefficient; it wants 1B tokens or more); "
        "use by_architecture: {jumprelu: {preset: anthropic-jan-2025, sae.jumprelu_ste_to_input: true}}"
        for mode in sorted(modes)
    ]
