"""What can be refused before anything is opened: models, data, the objective and the sampler."""

from __future__ import annotations

from saesweep.engines.protocol import Engine
from saesweep.engines.records import StreamFacts
from saesweep.errors import UserError
from saesweep.experiment import SAMPLERS, Experiment
from saesweep.study import check_sampler

Facts = tuple[StreamFacts, ...]
"""What the preflight found, for every stream in its order."""


def check(experiment: Experiment, engine: Engine) -> Facts:
    """Run the preflight of every stream: model, hooks, dataset, weights to start from; no language model is loaded.

    Raises:
        UserError: Something does not fit together.
    """
    found = engine.preflight(experiment)
    heads = {facts.has_lm_head for facts in found if facts.has_lm_head is not None}
    if len(heads) > 1 and experiment.spec.objective is None:
        raise UserError(
            "objective: missing; it would be another one for the models with a language-model head than for those "
            "without one. State one that all can be measured by, such as {maximize: explained_variance}"
        )
    objectives = [experiment.objective(has_lm_head) for has_lm_head in heads]  # a metric that no model can give
    objective = next(iter(objectives), None) or experiment.spec.objective or experiment.objective(False)
    if experiment.spec.search.sampler not in SAMPLERS:
        check_sampler(experiment.spec.search.sampler, [goal.direction for goal in objective.goals])
    return found
