"""The arguments of `Study.tell` for a trial that has ended, from its own record: at its end, and again from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from saesweep.driver.ranking import costs, natural_values, violations
from saesweep.specs import BaseRun, ObjectiveSpec
from saesweep.study import ExpectedEnd

_K_ERROR = 1.1
"""An L0 differs from its k by at most this factor, where a threshold is exported in place of the k."""
_FLAT = ("l0", "mse", "delta_ce")
"""Metrics that are attributes of their own beside those of the objective."""


def tell_arguments(trial: Mapping[str, Any], objective: ObjectiveSpec) -> dict[str, Any]:
    """Return the arguments of `Study.tell` for a trial that has ended.

    Args:
        trial: What `Trial.state` returned, perhaps through JSON, which makes NaN to None.
        objective: What is optimised.
    """
    metrics = {name: math.nan if value is None else value for name, value in trial["metrics"].items()}
    known = {name: value for name, value in metrics.items() if math.isfinite(value)}
    attrs = {"tokens": trial["tokens"], "metrics": known, "state": trial["status"]}
    # One attribute each, which a dashboard sorts by; every attribute is a transaction, so that the usual ones are enough.
    attrs |= {name: known[name] for name in dict.fromkeys([*objective.metric_names(), *_FLAT]) if name in known}
    if trial["status"] == "complete":
        return {
            "state": "complete",
            "values": natural_values(costs(metrics, objective), objective),
            "constraints": violations(metrics, objective),
            "attrs": attrs,
        }
    attrs |= {"reason": trial["reason"]}
    if (end := expected_end(trial["expected"], objective)) is not None:
        attrs["expected"] = end.to_json()
        attrs |= {f"expected {goal.metric}": v for goal, v in zip(objective.goals, end.values, strict=True)}
    return {"state": "pruned", "values": None, "attrs": attrs}


def expected_end(expected: Mapping[str, float], objective: ObjectiveSpec) -> ExpectedEnd | None:
    """Return what a sampler learns from a trial that has not finished; None where a goal or a limit has no forecast."""
    values = natural_values(costs(expected, objective), objective)
    missed = violations(expected, objective)
    if not all(map(math.isfinite, [*values, *missed.values()])):
        return None
    return ExpectedEnd(tuple(values), missed)


def expected_of(ends: Mapping[int, Mapping[str, float]], objective: ObjectiveSpec) -> dict[int, ExpectedEnd]:
    """Return what training trials are expected to be worth, for the sampler, from the metrics that they will end with."""
    found = {number: expected_end(expected, objective) for number, expected in ends.items()}
    return {number: end for number, end in found.items() if end is not None}


def cannot_keep_limits(run: BaseRun, objective: ObjectiveSpec) -> bool:
    """Return whether the L0 that a run has by construction, its k, is beyond a limit.

    An SAE with few latents to choose from may end below its k; nothing is said of such a one.
    """
    limit, k = objective.subject_to.get("l0"), getattr(run.sae, "k", None)
    if limit is None or k is None or run.sae.d_sae is None or k > run.sae.d_sae / 4:
        return False
    return (limit.max is not None and k > _K_ERROR * limit.max) or (limit.min is not None and _K_ERROR * k < limit.min)
