"""Why a trial is pruned, in words: its forecast, the bar that it missed, and the limit."""

from __future__ import annotations

from saesweep.forecast import Forecast
from saesweep.scheduler.outlook import Outlook
from saesweep.scheduler.state import State

_UNLIKELY = 0.5
"""Below this probability of being feasible, the limit is named as what the trial misses."""


def reason_of(state: State, found: Outlook) -> str:
    """Return the reason of a prune."""
    own, trial, aim = found.contender, state.trials[found.contender.number], state.policy.aim
    tokens = state.policy.stops_tokens[max(trial.reports)]
    metrics = dict.fromkeys([goal.metric for goal in aim.goals])
    parts = [f"at {tokens:,} tokens its forecast is {', '.join(_text(own.forecasts[m]) for m in metrics)}"]
    if own.feasible < _UNLIKELY:
        missed = ", ".join(f"{limit.text()} (forecast {_text(own.forecasts[limit.metric])})" for limit in aim.limits)
        parts.append(f"{_percent(own.feasible)} likely to keep {missed}")
    if found.rival is not None:
        rival = state.trials[found.rival.number]
        end = dict(zip(aim.metrics, rival.reports[max(rival.reports)], strict=True))
        if rival.status == "complete":
            bar = ", ".join(f"{m} {end[m]:.4g}" for m in metrics)
            parts.append(f"the bar is trial {rival.number}, finished with {bar}")
        else:
            forecasts = found.rival.forecasts
            parts.append(f"the bar is trial {rival.number}, forecast {', '.join(_text(forecasts[m]) for m in metrics)}")
    kept = "on the front" if len(aim.goals) > 1 else "best at its L0" if aim.matched else "best"
    parts.append(f"{_percent(found.probability)} likely to end {kept}")
    return "; ".join(parts)


def _text(known: Forecast) -> str:
    if not known.is_known:
        return f"{known.metric} unknown"
    low, high = known.interval()
    return f"{known.metric} {known.value:.4g} ({low:.4g} to {high:.4g})"


def _percent(probability: float) -> str:
    return "under 0.1%" if probability < 0.001 else f"{100 * probability:.2g}%"
