"""Everything that training on a stream needs, opened before any of it: model, source, held-out parts, the engine of gradients."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from saesweep.activations import ActivationSource, Sinks, find_sinks, open_source
from saesweep.activity import doing
from saesweep.cohort import Cohort
from saesweep.errors import UserError
from saesweep.evaluation import HeldOutEvaluator, Probes
from saesweep.experiment import Experiment, Stream
from saesweep.experiment.advice import autocast_on_cpu
from saesweep.experiment.fields import MODEL_PATHS
from saesweep.models import LanguageModel, resolve_device
from saesweep.runs import RunDirectory
from saesweep.specs import BaseRun, EvaluationSpec, ObjectiveSpec
from saesweep.worker.kernels import make_engine, make_reference, make_stacks
from saesweep.worker.normalizers import normalizers_of
from saesweep.worker.sizing import KEPT_BYTES, size_stream


def derive(seed: int, *purpose: object) -> int:
    """Return a 63-bit seed for one purpose, such as `derive(42, "init", 0)`."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class LoadedModel:
    """Holds at most one language model."""

    def __init__(self) -> None:
        self._model: LanguageModel | None = None
        self._key: tuple[object, ...] = ()

    def for_run(self, run: BaseRun) -> LanguageModel | None:
        """Return the model where a run reads the same one; otherwise give its memory back first."""
        if self._key != _key(run):
            self.drop()
        return self._model

    def keep(self, run: BaseRun, model: LanguageModel | None) -> None:
        """Hold the model of a run."""
        self._model, self._key = model, _key(run)

    def drop(self) -> None:
        """Give the memory of the model, and of everything that is not in use any more, back."""
        self._model, self._key = None, ()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _key(run: BaseRun) -> tuple[object, ...]:
    """Return what decides the model among the fields that streams can differ in."""
    return tuple(getattr(run, path) for path in MODEL_PATHS)


@dataclass
class Setup:
    """What was opened for one stream."""

    experiment: Experiment
    """The whole experiment."""
    stream: Stream
    directory: RunDirectory
    """The run directory as the stream sees it."""
    base: BaseRun
    """The first architecture's run on the stream: its stream-level fields hold for every trial there."""
    objective: ObjectiveSpec
    d_in: Mapping[str, int]
    """Width at every hook."""
    source: ActivationSource
    n_slots: int
    """SAEs that train at once."""
    background_checkpoints: bool
    """Checkpoints are written from a copy, for which memory was planned."""
    device: torch.device
    cohort: Cohort
    evaluator: HeldOutEvaluator
    """Of the `select` part: what trials are ranked on."""
    probes: Probes | None
    """Of `evaluation.probes`; None without."""
    notes: list[str]
    """What to know before the run."""
    details: list[str]
    """What was chosen and why: cohort size, kernels."""
    sinks: tuple[Sinks, ...]
    """Attention sinks among the tokens that count, at the hooks that have some."""

    def test_evaluator(self) -> HeldOutEvaluator:
        """Return the evaluator of the `test` part: made when the end has come, and read once."""
        return evaluator_of("test", self.source, self.base, self.experiment.spec.evaluation)


