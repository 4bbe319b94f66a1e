"""Everything a sweep needs, checked and opened before any training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from saesweep.activations import ActivationSource, HeldOut, SourceFacts, check_source, open_source
from saesweep.cohort import Cohort
from saesweep.errors import UserError
from saesweep.evaluation import HeldOutEvaluator
from saesweep.events import ReferenceRow
from saesweep.experiment import Experiment
from saesweep.models import resolve_device
from saesweep.runs import RunDirectory, read_json, write_bytes, write_json
from saesweep.saes import Normalizer, check_pretrained
from saesweep.specs import BaseRun, ObjectiveSpec
from saesweep.sweep.corners import largest_run, normalize_modes
from saesweep.sweep.engines import make_engine, make_reference
from saesweep.sweep.references import open_references
from saesweep.sweep.sizing import BlockPlan, plan_blocks, plan_slots


@dataclass
class Setup:
    """What was decided and opened for one run."""

    experiment: Experiment
    directory: RunDirectory
    objective: ObjectiveSpec
    base: BaseRun
    """The first architecture's run: its stream-level fields hold for every trial."""
    d_in: Mapping[str, int]
    source: ActivationSource
    blocks: BlockPlan
    n_slots: int
    device: torch.device
    cohort: Cohort
    evaluator: HeldOutEvaluator
    """Of the `select` part: what trials are ranked on."""
    notes: list[str]
    references: tuple[ReferenceRow, ...] = field(default=())
    """Published SAEs, measured once the run has begun."""


def check(experiment: Experiment) -> SourceFacts:
    """Run the preflight: model, hooks, dataset, and weights to start from, without loading the language model's.

    Raises:
        UserError: Something does not fit together.
    """
    run = experiment.base_run()
    facts = check_source(run, experiment.spec.evaluation, experiment.hook_names(), training_tokens=run.training_tokens)
    check_pretrained(
        with_widths(corner, facts.d_in)
        for architecture in experiment.architectures
        for corner in experiment.corner_runs(architecture)
    )
    for _ in open_references(experiment, facts.d_in):
        pass
    return facts


def prepare(experiment: Experiment, directory: RunDirectory, facts: SourceFacts) -> Setup:
    """Open the stream and build an empty cohort; sizes and measured choices are kept in the run directory.

    Raises:
        UserError: Widths do not fit, or no SAE fits into memory.
    """
    run = experiment.base_run()
    hooks = experiment.hook_names()
    device = resolve_device(run.device)
    source = open_source(run, experiment.spec.evaluation, hooks, with_model=experiment.reads_language_model())
    d_in = dict(source.stream.d_in)
    runs = [with_widths(largest_run(experiment, name), d_in) for name in experiment.architectures]
    blocks = plan_blocks(run, experiment.spec.search, experiment.spec.cohort)
    choices = directory.choices()
    notes = [*experiment.warnings, *facts.warnings]
    if "slots" not in choices:
        plan = plan_slots(
            experiment.spec.cohort,
            n_trials=experiment.n_trials,
            runs=runs,
            hooks=len(hooks),
            weight_bytes=0,  # the model is loaded already
            free_bytes=free_bytes(device),
            replicates=experiment.spec.search.replicates,
            peers=experiment.spec.search.least_peers,
        )
        choices["slots"], choices["slots_reason"] = plan.slots, plan.reason
    reference = make_reference(run)
    engine, choices["kernels"], engine_notes = make_engine(
        experiment.spec.cohort.kernels,
        choices.get("kernels"),
        runs,
        device=device,
        reference=reference,
        autocast=run.autocast,
    )
    directory.save_choices(choices)
    n_slots = int(choices["slots"])
    notes.append(f"cohort of {n_slots} on {device} ({choices['slots_reason']})")
    notes.extend(engine_notes)
    cohort = Cohort(
        n_slots,
        normalizers={key: n.to(device) for key, n in _normalizers(directory, experiment, source, run, d_in).items()},
        device=device,
        engine=engine,
        reference=reference,
        autocast=run.autocast,
    )
    objective = experiment.objective(has_lm_head=source.model is not None and source.model.has_lm_head)
    evaluator = evaluator_of(source.select, source, experiment)
    return Setup(experiment, directory, objective, run, d_in, source, blocks, n_slots, device, cohort, evaluator, notes)


def evaluator_of(part: HeldOut, source: ActivationSource, experiment: Experiment) -> HeldOutEvaluator:
    """Return the evaluator of a held-out part, as the experiment wants it."""
    run = experiment.base_run()
    return HeldOutEvaluator(
        part,
        source.model,
        ce_tokens=experiment.spec.evaluation.ce_tokens,
        head_index=run.hook_head_index,
        contexts_per_forward=run.eval_batch_size_prompts or run.store_batch_size_prompts,
    )


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def with_widths(run: BaseRun, d_in: Mapping[str, int]) -> BaseRun:
    """Return a run with `d_in` and `d_sae` filled in from its hook."""
    return run.model_copy(update={"sae": run.sae.resolve_widths(d_in[run.hook_name])})


def _normalizers(
    directory: RunDirectory,
    experiment: Experiment,
    source: ActivationSource,
    run: BaseRun,
    d_in: Mapping[str, int],
) -> dict[tuple[str, str], Normalizer]:
    """Estimate each (hook, mode) once from the first shuffle window; a resumed run reads what the first start found."""
    json_file, tensor_file = directory.path / "normalizers.json", directory.path / "normalizers.safetensors"
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
