"""The devices that an experiment asks for, on the machines that there are."""

from __future__ import annotations

import torch

from saesweep.errors import UserError
from saesweep.experiment import Experiment
from saesweep.experiment.devices import device_names


def visible_gpus() -> int:
    """Return how many GPUs this machine has for us."""
    return torch.cuda.device_count()


def worker_devices(experiment: Experiment, gpus: int) -> tuple[str, ...]:
    """Return the device of each worker; an empty name is `base.device`.

    Args:
        experiment: Its `cohort.devices` and `base.device`.
        gpus: GPUs that there are, on this machine or in the cluster.

    Raises:
        UserError: More GPUs are asked for.
    """
    requested, base = experiment.spec.cohort.devices, experiment.base_run().device
    names = device_names(requested)
    if names is not None:
        return tuple(names)
    if isinstance(requested, int):
        if requested == 1:
            return ("",)
        if requested > gpus:
            raise UserError(
                f"cohort.devices: {requested} GPUs are asked for, and {gpus} {'is' if gpus == 1 else 'are'} visible; "
                "ask for fewer, or for auto; without GPUs there is `cpu x 2`"
            )
        return ("cuda",) * requested
    return ("cuda",) * gpus if gpus > 1 and base in ("auto", "cuda") else ("",)
