"""Optuna's own figures of the study: importance and parallel coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna
import plotly.graph_objects as go

from saesweep.report.data import RunData
from saesweep.report.style import figure, restyle
from saesweep.study import load_plain_study

MIN_TRIALS = 4
"""Finished trials below which an importance says nothing."""


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
        metric = goal.split()[-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of experimental and few-trial notices; the page has its own words
            made = optuna.visualization.plot_parallel_coordinate(study, target=_value(index), target_name=metric)
        found.append((f"parallel_{metric}", f"Parallel coordinates: {goal}", restyle(made, 460)))
    if len(done) >= MIN_TRIALS:
        found.append(("importance", "Importance of the searched parameters", _importance(study, run)))
    return found


def _importance(study: optuna.Study, run: RunData) -> go.Figure:
    made = figure(x="share of the importance", y="", barmode="group")
    names: set[str] = set()
    for index, goal in enumerate(run.board.goals):
        sign = 1.0 if goal.startswith("minimize") else -1.0  # PED-ANOVA speaks of what makes a value low
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(study, target=_value(index, sign))
        names |= set(found)
        order = sorted(found, key=lambda name: found[name])
        made.add_bar(orientation="h", y=order, x=[found[name] for name in order], name=goal)
    made.update_layout(height=160 + 44 * len(names), margin={"l": 20})
    made.update_yaxes(automargin=True)
    return made


def _value(index: int, sign: float = 1.0) -> Callable[[Any], float]:
    return lambda trial: sign * trial.values[index]
