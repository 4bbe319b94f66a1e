"""What the study is told when a trial ends, from the trial's own record: at its end, and again from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from saesweep.driver.ranking import costs, natural_values, violations
from saesweep.specs import ObjectiveSpec
from saesweep.study import ExpectedEnd


def result_to_tell(trial: Mapping[str, Any], objective: ObjectiveSpec) -> dict[str, Any]:
    """Return the arguments of `Study.tell` for a trial that has ended.

    Args:
        trial: What `Trial.state` returned, perhaps through JSON, which makes NaN to None.
        objective: What is optimised.
    """
    metrics = {name: math.nan if value is None else value for name, value in trial["metrics"].items()}
    attrs = {"tokens": trial["tokens"], "metrics": {k: v for k, v in metrics.items() if math.isfinite(v)}}
    if trial["status"] == "complete":
        return {
            "state": "complete",
            "values": natural_values(costs(metrics, objective), objective),
            "constraints": violations(metrics, objective),
            "attrs": attrs,
        }
    attrs |= {"reason": trial["reason"], "status": trial["status"]}
    if (end := expected_end(trial["expected"], objective)) is not None:
        attrs["expected"] = end.to_json()
    return {"state": "pruned", "values": None, "attrs": attrs}


def expected_end(expected: Mapping[str, float], objective: ObjectiveSpec) -> ExpectedEnd | None:
    """Return what a sampler learns from a trial that has not finished; None where a goal or a limit has no forecast."""
    values = natural_values(costs(expected, objective), objective)
    missed = violations(expected, objective)
    if not all(map(math.isfinite, [*values, *missed.values()])):
        return None
    return ExpectedEnd(tuple(values), missed)
