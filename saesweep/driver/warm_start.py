"""What a search takes over from an earlier run: its finished trials, measured by this run's objective."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from saesweep.driver.ranking import costs, natural_values, violations
from saesweep.errors import UserError
from saesweep.experiment import AsWritten, load_experiment
from saesweep.runs import RunDirectory, read_json, write_json
from saesweep.space import Space
from saesweep.specs import ObjectiveSpec
from saesweep.study import EarlierTrial, read_study


@dataclass(frozen=True)
class WarmStart:
    """Trials of an earlier run, and what to say about them."""

    trials: tuple[EarlierTrial, ...]
    note: str


def warm_start(source: Path, directory: RunDirectory, space: Space, objective: ObjectiveSpec) -> WarmStart:
    """Return the earlier run's finished trials that lie in this space and have this objective's metrics.

    They are copied into `warm_start.json` on the first start, so that a resumed run learns from the same ones even where
    the earlier run has continued or is gone.

    Raises:
        UserError: `source` holds no run.
    """
    kept = directory.path / "warm_start.json"
    if not kept.exists():
        trials, total = _read(source, space, objective)
        note = (
            f"warm start: {len(trials)} of {total} finished trials of {source} lie in this space and are learned from"
        )
        write_json(kept, {"note": note, "trials": [asdict(trial) for trial in trials]})
    data = read_json(kept)
    try:
        found = [EarlierTrial(**{**trial, "values": tuple(trial["values"])}) for trial in data["trials"]]
        # The space may have changed since they were copied.
        return WarmStart(tuple(trial for trial in found if space.why_outside(trial.params) is None), str(data["note"]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{kept}: damaged ({type(error).__name__}: {error}); start a new run with --run-dir") from None


def _read(source: Path, space: Space, objective: ObjectiveSpec) -> tuple[list[EarlierTrial], int]:
    earlier = RunDirectory(source)
    for file in (earlier.experiment_file, earlier.study_file):
        if not file.exists():
            raise UserError(f"search.warm_start: {source} is no run directory of saesweep: {file.name} is missing")
    records = read_study(earlier.study_file, load_experiment(earlier.experiment_file, env=AsWritten()).space)
    finished = [record for record in records if record.state == "complete"]
    found = []
    for record in finished:
        metrics = record.attrs.get("metrics", {})
        cost = costs(metrics, objective)
        missed = violations(metrics, objective)
        if space.why_outside(record.params) is None and all(map(math.isfinite, [*cost, *missed.values()])):
            values = tuple(natural_values(cost, objective))
            found.append(EarlierTrial(params=record.params, values=values, constraints=missed))
    return found, len(finished)
