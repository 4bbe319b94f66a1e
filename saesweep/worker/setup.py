"""Everything that training on a stream needs, opened before any of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from saesweep.activations import ActivationSource, Sinks, find_sinks, open_source
from saesweep.activity import doing
from saesweep.cohort import Cohort
from saesweep.errors import UserError
from saesweep.evaluation import HeldOutEvaluator
from saesweep.experiment import Experiment, Stream
from saesweep.experiment.advice import autocast_on_cpu
from saesweep.models import resolve_device
from saesweep.runs import RunDirectory, read_json, write_bytes, write_json
from saesweep.saes import Normalizer
from saesweep.specs import BaseRun, EvaluationSpec, ObjectiveSpec
from saesweep.worker.gradient_engine import make_engine, make_reference
from saesweep.worker.loaded_model import LoadedModel
from saesweep.worker.sizing import KEPT_BYTES, normalize_modes, size_stream


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
    source = open_source(
        run,
        experiment.spec.evaluation,
        hooks,
        with_model=experiment.reads_language_model(),
        model=loaded.for_run(run),
    )
    loaded.keep(run, source.model)
    d_in = dict(source.stream.d_in)
    sizes = size_stream(experiment, n_trials, d_in, device, sharing)
    choices = directory.choices()
    sinks = _sinks(source, hooks)
    notes = [each.message() for each in sinks]
    if run.device == "auto" and device.type == "cpu" and run.autocast:  # what is known only here
        notes.append(autocast_on_cpu("base.autocast"))
    if "slots" not in choices:
        choices["slots"], choices["slots_reason"] = sizes.slots.slots, sizes.slots.reason
        choices["background_checkpoints"] = sizes.slots.background_checkpoints
    doing("choosing kernels")
    reference = make_reference(run)
    engine, choices["kernels"], engine_notes = make_engine(
        experiment.spec.cohort.kernels,
        choices.get("kernels") or directory.of_worker("").choices().get("kernels"),  # the first worker's: the same bits
        list(sizes.runs),
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
    details = [f"cohort of {n_slots} on {device} ({choices['slots_reason']})", *engine_notes]
    cohort = Cohort(
        n_slots,
        normalizers={key: n.to(device) for key, n in _normalizers(directory, experiment, source, run, d_in).items()},
        device=device,
        engine=engine,
        reference=reference,
        autocast=run.autocast,
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


def _normalizers(
    directory: RunDirectory,
    experiment: Experiment,
    source: ActivationSource,
    run: BaseRun,
    d_in: Mapping[str, int],
) -> dict[tuple[str, str], Normalizer]:
    """Estimate each (hook, mode) once from the first shuffle window; a resumed run reads what the first start found."""
    folder = directory.stream_path
    json_file, tensor_file = folder / "normalizers.json", folder / "normalizers.safetensors"
    if json_file.exists():
        values = read_json(json_file)
        try:
            tensors = load_file(tensor_file) if tensor_file.exists() else {}
            return {_key(name): _restore(name, data, tensors) for name, data in values.items()}
        except (AttributeError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise UserError(
                f"{json_file}: damaged ({type(error).__name__}: {error}); start a new run with --run-dir"
            ) from None
    found: dict[tuple[str, str], Normalizer] = {}
    all_tensors: dict[str, Tensor] = {}
    values = {}
    most_tokens = run.n_batches_for_norm_estimate * run.train_batch_size_tokens
    for mode in normalize_modes(experiment):
        for hook in d_in:
            window = (_finite(piece[hook]) for piece in _at_most(source.stream.first_window(), hook, most_tokens))
            normalizer = Normalizer.fit(mode, window, d_in[hook])
            found[hook, mode] = normalizer
            state, tensors = normalizer.state_dict()
            values[f"{mode} {hook}"] = state
            all_tensors.update({f"{mode} {hook} {name}": t for name, t in tensors.items()})
    if all_tensors:
        # Whole or absent, as the JSON file beside it, which says that both are there.
        write_bytes(tensor_file, save({name: t.contiguous() for name, t in all_tensors.items()}))
    write_json(json_file, values)
    return found


def _key(name: str) -> tuple[str, str]:
    mode, hook = name.split(" ", 1)
    return hook, mode


def _restore(name: str, data: dict[str, Any], tensors: Mapping[str, Tensor]) -> Normalizer:
    mine = {key.removeprefix(f"{name} "): t for key, t in tensors.items() if key.startswith(f"{name} ")}
    return Normalizer.from_state_dict(data, mine)


def _finite(rows_ND: Tensor) -> Tensor:
    """Return the rows without NaN or infinities: one bad row would spoil the scale of the whole run."""
    is_finite_N = torch.isfinite(rows_ND).all(-1)
    return rows_ND if bool(is_finite_N.all()) else rows_ND[is_finite_N]


def _at_most(pieces: Iterator[dict[str, Tensor]], hook: str, most_tokens: int) -> Iterator[dict[str, Tensor]]:
    left = most_tokens
    for piece in pieces:
        if left <= 0:
            return
        yield {name: rows[:left] for name, rows in piece.items()}
        left -= piece[hook].shape[0]
