"""What the pruned search would have said of a run that pruned nothing, from what its rungs measured.

    python benchmarks/replay_run.py runs/NAME                        # by the run's own objective
    python benchmarks/replay_run.py runs/NAME --max-l0 16 32 64      # the best under a limit of L0, one search each

The run must have measured at its rungs and pruned no trial (`search.min_probability: 0`). All its trials begin together, are judged by
the real `decide` with the default settings of a search, and the best of those that are left is compared with the best of all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saesweep.driver.search import min_probability
from saesweep.experiment import Experiment, load_experiment, settings_for
from saesweep.forecast import Course
from saesweep.scheduler import Ask, BlockDone, Opened, Policy, State, Stop, Suggested, decide
from saesweep.scheduler.aim import Aim, GoalAim, Limit
from saesweep.specs import SearchSpec

TOLERANCE = 1.05
"""Steered trials end a little beside their target."""


@dataclass(frozen=True)
class Recorded:
    """One trial of the run."""

    number: int
    architecture: str
    target_l0: float | None
    course: Course
    at: Mapping[int, Mapping[str, float]]
    """Metrics by tokens, its end included."""
    group: str

    def end(self, metric: str) -> float:
        """Return a metric at the end of the run."""
        return self.at[max(self.at)][metric]


def read(run_dir: Path) -> tuple[Experiment, list[Recorded], tuple[int, ...]]:
    """Return the experiment, its finished trials, and the tokens at which they were measured."""
    experiment = load_experiment(run_dir / "experiment.yaml", is_own=False)
    board = json.loads((run_dir / "leaderboard.json").read_text())
    objective = experiment.objective(has_lm_head=True)
    found = []
    for row in sorted(board["rows"], key=lambda row: row["number"]):
        lines = (run_dir / "trials" / f"{row['number']:04d}" / "metrics.jsonl").read_text().splitlines()
        measured = [line for line in map(json.loads, lines) if line["kind"] == "select"]
        at = {line["tokens"]: line for line in measured}
        d_in = experiment.base_run().sae.d_in
        assert d_in is not None
        trial = settings_for(experiment, objective, {row["hook"]: d_in}, row["number"], row["params"])
        stops = [tokens // trial.run.train_batch_size_tokens for tokens in sorted(at)]
        course = Course.of(
            trial.run, stops, target_l0=trial.target_l0, steered=trial.control is not None, scope=row["hook"]
        )
        group = row["hook"] if trial.target_l0 is None else f"{row['hook']} / L0 {trial.target_l0:g}"
        found.append(Recorded(row["number"], row["architecture"], trial.target_l0, course, at, group))
    stops_tokens = sorted(found[0].at)
    if any(sorted(trial.at) != stops_tokens for trial in found):
        raise SystemExit(
            f"{run_dir}: its trials were not all measured at the same tokens; some are pruned or unfinished"
        )
    return experiment, found, tuple(stops_tokens)


def search(trials: Sequence[Recorded], stops: Sequence[int], aim: Aim, *, matched: bool) -> State:
    """Return the last state of a search over these trials."""
    defaults = SearchSpec()
    policy = Policy(
        n_trials=len(trials),
        n_slots=len(trials),
        total_tokens=stops[-1],
        aim=aim,
        rungs_tokens=tuple(stops[:-1]),
        min_probability=min_probability(defaults, len(aim.goals)),
        quota=defaults.min_per_architecture,
        pruner=defaults.pruner,
    )
    state, actions = decide(State.new(policy), Opened())
    for tokens in (*stops, stops[-1]):
        pending: list[Any] = list(actions)
        while asks := [action for action in pending if isinstance(action, Ask)]:
            pending.remove(asks[0])
            state, more = decide(state, _answer(asks[0], trials[asks[0].number], matched=matched))
            pending += more
        if any(isinstance(action, Stop) for action in pending):
            break
        seen = {trial.number: tokens for trial in state.with_status("training")}
        values = {
            number: {
                rung: tuple(trials[number].at[stops[rung]][metric] for metric in aim.metrics)
                for rung in state.due_rungs(number, tokens)
            }
            for number in seen
        }
        state, actions = decide(state, BlockDone(tokens_seen=seen, values=values))
    return state


def _answer(ask: Ask, trial: Recorded, *, matched: bool) -> Suggested:
    return Suggested(
        number=ask.number,
        stratum=ask.stratum,
        group=trial.group if matched else trial.group.partition(" / ")[0],
        architecture=trial.architecture,
        course=trial.course,
    )


def told(trials: Sequence[Recorded], state: State, aim: Aim, total_tokens: int) -> str:
    """Return what the search says and what it cost, beside the best of all trials."""
    goal = aim.goals[0]
    kept = [trial for trial in trials if state.trials[trial.number].status == "complete"]

    def best(among: Sequence[Recorded]) -> Recorded | None:
        feasible = [t for t in among if all(limit.keeps(t.end(limit.metric)) for limit in aim.limits)]
        return min(feasible, key=lambda t: goal.sign * t.end(goal.metric), default=None)

    def named(trial: Recorded | None) -> str:
        if trial is None:
            return "none is feasible"
        target = "" if trial.target_l0 is None else f" at L0 {trial.target_l0:g}"
        return f"{trial.architecture}{target}, {goal.metric} {trial.end(goal.metric):.4f}"

    spent = sum(state.trials[trial.number].tokens_seen for trial in trials) / (len(trials) * total_tokens)
    pruned = [f"{t.architecture} {t.target_l0:g}" if t.target_l0 else t.architecture for t in trials if t not in kept]
    return (
        f"{len(kept)} of {len(trials)} trials finish, {spent:.0%} of the tokens; best: {named(best(kept))}; "
        f"of all trials: {named(best(trials))}" + (f"; pruned: {', '.join(pruned)}" if pruned else "")
    )


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--max-l0", type=float, nargs="+", help="limits; one search with each")
    args = parser.parse_args()
    experiment, trials, stops = read(args.run_dir)
    objective = experiment.objective(has_lm_head=True)
    if args.max_l0 is None:
        aim = Aim.of(objective)
        state = search(trials, stops, aim, matched=objective.matched is not None)
        for group in dict.fromkeys(trial.group for trial in trials) if objective.matched is not None else [""]:
            own = [trial for trial in trials if group in ("", trial.group)]
            print(f"{group or 'objective'}: {told(own, state, aim, stops[-1])}")
        return
    goal = objective.goals[0]
    for limit in args.max_l0:
        aim = Aim(
            goals=(GoalAim(goal.metric, maximize=goal.direction == "maximize"),),
            limits=(Limit("l0", max=TOLERANCE * limit),),
        )
        state = search(trials, stops, aim, matched=False)
        print(f"l0 <= {limit:g}: {told(trials, state, aim, stops[-1])}")


if __name__ == "__main__":
    main()
