"""A few seconds of the real thing: how fast the stream serves activations, an SAE trains, and a trial is measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from saesweep.cohort import Slot
from saesweep.evaluation import HeldOutEvaluator
from saesweep.evaluation.splice import SplicedMetrics
from saesweep.experiment import Experiment, Stream, with_widths
from saesweep.planning.planned import Calibration
from saesweep.runs import RunDirectory
from saesweep.specs import BaseRun
from saesweep.worker.setup import LoadedModel, Setup, prepare
from saesweep.worker.sizing import KEPT_BYTES, largest_run

_SECONDS = 2.0
_WARM_UP = 2


def calibrate(
    experiment: Experiment, stream: Stream, n_trials: int, loaded: LoadedModel
) -> tuple[Calibration, dict[str, int]]:
    """Open a stream as the run does, and time it; return the width at every hook too.

    Args:
        experiment: The whole experiment.
        stream: The stream.
        n_trials: Trials that are expected there.
        loaded: Holds the language model from stream to stream.

    Raises:
        UserError: The model or the data cannot be had, or memory holds no SAE.
    """
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        setup = prepare(experiment, stream, RunDirectory(Path(folder)), n_trials, loaded)
        try:
            setup.source.stream.next_batch()  # fills the window
            start_up = time.perf_counter() - started
            rate = _stream_rate(setup)
            steps, slot = _steps(setup)
            reconstruction, splice = _measuring(setup, slot)
            probes, once = _probing(setup, slot)
            warnings = tuple(sinks.message() for sinks in setup.sinks)
        finally:
            setup.source.close()
    found = Calibration(stream.label, rate, steps, reconstruction, splice, start_up + once, probes, warnings)
    return found, dict(setup.d_in)


def _stream_rate(setup: Setup) -> float:
    stream = setup.source.stream
    before = stream.tokens_served
    # Whole refills of the window: one batch may be free, the next costs a forward pass.
    seconds, _ = _timed(stream.next_batch, setup.device, min_seconds=_SECONDS)
    return (stream.tokens_served - before) / seconds


def _steps(setup: Setup) -> tuple[dict[str, float], Slot]:
    """Return the time of a step by architecture, and the last slot trained."""
    stream = setup.stream.experiment
    found: dict[str, float] = {}
    batches = [setup.source.stream.next_batch() for _ in range(4)]
    slot: Slot | None = None
    for architecture in stream.architectures:
        run = _endless(with_widths(largest_run(stream, architecture), setup.d_in))
        slot = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=0, device=setup.device)
        setup.cohort.place(0, slot)
        setup.cohort.begin_block()

        def step(number: list[int] = [0]) -> None:  # noqa: B006
            setup.cohort.train_step(batches[number[0] % len(batches)])
            number[0] += 1

        for _ in range(_WARM_UP):
            step()
        seconds, steps = _timed(step, setup.device, min_seconds=_SECONDS / len(stream.architectures))
        found[architecture] = seconds / steps
        setup.cohort.remove(0)
    assert slot is not None
    return found, slot


def _endless(run: BaseRun) -> BaseRun:
    """Return a run whose steps do not end while they are timed."""
    return run.model_copy(update={"training_tokens": max(run.training_tokens, 10**9)})


def _measuring(setup: Setup, slot: Slot) -> tuple[float, float]:
    """Return the seconds of reconstruction and of cross-entropy metrics of one SAE on the whole `select` part."""
    part, spec = setup.source.select, setup.experiment.spec.evaluation
    hook, hook_in = slot.run.target_hook, slot.run.hook_name
    sae = setup.cohort.export(slot)
    evaluator = HeldOutEvaluator(part, None)

    def measure() -> object:
        return evaluator.measure([sae], hook, with_model=False, hook_in=hook_in)

    measure()  # runs the model over the part, once
    reconstruction, runs = _timed(measure, setup.device, min_seconds=0.2)
    model = setup.source.model
    if model is None or not model.has_lm_head or part.tokens_NT is None or part.mask_NT is None:
        return reconstruction / runs, 0.0
    contexts = setup.base.eval_batch_size_prompts or setup.base.store_batch_size_prompts
    few = min(contexts, part.tokens_NT.shape[0])
    spliced = SplicedMetrics(
        model,
        part.tokens_NT[:few],
        part.mask_NT[:few],
        hook,
        head_index=setup.base.hook_head_index,
        contexts_per_forward=contexts,
        kept_bytes=KEPT_BYTES,  # as in the run
    )
    spliced.measure([sae], hook_in=hook_in)
    seconds, times = _timed(lambda: spliced.measure([sae], hook_in=hook_in), setup.device, min_seconds=0.5)
    measured = min(spec.ce_tokens_of("select", setup.base.training_tokens), part.tokens_NT.numel())
    return reconstruction / runs, seconds / times * measured / part.tokens_NT[:few].numel()


def _probing(setup: Setup, slot: Slot) -> tuple[float, float]:
    """Return the seconds of the probes of one SAE, and what the first one takes beyond: the model reads the texts then."""
    if setup.probes is None:
        return 0.0, 0.0
    probes, sae, hook = setup.probes, setup.cohort.export(slot), slot.run.hook_name
    first, _ = _timed(lambda: probes.measure(sae, hook), setup.device, min_seconds=0.0)
    seconds, times = _timed(lambda: probes.measure(sae, hook), setup.device, min_seconds=0.2)
    return seconds / times, max(0.0, first - seconds / times)


def _timed(action: Callable[[], object], device: torch.device, *, min_seconds: float) -> tuple[float, int]:
    """Repeat an action for some seconds; return the seconds it took and how often it ran."""
    _wait(device)
    started, times = time.perf_counter(), 0
    while True:
        action()
        _wait(device)
        times += 1
        seconds = time.perf_counter() - started
        if seconds >= min_seconds:
            return seconds, times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
