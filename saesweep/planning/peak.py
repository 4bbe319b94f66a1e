"""The main memory of the whole process at its peak, where SAEs train there."""

from __future__ import annotations

import psutil
import torch

from saesweep.experiment import Experiment
from saesweep.models import ModelFacts
from saesweep.worker.sizing import StreamSizes, measuring_bytes, shared_bytes

_LIBRARIES = 250 << 20
"""What a run loads beyond what `plan` has loaded: datasets with Arrow, and what an allocator keeps between uses."""


def process_peak(own: Experiment, sizes: StreamSizes, facts: ModelFacts) -> int:
    """Return the most memory that a run's process takes on a CPU: Python with its libraries, the model, the SAEs, measuring.

    Args:
        own: The experiment as the stream sees it.
        sizes: The stream's.
        facts: What is known of its language model.
    """
    runs, slots, hooks = list(sizes.runs), sizes.slots, len(own.hook_names())
    measuring = max(
        measuring_bytes(run, own.spec.evaluation, hooks, torch.device("cpu"), facts.d_vocab * facts.has_lm_head)
        for run in runs
    )
    shared = shared_bytes(runs, hooks, 0, own.spec.cohort.adam_moments, measuring)
    copies = 1 + slots.background_checkpoints
    return int(
        psutil.Process().memory_info().rss
        + _LIBRARIES
        + facts.weight_bytes
        + copies * slots.slots * slots.slot_bytes
        + shared
    )
