"""Which searched parameters mattered, by Optuna's importance."""

from __future__ import annotations

import optuna
import plotly.graph_objects as go

from saesweep.report.axes import axis_for
from saesweep.report.data import RunData
from saesweep.report.style import figure
from saesweep.study import MIN_TRIALS, importances, load_plain_study

_GOAL_COLOURS = ("#4C5866", "#A7B0BA", "#7A5C99", "#C3A6DB")
"""Of no architecture: the bars belong to goals."""


def importance_figure(run: RunData) -> go.Figure | None:
    """Return the importances of the searched parameters; None without a study or with too few finished trials."""
    if not run.directory.study_file.exists():
        return None
    study = load_plain_study(str(run.directory.study_file), run.board.name)
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(done) < MIN_TRIALS or not any(len(trial.params) > 0 for trial in done):
        return None
    made = figure(x="share of the importance", y="", barmode="group")
    found = importances(study, run.board.goals, {row.number: row.architecture for row in run.complete})
    names: dict[str, None] = {}
    for index, goal in enumerate(run.board.goals):
        shares = {
            path if item.group == "all trials" else f"{path} ({item.group})": share
            for item in reversed(found)
            if item.goal == goal
            for path, share in reversed(list(item.shares.items()))
        }
        names |= dict.fromkeys(shares)
        made.add_bar(
            orientation="h",
            y=list(shares),
            x=list(shares.values()),
            name=goal,
            marker={"color": _GOAL_COLOURS[index % len(_GOAL_COLOURS)]},
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    if not names:
        return None
    made.update_layout(height=160 + 44 * len(names), margin={"l": 20})
    made.update_xaxes(**axis_for([0.0, 1.0], from_zero=True))
    return made
