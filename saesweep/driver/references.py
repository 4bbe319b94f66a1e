"""Published SAEs measured on the sweep's own held-out tokens: rows of the leaderboard that trials are compared with."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saesweep.driver.ranking import costs, infeasibility
from saesweep.errors import UserError
from saesweep.evaluation.hooks import hook_of
from saesweep.events import ReferenceRow, Row
from saesweep.experiment import Experiment
from saesweep.runs import read_json, write_json
from saesweep.saes import ExportedSAE, open_sae
from saesweep.scheduler import dominates
from saesweep.specs import ObjectiveSpec

if TYPE_CHECKING:
    from saesweep.worker.setup import Setup

FILE = "references.json"


def open_references(experiment: Experiment, d_in: Mapping[str, int]) -> Iterator[tuple[str, str, ExportedSAE]]:
    """Yield (what the file names, hook, SAE) of every `evaluation.references`, one at a time.

    Raises:
        UserError: One cannot be read, or is of another hook or width than the experiment reads.
    """
    for place, name in zip(experiment.spec.evaluation.references, experiment.written_references, strict=True):
        sae = open_sae(place)
        hook = hook_of(sae, experiment, name)
        if hook not in d_in:
            raise UserError(
                f"evaluation.references: {name} belongs to {hook!r}, and this experiment reads {', '.join(d_in)}"
            )
        if sae.d_in != d_in[hook]:
            raise UserError(
                f"evaluation.references: {name} reads activations {sae.d_in} wide, but {hook!r} is {d_in[hook]} wide"
            )
        yield name, hook, sae


def measure_references(setup: Setup) -> tuple[ReferenceRow, ...]:
    """Return the references' rows, not ranked yet: measured on `select`, where trials are ranked.

    What an earlier start of the run measured of the same weights is taken from `references.json`.
    """
    file = setup.directory.path / FILE
    known = _measured_before(file)
    found: list[dict[str, Any]] = []
    for name, hook, sae in open_references(setup.experiment, setup.d_in):
        item = {
            "source": name,
            "hook": hook,
            "architecture": str(sae.metadata.get("training_architecture") or sae.architecture),
            "d_sae": sae.d_sae,
            "sparsity": f"k {sae.cfg['k']}" if "k" in sae.cfg else "",
            "weights_sha256": _sha256(sae),
        }
        if _identity(item) in known:
            item = known[_identity(item)]
        else:
            (item["metrics"],) = setup.evaluator.measure([sae.to(setup.device)], hook, with_model=True, spread=True)
        found.append(item)
    if found:
        write_json(file, found)
    return tuple(_row(number, item) for number, item in enumerate(found))


def _measured_before(file: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return what `references.json` holds; nothing where it is damaged, since it can be measured again."""
    try:
        return {_identity(item): item for item in read_json(file) if _row(0, item)}
    except (OSError, UserError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def _identity(item: Mapping[str, Any]) -> tuple[str, str, str]:
    return item["source"], item["hook"], item["weights_sha256"]


def _sha256(sae: ExportedSAE) -> str:
    digest = hashlib.sha256(json.dumps(sae.cfg, sort_keys=True).encode())
    for name in sorted(sae.tensors):
        digest.update(sae.tensors[name].contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _row(number: int, item: Mapping[str, Any]) -> ReferenceRow:
    return ReferenceRow(
        number=number,
        architecture=item["architecture"],
        sparsity=item["sparsity"],
        params={},
        lr=math.nan,
        hook=item["hook"],
        status="reference",
        tokens=0,
        total_tokens=0,
        metrics={name: math.nan if value is None else value for name, value in item["metrics"].items()},
        source=item["source"],
        d_sae=item["d_sae"],
    )


def ranked_references(
    references: Sequence[ReferenceRow], rows: Sequence[Row], objective: ObjectiveSpec
) -> tuple[ReferenceRow, ...]:
    """Return the references with the rank that each would have among the ranked trials, whose own ranks stay as they are.

    Args:
        references: As `measure_references` returned them.
        rows: Ranked trials.
        objective: What is optimised; a reference that lacks one of its metrics, or misses a constraint, has no rank.
    """
    trials = [(row.rank, costs(row.metrics, objective)) for row in rows if row.rank is not None]

    def placed(reference: ReferenceRow) -> ReferenceRow:
        cost = costs(reference.metrics, objective)
        is_feasible = infeasibility(reference.metrics, objective) == 0
        if not trials or not is_feasible or any(map(math.isnan, cost)):
            return replace(reference, rank=None, on_front=False, feasible=is_feasible)
        better = [rank for rank, other in trials if dominates(other, cost)]
        rank = 1 + (max(better, default=0) if objective.is_pareto else len(better))
        return replace(reference, rank=rank, on_front=objective.is_pareto and rank == 1, feasible=True)

    return tuple(placed(reference) for reference in references)


def reference_notes(
    references: Sequence[ReferenceRow], rows: Sequence[Row], objective: ObjectiveSpec, best: int | None
) -> list[str]:
    """Return a line for each reference that beats the exported trial in every goal."""
    winner = next((row for row in rows if row.number == best), None)
    if winner is None:
        return []
    cost = costs(winner.metrics, objective)
    goals = " and ".join(goal.metric for goal in objective.goals)
    return [
        f"reference {row.source} is better in {goals} than trial {winner.number}, which best/ holds"
        for row in references
        if row.rank is not None and dominates(costs(row.metrics, objective), cost)
    ]
