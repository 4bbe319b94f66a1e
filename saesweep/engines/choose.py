"""The engine that an experiment asks for."""

from __future__ import annotations

import os
from importlib.util import find_spec

from saesweep.engines.devices import visible_gpus, worker_devices
from saesweep.engines.local import LocalEngine
from saesweep.engines.protocol import Engine
from saesweep.errors import UserError
from saesweep.events import EventBus, Note
from saesweep.experiment import Experiment
from saesweep.specs import RaySpec


def open_engine(experiment: Experiment, bus: EventBus) -> Engine:
    """Return the engine of an experiment: Ray where the file names it or wants several devices, else this process.

    Args:
        experiment: The experiment.
        bus: Is told where a device stays unused.

    Raises:
        UserError: It is not installed, or cannot be reached.
    """
    ray_spec, devices = experiment.spec.engine.ray, experiment.spec.cohort.devices
    place = "engine.ray"
    if ray_spec is None:
        # A number of GPUs may be that of a cluster, which this machine does not see.
        has_cluster = bool(os.environ.get("RAY_ADDRESS"))
        several = isinstance(devices, int) and devices > 1 and has_cluster
        count = 2 if several else len(worker_devices(experiment, visible_gpus()))
        if count == 1:
            return LocalEngine()
        if devices == "auto" and find_spec("ray") is None:
            message = (
                f"{count} GPUs are visible and one of them is used, because Ray is not installed; for all of them: "
                "pip install 'saesweep[ray]'"
            )
            bus.emit(Note(level="warning", message=message))
            return LocalEngine()
        ray_spec, place = RaySpec(), "cohort.devices"
    try:
        from saesweep.engines.ray import RayEngine
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        what = "several devices take Ray, which" if place == "cohort.devices" else "Ray"
        advice = "ask for one device" if place == "cohort.devices" else "leave `engine` out"
        raise UserError(f"{place}: {what} is not installed; pip install 'saesweep[ray]', or {advice}") from None
    return RayEngine(ray_spec, experiment)
