"""The order in which a search visits its activation streams: segments, one after the other, kept in the run directory.

A segment is a stay on one stream: its share of the trials is asked, trained and judged before the next stream is opened,
so that there is one language model in memory at a time. Trials are numbered through: the study, the scheduler's state and
the checkpoints know nothing of segments but the trials that came before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saesweep.errors import UserError
from saesweep.experiment import Experiment, Stream, are_comparable
from saesweep.runs import RunDirectory, read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stay on one activation stream."""

    index: int
    stream: Stream
    first_trial: int
    """Trials that came before."""
    n_trials: int
    """Trials of the search at its end, those before included."""
    given: tuple[dict[str, Any], ...]
    """Settings of its first trials: baselines, or a fixed list."""
    tokens_budget: int | None
    """SAE-tokens of all segments up to this one: each stream has an equal share, and what the ones before left."""
    stratum: Mapping[str, Any]
    """The stream's settings where the sampler may only look at trials of this stream, because others are on another scale."""

    def place(self) -> dict[str, int]:
        """Return what a checkpoint says of it."""
        return {"segment": self.index, "first_trial": self.first_trial}

    def settings_of(self, number: int) -> dict[str, Any]:
        """Return what is given of one of its trials: the stream's settings, and those of a baseline."""
        position = number - self.first_trial
        return {**(self.given[position] if position < len(self.given) else {}), **self.stream.settings}


def shares(n_trials: int, limits: Sequence[int | None]) -> list[int]:
    """Return how many of the trials each stream gets: equal shares, as far as a grid or a list reaches."""
    found = [0] * len(limits)
    for _ in range(n_trials):
        open_ones = [i for i, limit in enumerate(limits) if limit is None or found[i] < limit]
        if not open_ones:
            break
        found[min(open_ones, key=lambda i: found[i])] += 1
    return found


class Segments:
    """The segments of one run: planned once, extended where more trials are wanted later, never altered.

    Args:
        experiment: The whole experiment.
        streams: Its streams.
        directory: Where the plan is kept.
    """

    def __init__(self, experiment: Experiment, streams: Sequence[Stream], directory: RunDirectory) -> None:
        self._experiment = experiment
        self._streams = streams
        self._file = directory.path / "streams.json"
        self._planned: list[tuple[str, int]] = []
        if self._file.exists():
            self._planned = self._read()
        else:
            self.extend({})

    def _read(self) -> list[tuple[str, int]]:
        known = {stream.folder for stream in self._streams}
        try:
            found = [(str(item["stream"]), int(item["trials"])) for item in read_json(self._file)]
        except (KeyError, TypeError, ValueError):
            found = []
        if not found or any(folder not in known for folder, _ in found):
            raise UserError(
                f"{self._file}: damaged, it is no plan of this experiment's streams; start a new run with --run-dir"
            )
        return found

    def __len__(self) -> int:
        return len(self._planned)

    def extend(self, counts: Mapping[str, int]) -> bool:
        """Plan the trials that streams lack, beginning with the stream visited last; return whether there are any.

        Args:
            counts: Trials that each stream has had, by label.
        """
        wanted = shares(self._experiment.n_trials, [stream.most_trials for stream in self._streams])
        lacking = [
            (stream.folder, share - counts.get(stream.label, 0))
            for stream, share in zip(self._streams, wanted, strict=True)
            if share > counts.get(stream.label, 0)
        ]
        if self._planned:
            last = self._planned[-1][0]
            lacking.sort(key=lambda item: item[0] != last)
        if lacking:
            self._planned += lacking
            write_json(self._file, [{"stream": folder, "trials": n} for folder, n in self._planned])
        return bool(lacking)

    def segment(self, index: int, first_trial: int, counts: Mapping[str, int]) -> Segment:
        """Return one segment.

        Args:
            index: Its place in the plan.
            first_trial: Trials that came before it.
            counts: How many of those each stream has had, by label.
        """
        folder, planned = self._planned[index]
        stream = next(stream for stream in self._streams if stream.folder == folder)
        had = counts.get(stream.label, 0)
        return segment_of(self._experiment, self._streams, index, stream, first_trial, planned, had)


def planned_segments(experiment: Experiment, streams: Sequence[Stream]) -> list[Segment | None]:
    """Return the stay on each stream of a run whose streams all use up their shares; None for the only stream."""
    if not streams[0].label:
        return [None]
    found: list[Segment | None] = []
    index = first_trial = 0
    for stream, share in zip(streams, shares(experiment.n_trials, [s.most_trials for s in streams]), strict=True):
        found.append(segment_of(experiment, streams, index, stream, first_trial, share, 0))
        first_trial += share
        index += share > 0  # a stream without trials is not visited
    return found


def segment_of(
    experiment: Experiment,
    streams: Sequence[Stream],
    index: int,
    stream: Stream,
    first_trial: int,
    n_planned: int,
    n_had: int,
) -> Segment:
    """Return a stay on a stream.

    Args:
        experiment: The whole experiment.
        streams: All its streams.
        index: How many stays come before this one.
        stream: Where it is.
        first_trial: Trials that come before it.
        n_planned: Its own.
        n_had: How many trials the stream has had before.
    """
    search, budget = experiment.spec.search, experiment.spec.search.tokens_budget
    if budget is not None:
        budget = budget * min(index + 1, len(streams)) // len(streams)
    return Segment(
        index=index,
        stream=stream,
        first_trial=first_trial,
        n_trials=min(first_trial + n_planned, experiment.n_trials),  # fewer may be wanted than were planned
        given=tuple(stream.own(search.fixed or search.baselines)[n_had:]),
        tokens_budget=budget,
        stratum={} if are_comparable(streams) else stream.settings,
    )
