"""The sizes of an activation stream: its runs, blocks and slots, decided in one place for `plan` and `run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psutil
import torch

from saesweep.experiment import Experiment, with_widths
from saesweep.specs import BaseRun
from saesweep.worker.corners import largest_run
from saesweep.worker.measuring_memory import measuring_bytes
from saesweep.worker.sizing import SlotPlan, plan_slots


@dataclass(frozen=True)
class StreamSizes:
    """What memory says about one stream."""

    runs: tuple[BaseRun, ...]
    """The widest run of each architecture in play, widths known."""
    slots: SlotPlan
    """What memory holds now; a run that resumes keeps the number that it began with."""


def size_stream(
    own: Experiment, n_trials: int, d_in: Mapping[str, int], device: torch.device, sharing: int = 1
) -> StreamSizes:
    """Decide the sizes of a stream.

    Args:
        own: The experiment as the stream sees it.
        n_trials: Trials that are expected there.
        d_in: Width at every hook of the stream.
        device: Where the cohort trains.
        sharing: Workers among which the main memory is divided.

    Raises:
        UserError: A stated width contradicts `d_in`.
    """
    search, cohort = own.spec.search, own.spec.cohort
    runs = [with_widths(largest_run(own, name), d_in) for name in own.architectures]
    own_bytes, host = free_bytes(device), host_bytes(device)
    slots = plan_slots(
        cohort,
        n_trials=max(1, n_trials),
        runs=runs,
        hooks=len(own.hook_names()),
        weight_bytes=0,  # a model on the device has already taken its memory from what is free
        free_bytes=own_bytes // sharing if device.type == "cpu" else own_bytes,
        replicates=search.replicates,
        # The vocabulary is taken as wide as any, because `plan` does not know it, and `run` is to decide as `plan` does.
        measuring_bytes=max(measuring_bytes(run, own.spec.evaluation, len(own.hook_names()), device) for run in runs),
        host_bytes=None if host is None else host // sharing,
    )
    return StreamSizes(tuple(runs), slots)


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def host_bytes(device: torch.device) -> int | None:
    """Return the main memory that is free now; None where SAEs train in it, and `free_bytes` says it."""
    return None if device.type == "cpu" else int(psutil.virtual_memory().available)
