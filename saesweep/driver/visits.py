"""Which activation stream a worker opens next: each has its share of the trials, and one is open at a time.

The worker opens another stream when its own has no trials left, so that there is one language model in memory at a time.
Trials are numbered through: the study, the scheduler's state and the checkpoints know nothing of streams but each trial's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saesweep.experiment import Experiment, Stream, are_comparable


def shares(n_trials: int, limits: Sequence[int | None]) -> list[int]:
    """Return how many of the trials each stream gets: equal shares, as far as a grid or a list reaches."""
    found = [0] * len(limits)
    for _ in range(n_trials):
        open_indices = [i for i, limit in enumerate(limits) if limit is None or found[i] < limit]
        if not open_indices:
            break
        found[min(open_indices, key=lambda i: found[i])] += 1
    return found


def trials_per_stream(experiment: Experiment, streams: Sequence[Stream]) -> dict[str, int]:
    """Return how many trials each stream is to have, by label; all of them for the only one."""
    if len(streams) == 1:
        return {streams[0].label: experiment.n_trials}
    found = shares(experiment.n_trials, [stream.max_trials for stream in streams])
    return {stream.label: share for stream, share in zip(streams, found, strict=True)}


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A stream that is open, or will be, and the trials that all streams have had by then."""

    stream: Stream
    suggested: Mapping[str, int]
    """By label of the stream."""
    share: int
    """Trials that the stream is to have."""
    n_trials: int
    """Trials of the whole search when the stream has had its share."""
    given: tuple[dict[str, Any], ...]
    """Settings of the stream's first trials: baselines, or a fixed list."""
    n_baselines: int
    """So many of those are baselines."""
    tokens_budget: int | None
    """SAE-tokens of the streams visited so far and this one: each has an equal share, and what the ones before left."""
    stratum: Mapping[str, Any]
    """The stream's settings where the sampler may only look at trials of this stream, because others are on another scale."""

    @property
    def n_suggested(self) -> int:
        """Trials that all streams have had."""
        return sum(self.suggested.values())

    @property
    def n_own(self) -> int:
        """Trials that this stream has had."""
        return self.suggested.get(self.stream.label, 0)

    def settings_of(self, position: int) -> dict[str, Any]:
        """Return what is given of a trial: the stream's settings, and those of a baseline.

        Args:
            position: How many trials the stream has had before it.
        """
        return {**(self.given[position] if position < len(self.given) else {}), **self.stream.settings}


def visit_of(experiment: Experiment, streams: Sequence[Stream], stream: Stream, suggested: Mapping[str, int]) -> Visit:
    """Return the visit of a stream.

    Args:
        experiment: The whole experiment.
        streams: All its streams.
        stream: The one to visit.
        suggested: Trials that each stream has had, by label.
    """
    search, budget = experiment.spec.search, experiment.spec.search.tokens_budget
    if budget is not None:
        visited = {label for label, trials in suggested.items() if trials} | {stream.label}
        budget = budget * len(visited) // len(streams)
    share = trials_per_stream(experiment, streams)[stream.label]
    left = max(0, share - suggested.get(stream.label, 0))
    given = tuple(stream.own(search.fixed or search.baselines))
    return Visit(
        stream=stream,
        suggested=suggested,
        share=share,
        n_trials=max(1, min(sum(suggested.values()) + left, experiment.n_trials)),
        given=given,
        n_baselines=0 if search.fixed else len(given),
        tokens_budget=budget,
        stratum={} if are_comparable(streams) else stream.settings,
    )


def planned_visits(experiment: Experiment, streams: Sequence[Stream]) -> list[Visit]:
    """Return the visits of a run whose streams all use up their shares, also of those that get no trials."""
    found, suggested = [], dict[str, int]()
    for stream in streams:
        visit = visit_of(experiment, streams, stream, dict(suggested))
        found.append(visit)
        suggested[stream.label] = visit.share
    return found


@dataclass(frozen=True)
class Attempt:
    """A trial, as far as it tells whether its settings are to be tried again."""

    number: int
    retry_of: int | None
    status: str
    stream: str


def next_stream(
    experiment: Experiment, streams: Sequence[Stream], current: Stream, trials: Sequence[Attempt]
) -> tuple[Stream | None, Stream | None]:
    """Return the next stream after the open one that lacks trials, and the first one of all that does.

    A stream that has had its share lacks the trials that repeat failed ones, where more attempts are allowed by now.

    Args:
        experiment: The whole experiment.
        streams: All its streams.
        current: The open one.
        trials: All trials so far.
    """
    targets, suggested = trials_per_stream(experiment, streams), suggested_per_stream(trials)
    retrying = _to_retry(trials, experiment.spec.search.retry_failed)
    lacking = [
        stream for stream in streams if targets[stream.label] > suggested[stream.label] or stream.label in retrying
    ]
    later = [stream for stream in lacking if streams.index(stream) > streams.index(current)]
    return next(iter(later), None), next(iter(lacking), None)


def suggested_per_stream(trials: Iterable[Attempt]) -> Counter[str]:
    """Count the trials of each stream; those that repeat a failed one come on top of its share."""
    return Counter(trial.stream for trial in trials if trial.retry_of is None)


def _to_retry(trials: Iterable[Attempt], allowed: int) -> set[str]:
    """Return the streams with settings of which every attempt has failed, and that may be tried again."""
    attempts: dict[int, list[Attempt]] = {}
    for trial in trials:
        attempts.setdefault(trial.number if trial.retry_of is None else trial.retry_of, []).append(trial)
    return {
        own[0].stream
        for own in attempts.values()
        if len(own) <= allowed and all(trial.status == "failed" for trial in own)
    }