def prepare(
    whole: Experiment,
    stream: Stream,
    directory: RunDirectory,
    n_trials: int,
    loaded: LoadedModel,
    *,
    on: str = "",
    sharing: int = 1,
) -> Setup:
    """Open a stream and build an empty cohort; sizes and measured choices are kept in the run directory.

    Args:
        whole: The experiment.
        stream: The stream to open.
        directory: The run directory as the stream and the worker see it.
        n_trials: Trials that are expected on the stream.
        loaded: Holds the language model from stream to stream.
        on: Device to train on; empty: `base.device`.
        sharing: Workers among which the main memory is divided.

    Raises:
        UserError: Widths do not fit, or no SAE fits into memory.
    """
    experiment = stream.experiment
    run = experiment.base_run()
    if on:
        run = run.model_copy(update={"device": on})
    hooks = experiment.hook_names()
    device = resolve_device(run.device)
    stated = experiment.spec.evaluation.probes
    probes = None if stated is None else Probes(stated, run.seed)
    source = open_source(
        run,
        experiment.spec.evaluation,
        hooks,
        with_model=experiment.reads_language_model(),
        model=loaded.for_run(run),
    )
    loaded.keep(run, source.model)
    if probes is not None and source.model is not None:
        probes.open(source.model, run, hooks)
    d_in = dict(source.stream.d_in)
    sizes = size_stream(experiment, n_trials, d_in, device, sharing)
    choices = directory.choices()
    sinks = _sinks(source, hooks)
    notes = [each.message() for each in sinks]
    if run.device == "auto" and device.type == "cpu" and run.autocast:  # what is known only here
        notes.append(autocast_on_cpu("base.autocast"))
    planned, slots = sizes.slots, choices.get("slots")
    has_grown = slots is not None and planned.slot_bytes > choices.get("slot_bytes", planned.slot_bytes)
    if slots is None or (has_grown and planned.slots < slots):  # an added choice is larger than what was planned for
        choices["slots"], choices["slots_reason"] = planned.slots, planned.reason
        choices["background_checkpoints"] = planned.background_checkpoints
    choices["slot_bytes"] = max(planned.slot_bytes, choices.get("slot_bytes", 0))
    doing("choosing kernels")
    reference = make_reference(run)
    engine, choices["kernels"], engine_notes = make_engine(
        experiment.spec.cohort,
        choices.get("kernels") or directory.of_worker("").choices().get("kernels"),  # the first worker's: the same bits
        sizes,
        device=device,
        reference=reference,
        autocast=run.autocast,
    )
    directory.save_choices(choices)
    n_slots = int(choices["slots"])
    if n_slots % experiment.spec.search.replicates:
        raise UserError(
            f"{directory.choices_file}: damaged, slots is {n_slots}, which is no multiple of search.replicates "
            f"({experiment.spec.search.replicates}); restore it, or start a new run with --run-dir"
        )
    details = [f"cohort of {n_slots} on {device} ({choices.get('slots_reason', 'as before')})", *engine_notes]
    cohort = Cohort(
        n_slots,
        normalizers={key: n.to(device) for key, n in normalizers_of(directory, experiment, source, run, d_in).items()},
        device=device,
        engine=engine,
        reference=reference,
        autocast=run.autocast,
        stacks=make_stacks(engine),
    )
    return Setup(
        experiment=whole,
        stream=stream,
        directory=directory,
        base=run,
        objective=experiment.objective(has_lm_head=source.model is not None and source.model.has_lm_head),
        d_in=d_in,
        source=source,
        n_slots=n_slots,
        background_checkpoints=choices.get("background_checkpoints") is True,
        device=device,
        cohort=cohort,
        evaluator=evaluator_of("select", source, run, experiment.spec.evaluation, kept_bytes=KEPT_BYTES),
        probes=probes,
        notes=notes,
        details=details,
        sinks=sinks,
    )


def evaluator_of(
    part: Literal["select", "test"],
    source: ActivationSource,
    run: BaseRun,
    evaluation: EvaluationSpec,
    *,
    kept_bytes: int = 0,
) -> HeldOutEvaluator:
    """Return the evaluator of a held-out part of a stream, as its run and the experiment want it."""
    return HeldOutEvaluator(
        source.select if part == "select" else source.test,
        source.model,
        ce_tokens=evaluation.ce_tokens_of(part, run.training_tokens),
        at_rung=evaluation.at_rung,
        head_index=run.hook_head_index,
        contexts_per_forward=run.eval_batch_size_prompts or run.store_batch_size_prompts,
        kept_bytes=kept_bytes,
    )


def _sinks(source: ActivationSource, hooks: Sequence[str]) -> tuple[Sinks, ...]:
    """Return the attention sinks at the hooks of a stream, before anything trains on them."""
    special = () if source.model is None else getattr(source.model.tokenizer, "all_special_ids", ())
    found = (find_sinks(source.select, hook, special) for hook in hooks)
    return tuple(each for each in found if each is not None)
