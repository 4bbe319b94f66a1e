"""The engine that an experiment asks for."""

from __future__ import annotations

from saesweep.engines.protocol import Engine
from saesweep.experiment import Experiment


def open_engine(experiment: Experiment) -> Engine:
    """Return the engine of an experiment."""
    from saesweep.engines.local import LocalEngine

    return LocalEngine()
