"""A sweep that has had many trials, as a checkpoint and a study hold it, and the driver's loop on it."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna

from saesweep.driver.fleet import Fleet
from saesweep.driver.loop import SweepLoop
from saesweep.driver.search import Search, open_search
from saesweep.driver.session import Session, worker_plan
from saesweep.driver.stopping import StopFlag
from saesweep.driver.trial_results import tell_arguments
from saesweep.driver.trials import Trial, new_trial
from saesweep.engines.records import Opened
from saesweep.events import EventBus, Listener
from saesweep.experiment import Experiment, load_experiment, streams_of
from saesweep.runs import RunDirectory
from saesweep.scheduler import State, Trials, TrialState
from saesweep.study.encoding import Encoding
from saesweep.study.suggestion import frozen
from tests.engines.scripted import ScriptedEngine, made_up_metrics, made_up_sweep

SLOTS = 8
TOTAL_TOKENS = 25_600


def long_sweep(n_trials: int, objective: dict[str, Any], **search: Any) -> Experiment:
    """Return an experiment with room for `n_trials` and as many again."""
    return load_experiment(
        {
            **made_up_sweep("long", TOTAL_TOKENS),
            "objective": objective,
            "search": {"trials": 2 * n_trials, "sampler": "random", "pruner": "none", **search},
            "cohort": {"size": SLOTS},
        }
    )


class LongRun:
    """A run directory with `n_trials` behind it, the last few of them still training.

    Args:
        folder: Where the run directory is made.
        experiment: From `long_sweep`.
        n_trials: How many trials it has had.
        staggered: One trial ends in each of the next blocks; all that train have just begun when it is left out.
    """

    def __init__(self, folder: Path, experiment: Experiment, n_trials: int, *, staggered: bool = False) -> None:
        self.experiment = experiment
        self.directory = RunDirectory(folder)
        self.stream = streams_of(experiment)[0]
        self.facts = ScriptedEngine(SLOTS).preflight(experiment)
        with self.directory:
            opened = ScriptedEngine(SLOTS).open(worker_plan(experiment, self.directory, self.stream), experiment).opened
            session = self._session(opened)
            with self._search(session).study as study:
                trials = [self._trial(session, number, number < n_trials - SLOTS) for number in range(n_trials)]
                study._study.add_trial(_stored(trials[0], session, study._encoding))
            _store_rest(self.directory.study_file, trials, session)
            for trial in trials:
                if not trial.is_live:
                    file = self.directory.trial(trial.number) / "metrics.jsonl"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text('{"tokens": 64, "kind": "train", "losses/overall_loss": 1.0}\n' * 20)
            for trial in trials[n_trials - SLOTS :]:
                trial.slot = trial.number - (n_trials - SLOTS)
                trial.tokens = TOTAL_TOKENS - (trial.slot + 1) * session.blocks.block_tokens if staggered else 0
            state = State(
                policy=session.rules.policy, workers={0: SLOTS}, trials=Trials(_state(t, session) for t in trials)
            )
            self.saved = {
                "stream": "",
                "scheduler": state.to_json(),
                "trials": [trial.state() for trial in trials],
                "ended": [trial.number for trial in trials if not trial.is_live],
                "training_seconds": 0.0,
            }

    @contextmanager
    def resumed(self, *listeners: Listener) -> Iterator[SweepLoop]:
        """Open everything again, and go back to the checkpoint."""
        engine = ScriptedEngine(SLOTS, self.saved)
        with self.directory:
            worker = engine.open(worker_plan(self.experiment, self.directory, self.stream), self.experiment)
            session = self._session(worker.opened)
            search = self._search(session)
            with search.study:
                loop = SweepLoop(session, search, engine, Fleet.of(worker), EventBus(*listeners), StopFlag())
                loop.restore()
                yield loop

    def _session(self, opened: Opened) -> Session:
        return Session.of(self.experiment, self.directory, self.facts, self.stream, opened)

    def _search(self, session: Session) -> Search:
        return open_search(self.experiment, self.directory, session.objective, session.rules, 0, session.visit)

    def _trial(self, session: Session, number: int, has_ended: bool) -> Trial:
        dice = random.Random(number)
        params = {
            "sae.architecture": ("topk", "batchtopk")[number % 2],
            "sae.k": dice.randint(2, 16),
            "lr": 10 ** dice.uniform(-4, -2),
        }
        trial = new_trial(number, params, session.resolve(params), objective=session.objective)
        trial.joined_at_tokens, trial.status = 0, "complete" if has_ended else "training"
        if has_ended:
            trial.tokens = trial.measured_at_tokens = TOTAL_TOKENS
            trial.metrics = made_up_metrics(number, TOTAL_TOKENS)
        return trial


def _state(trial: Trial, session: Session) -> TrialState:
    from saesweep.driver.trials import answer
    from saesweep.scheduler import Ask

    policy = session.rules.policy
    asked = answer(Ask(number=trial.number, stratum=policy.strata[0]), trial, policy)
    ended = tuple(trial.metrics[name] for name in policy.aim.metrics) if not trial.is_live else ()
    return TrialState(
        number=trial.number,
        stratum=asked.stratum,
        group=asked.group,
        architecture=asked.architecture or asked.stratum,
        course=asked.course,
        status="training" if trial.is_live else "complete",
        slot=trial.slot,
        tokens_seen=trial.tokens,
        reports={policy.end_rung: ended} if ended else {},
    )


def _stored(trial: Trial, session: Session, encoding: Encoding) -> optuna.trial.FrozenTrial:
    point = frozen(encoding, trial.params)
    if trial.is_live:
        state, told = optuna.trial.TrialState.RUNNING, {}
    else:
        state, told = optuna.trial.TrialState.COMPLETE, tell_arguments(trial.state(), session.objective)
    return optuna.trial.create_trial(
        state=state,
        params=point.named,
        distributions=point.distributions,
        values=told.get("values"),
        user_attrs=told.get("attrs"),
        constraints=told.get("constraints"),
    )


def _store_rest(file: Path, trials: Sequence[Trial], session: Session) -> None:
    """Write all trials but the first as Optuna wrote that one: ten thousand transactions would take minutes."""
    with closing(sqlite3.connect(file)) as study, study:

        def like_first(table: str, changes: Sequence[dict[str, Any]], **which: str) -> None:
            where = " and ".join(["trial_id = 1", *(f"{column} = '{value}'" for column, value in which.items())])
            found = study.execute(f"select * from {table} where {where}")
            names = [column[0] for column in found.description]
            first = dict(zip(names, found.fetchone(), strict=True))
            kept = [name for name in names if name == "trial_id" or not name.endswith("_id") or name == "study_id"]
            study.executemany(
                f"insert into {table} ({', '.join(kept)}) values ({', '.join('?' * len(kept))})",
                [[{**first, **change}[name] for name in kept] for change in changes],
            )

        rest = trials[1:]
        ended = [trial for trial in rest if not trial.is_live]
        told = {trial.number: tell_arguments(trial.state(), session.objective) for trial in ended}
        like_first(
            "trials",
            [
                {"trial_id": t.number + 1, "number": t.number, "state": "RUNNING" if t.is_live else "COMPLETE"}
                for t in rest
            ],
        )
        for path in trials[0].params:
            like_first(
                "trial_params",
                [{"trial_id": t.number + 1, "param_value": _encoded(path, t.params[path])} for t in rest],
                param_name=path,
            )
        for place, _ in enumerate(session.objective.goals):
            like_first(
                "trial_values",
                [{"trial_id": t.number + 1, "value": told[t.number]["values"][place]} for t in ended],
                objective=str(place),
            )
        for key in told[rest[0].number]["attrs"]:
            values = [{"trial_id": t.number + 1, "value_json": json.dumps(told[t.number]["attrs"][key])} for t in ended]
            like_first("trial_user_attributes", values, key=key)
        keys = [key for (key,) in study.execute("select key from trial_system_attributes where trial_id = 1")]
        for key in keys:
            name = key.partition(":")[2]
            values = [
                {"trial_id": t.number + 1, "value_json": json.dumps(told[t.number]["constraints"][name])} for t in ended
            ]
            like_first("trial_system_attributes", values, key=key)


def _encoded(path: str, value: Any) -> float:
    return float(("topk", "batchtopk").index(value)) if path == "sae.architecture" else float(value)
