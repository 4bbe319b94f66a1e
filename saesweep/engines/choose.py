"""The engine that an experiment asks for."""

from __future__ import annotations

from saesweep.engines.protocol import Engine
from saesweep.errors import UserError
from saesweep.experiment import Experiment


def open_engine(experiment: Experiment) -> Engine:
    """Return the engine of an experiment.

    Raises:
        UserError: It is not installed, or cannot be reached.
    """
    wanted = experiment.spec.engine.ray
    if wanted is None:
        from saesweep.engines.local import LocalEngine

        return LocalEngine()
    try:
        from saesweep.engines.ray import RayEngine
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UserError(
            "engine.ray: Ray is not installed; pip install 'saesweep[ray]', or leave `engine` out"
        ) from None
    return RayEngine(wanted)
