"""Trackers that others add: listeners made for each run, dropped with a warning where they fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from saesweep.events import Activity, BlockProgress, Event, Listener, Note

if TYPE_CHECKING:
    from saesweep.experiment import Experiment

TrackerFactory: TypeAlias = "Callable[[Experiment, Path], Listener | None]"
"""From an experiment and its run directory to a listener; None: this run is not for it."""

_FACTORIES: dict[str, TrackerFactory] = {}
_FactoryT = TypeVar("_FactoryT", bound="Callable[[Experiment, Path], Listener | None]")


def register_tracker(make: _FactoryT) -> _FactoryT:
    """Decorator: call `make(experiment, run_dir)` when a run begins or is resumed, and give what it returns every event.

    What only a screen shows (`Activity`, `BlockProgress`) is left out. The listener is called on the training thread: what
    waits for a network belongs on a thread of its own. A run that is resumed after a kill emits the events since its last
    checkpoint again; the last one is `RunEnded`. Where the listener raises, it gets no more events and training continues;
    where `make` raises, the run does not begin.
    """
    _FACTORIES[f"{make.__module__}.{make.__qualname__}"] = make
    return make


def registered_trackers(experiment: Experiment, run_dir: Path, notify: Callable[[Note], None]) -> list[Listener]:
    """Return the listeners of this run; `say` is told of one that fails."""
    made = {name: make(experiment, run_dir) for name, make in _FACTORIES.items()}
    return [_Guarded(name, listener, notify) for name, listener in made.items() if listener is not None]


class _Guarded:
    """Passes events on until the listener raises."""

    def __init__(self, name: str, listener: Listener, notify: Callable[[Note], None]) -> None:
        self._name = name
        self._listener: Listener | None = listener
        self._notify = notify

    def __call__(self, event: Event) -> None:
        """Hand over one event."""
        if self._listener is None or isinstance(event, (Activity, BlockProgress)):
            return
        try:
            self._listener(event)
        except Exception as error:
            self._listener = None
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = "" if trace is None else f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
            message = (
                f"tracker {self._name} failed on {type(event).__name__} ({type(error).__name__}: {error}{where}) and gets no "
                "more events; every metric is in trials/*/metrics.jsonl too"
            )
            self._notify(Note(level="warning", message=message))
