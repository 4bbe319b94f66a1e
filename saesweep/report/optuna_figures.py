"""Optuna's own figures of the study: importance and parallel coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna
import plotly.graph_objects as go

from saesweep.report.data import RunData
from saesweep.report.style import figure, restyle
from saesweep.study import MIN_TRIALS, importances, load_plain_study


def study_figures(run: RunData) -> list[tuple[str, str, go.Figure]]:
    """Return (key, title, figure) of each goal's parallel coordinates, and of the importances; none without a study."""
    if not run.directory.study_file.exists():
        return []
    study = load_plain_study(str(run.directory.study_file), run.board.name)
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(done) < 2 or not any(len(trial.params) > 0 for trial in done):
        return []
    found = []
    for index, goal in enumerate(run.board.goals):
        metric = goal.split()[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of experimental and few-trial notices; the page has its own words
            made = optuna.visualization.plot_parallel_coordinate(study, target=_value(index), target_name=metric)
        found.append((f"parallel_{metric}", f"Parallel coordinates: {goal}", restyle(made, 460)))
    if len(done) >= MIN_TRIALS:
        found.append(("importance", "Importance of the searched parameters", _importance(study, run)))
    return found


def _importance(study: optuna.Study, run: RunData) -> go.Figure:
    made = figure(x="share of the importance", y="", barmode="group")
    found = importances(study, run.board.goals, {row.number: row.architecture for row in run.complete})
    names: dict[str, None] = {}
    for goal in run.board.goals:
        shares = {
            path if item.group == "all trials" else f"{path} ({item.group})": share
            for item in reversed(found)
            if item.goal == goal
            for path, share in reversed(list(item.shares.items()))
        }
        names |= dict.fromkeys(shares)
        made.add_bar(orientation="h", y=list(shares), x=list(shares.values()), name=goal)
    made.update_layout(height=160 + 44 * len(names), margin={"l": 20})
    made.update_yaxes(automargin=True)
    return made


def _value(index: int, sign: float = 1.0) -> Callable[[Any], float]:
    return lambda trial: sign * trial.values[index]
