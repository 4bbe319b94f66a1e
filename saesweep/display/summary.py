"""What a run says in words: its opening, its trials, its end. Shared by the live and the plain display."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from saesweep.costs import cost_line
from saesweep.display.matched import matched_lines
from saesweep.display.text import duration, label, metric_value, percent, setting, short_rate
from saesweep.events import (
    MatchedEntry,
    Progressed,
    Row,
    RunEnded,
    RunStarted,
    TrialStarted,
    WorkerNews,
)
from saesweep.messages import short_count
from saesweep.status import ENDED, LIVE

_SHOWN_WORKERS = 8
_SHOWN_TRIALS = 8
_STATES = (*ENDED, *LIVE)


def opening_lines(event: RunStarted, *, verbose: bool = False) -> list[str]:
    """Return what a run says when it begins or resumes; `verbose` adds what was chosen and why."""
    trials = f"{event.trials} trial{'s' * (event.trials != 1)}"
    lines = [
        f"{event.name}: {trials} of {short_count(event.total_tokens)} tokens, {event.slots} at once; "
        f"{', '.join(event.goals)} -> {event.run_dir}"
    ]
    if event.resumed_at_tokens is not None:
        lines.append(f"resuming from the checkpoint at {short_count(event.resumed_at_tokens)} tokens of the stream")
    details = event.details if verbose else ()
    return [*lines, *(f"note: {note}" for note in (*event.notes, *details))]


def worker_line(news: WorkerNews) -> str:
    """Return `worker 1 (cuda:1): training trials 3, 5 · stream 1.2M tokens · 40k SAE-tokens/s`."""
    trials = ", ".join(map(str, news.trials[:_SHOWN_TRIALS])) + " and more" * (len(news.trials) > _SHOWN_TRIALS)
    state = f"training trial{'s' * (len(news.trials) != 1)} {trials}" if news.trials else news.state
    parts = [f"worker {news.worker} ({news.device}): {state}" if news.device else f"worker {news.worker}: {state}"]
    if news.state != "gone":
        parts.append(f"stream {short_count(news.stream_tokens)} tokens")
        if news.sae_tokens_per_second is not None:
            parts.append(f"{short_rate(news.sae_tokens_per_second)} SAE-tokens/s")
    return " · ".join(parts)


def worker_lines(workers: Mapping[int, WorkerNews]) -> list[str]:
    """Return a line for each worker; of many, for the first ones, and one for the rest."""
    lines = [worker_line(workers[number]) for number in sorted(workers)]
    if len(lines) <= _SHOWN_WORKERS:
        return lines
    return [*lines[: _SHOWN_WORKERS - 1], f"and {len(lines) - _SHOWN_WORKERS + 1} more workers"]


def trial_label(number: int, architecture: str, sparsity: str) -> str:
    """Return `trial 7 (batchtopk k 32)`."""
    detail = " ".join(part for part in (architecture, sparsity) if part)
    return f"trial {number} ({detail})" if detail else f"trial {number}"


def trial_start_line(event: TrialStarted) -> str:
    """Return what a trial is and where it joins."""
    params = ", ".join(f"{path}={setting(value)}" for path, value in event.params.items())
    label = trial_label(event.number, event.architecture, event.sparsity)
    return f"{label} enters slot {event.slot} at {short_count(event.joined_at_tokens)} tokens of the stream: {params}"


def metrics_text(metrics: Mapping[str, float], names: Sequence[str] = ()) -> str:
    """Return `L0 31.9 · ΔCE 0.2130`: the metrics named, or all where none of them is there."""
    shown = [name for name in names if name in metrics] or list(metrics)
    return " · ".join(f"{label(name)} {metric_value(name, metrics[name])}" for name in shown)


def progress_parts(
    event: Progressed,
    states: Mapping[str, Mapping[str, int]],
    trials: int | None,
    *,
    seconds_ago: float = 0.0,
) -> list[str]:
    """Return share done, throughput, ETA, trials done and stream position, most important first.

    Args:
        event: How far the run is.
        states: How many of its trials each architecture has in each state.
        trials: Number of trials of the whole search, or None where it is not known.
        seconds_ago: How old the event is; the time left shrinks by it.
    """
    counts = sum((Counter(own) for own in states.values()), Counter[str]())
    ended, training = sum(counts[status] for status in ENDED), counts["training"]
    if trials is not None:
        trials = max(trials, ended + training)  # failed trials may have been tried again
    return [
        percent(event.sae_tokens, event.expected_sae_tokens),
        f"{short_rate(event.sae_tokens_per_second)} SAE-tokens/s",
        f"ETA {duration(max(0.0, event.eta_seconds - seconds_ago))}",
        f"{ended}{f' of {trials}' if trials is not None else ''} trials done, {training} training",
        f"stream {short_count(event.stream_tokens)} tokens, epoch {event.epoch}",
    ]


def closing_lines(event: RunEnded, metrics: Sequence[str] = (), *, width: int | None = None) -> list[str]:
    """Return what a run says at its end, below the final table; tables in it are made to fit a width."""
    states = Counter(row.status for row in event.rows)
    counts = ", ".join(f"{states[state]} {state}" for state in _STATES if states[state])
    if event.status == "already complete":
        lines = [f"already complete ({counts}): nothing was trained"]
    else:
        rate = event.trained_tokens / event.seconds if event.seconds > 0 else float("nan")
        lines = [
            f"{event.status}: {counts or 'no trials'}; {short_count(event.trained_tokens)} tokens trained in "
            f"{duration(event.seconds)} ({short_rate(rate)} SAE-tokens/s)"
        ]
    if times := cost_line(event.costs, duration):
        lines.append(f"where the time went: {times}")
    lines += [
        f"{trial_label(row.number, row.architecture, row.sparsity)} failed: {row.reason or 'no reason given'}"
        for row in event.rows
        if row.status == "failed"
    ]
    lines += result_lines(
        event.rows,
        best=event.best,
        best_dir=event.best_dir,
        test_metrics=event.test_metrics,
        notes=event.notes,
        metrics=metrics,
        matched=event.matched,
        width=width,
    )
    if event.status == "interrupted":
        lines.append(f"the state is saved; resume with: {event.resume_command or 'the same command again'}")
    return lines


def result_lines(
    rows: Sequence[Row],
    *,
    best: int | None,
    best_dir: str | None,
    test_metrics: Mapping[str, float],
    notes: Sequence[str],
    metrics: Sequence[str] = (),
    matched: Sequence[MatchedEntry] = (),
    width: int | None = None,
) -> list[str]:
    """Return what a run found: the best at each L0, the exported trial, its `test` metrics, and what to know about them."""
    lines = matched_lines(matched, width=width)
    if best is not None:
        where = f" -> {best_dir}" if best_dir else ""
        lines.append(f"best: {_label(best, rows)}{where}")
    if test_metrics:
        lines.append(f"test part (read once): {metrics_text(test_metrics, metrics)}")
    return [*lines, *(f"note: {note}" for note in notes)]


def _label(number: int, rows: Sequence[Row]) -> str:
    for row in rows:
        if row.number == number:
            return trial_label(number, row.architecture, row.sparsity)
    return f"trial {number}"
