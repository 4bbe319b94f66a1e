"""Published SAEs, of any tool saesweep reads, measured side by side on the same held-out tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from saesweep.activations import ActivationSource, open_source
from saesweep.errors import UserError
from saesweep.evaluation.evaluate import HeldOutEvaluator
from saesweep.evaluation.overflow import overflow_of
from saesweep.evaluation.probes import Probes
from saesweep.evaluation.published import OWN_FILE, Hooks, check_layers, hooks_of, may_have_seen
from saesweep.experiment import Experiment, has_reference, load_experiment, only_stream
from saesweep.experiment.overrides import OPENED
from saesweep.experiment.saelens_cfg import run_of_metadata
from saesweep.models import resolve_device
from saesweep.saes import ExportedSAE, open_sae


@dataclass(frozen=True)
class Evaluated:
    """One SAE and its metrics."""

    source: str
    """What the user named."""
    architecture: str
    """As it was trained, where that is known."""
    d_in: int
    d_sae: int
    hook: str
    """Hook of the language model that it was measured at."""
    metrics: dict[str, float]
    """By the names of `METRICS`, each with `<name>_stderr` over contexts where it has one."""


@dataclass(frozen=True)
class Comparison:
    """All SAEs on the same tokens."""

    model: str | None
    dataset: str
    part: Literal["select", "test"]
    tokens: int
    """Activations that reconstruction metrics are measured on."""
    ablation: Literal["zero", "mean"]
    saes: tuple[Evaluated, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data; metrics that are NaN or infinite become None."""
        data = asdict(self)
        for sae in data["saes"]:
            sae["metrics"] = {name: value if value - value == 0 else None for name, value in sae["metrics"].items()}
        return data


def evaluate_saes(
    sources: Sequence[str | Path],
    *,
    experiment: str | Path | Mapping[Any, Any] | None = None,
    overrides: Sequence[str] = (),
    hook: str | None = None,
    part: Literal["select", "test"] = "select",
    ablation: Literal["zero", "mean"] = "zero",
    ks: Sequence[int] = (),
) -> Comparison:
    """Measure published SAEs on one held-out part, through the language model that they belong to.

    Model, dataset and held-out tokens come from `experiment`; where it is left out from the `experiment.yaml` beside the
    first SAE that has one, else from the metadata of the first SAE.

    Args:
        sources: What `open_sae` reads.
        experiment: An experiment file, or the same as a mapping.
        overrides: `path=value` texts over the experiment, such as `evaluation.select_tokens=1M`.
        hook: Measure every SAE here; by default each at the hook that its metadata name.
        part: `select` is what rungs and rankings use; `test` is meant to be read once.
        ablation: What scores are relative to.
        ks: Measure every SAE that selects k latents per token at each of these instead of its own k.

    Raises:
        UserError: An SAE, the model or the dataset cannot be had, or they do not fit together.
    """
    saes = [open_sae(source) for source in sources]
    names: Sequence[str | Path] = sources
    if ks:
        names = [f"{source} (k {k})" for source in sources for k in ks]
        saes = [_at_k(source, sae, k) for source, sae in zip(sources, saes, strict=True) for k in ks]
        sources = [source for source in sources for _ in ks]
    settings, notes = settings_of(sources, saes, experiment, overrides)
    settings = only_stream(settings)
    run = settings.base_run()
    notes += _strangers(sources, saes, run.model_name)
    seen = [may_have_seen(name, sae, settings, part) for name, sae in zip(sources, saes, strict=True)]
    notes += [note for note in seen if note is not None]
    hooks = [_hooks(sae, settings, str(name), hook) for name, sae in zip(sources, saes, strict=True)]
    device = resolve_device(run.device)
    # Nothing is trained, and `test` comes after `select`: where it is not read, it need not exist. A cache has it
    # already, and is checked against the whole split.
    evaluation = settings.spec.evaluation
    if part == "select" and not run.use_cached_activations:
        evaluation = evaluation.without_test()
    probes = None if evaluation.probes is None else Probes(evaluation.probes, run.seed)
    names_of_hooks = tuple(dict.fromkeys(name for own in hooks for name in (own.target, own.read)))
    source = open_source(run, evaluation, names_of_hooks)
    try:
        check_widths(sources, saes, [own.read for own in hooks], source)
        for name, sae, own in zip(sources, saes, hooks, strict=True):
            _check_width(name, "reconstructs", sae.d_out, own.target, source)
        held_out = getattr(source, part)
        evaluator = HeldOutEvaluator(
            held_out,
            source.model,
            ce_tokens=settings.spec.evaluation.ce_tokens,
            head_index=run.hook_head_index,
            contexts_per_forward=run.eval_batch_size_prompts or run.store_batch_size_prompts,
            ablation=ablation,
        )
        metrics: dict[int, dict[str, float]] = {}
        for place in dict.fromkeys(hooks):
            members = [i for i, own in enumerate(hooks) if own == place]
            found = evaluator.measure(
                [saes[i].to(device) for i in members],
                place.target,
                with_model=True,
                spread=True,
                paired=True,
                hook_in=place.read,
            )
            metrics.update(zip(members, found, strict=True))
        if probes is not None and source.model is not None:
            probes.open(source.model, run, names_of_hooks)
            for i, own in enumerate(hooks):
                metrics[i] |= probes.measure(saes[i].to(device), own.read)
        notes += evaluator.new_notes()
        for i, found_metrics in metrics.items():
            if not all(math.isfinite(value) for value in found_metrics.values()):
                cause = overflow_of(saes[i].to(device), held_out, hooks[i].read)
                notes += [] if cause is None else [f"{sources[i]}: some metrics are NaN or infinite: {cause}"]
    finally:
        source.close()
    return Comparison(
        model=run.model_name,
        dataset=run.dataset_label,
        part=part,
        tokens=held_out.n_tokens,
        ablation=ablation,
        saes=tuple(
            Evaluated(
                source=str(name),
                architecture=str(sae.metadata.get("training_architecture") or sae.architecture),
                d_in=sae.d_in,
                d_sae=sae.d_sae,
                hook=hooks[i].target,
                metrics=metrics[i],
            )
            for i, (name, sae) in enumerate(zip(names, saes, strict=True))
        ),
        notes=tuple(dict.fromkeys(notes)),
    )


def _at_k(source: str | Path, sae: ExportedSAE, k: int) -> ExportedSAE:
    try:
        return sae.at_k(k)
    except ValueError as error:
        raise UserError(f"{source}: cannot be measured at k {k}: {error}; leave --k out, or name other SAEs") from None


def settings_of(
    sources: Sequence[str | Path],
    saes: Sequence[ExportedSAE],
    experiment: str | Path | Mapping[Any, Any] | None,
    overrides: Sequence[str],
) -> tuple[Experiment, list[str]]:
    """Return the experiment whose model and text SAEs are read on, and what to say about it.

    That is `experiment`, else the `experiment.yaml` beside the first SAE that has one, else the first SAE's metadata.

    Raises:
        UserError: Nothing says which model and text the SAEs belong to.
    """
    if experiment is not None:
        return load_experiment(experiment, overrides=overrides), []
    for source in sources:
        own = Path(source).expanduser() / OWN_FILE
        if own.is_file():
            found = load_experiment(own, overrides=overrides, is_own=False, reads_environment=False)
            _check_references(str(own), found)
            plain = load_experiment(own, is_own=False, reads_environment=False).base_run()
            taken = [
                what
                for fields, what in ((("model_name",), "model"), (("dataset_path", "datasets"), "dataset"))
                if all(getattr(found.base_run(), field) == getattr(plain, field) for field in fields)
            ]
            return found, [f"{' and '.join(taken)} as in {own}"] if taken else []
    tree = _tree_from_metadata(saes[0])
    if "model_name" not in tree["base"] and not any(o.startswith("base.model_name=") for o in overrides):
        raise UserError(
            f"{sources[0]}: its metadata name no model; give --experiment FILE, or --model, --hook and --dataset"
        )
    found = load_experiment(tree, overrides=overrides, is_own=False, reads_environment=False)
    _check_references(str(sources[0]), found)
    return found, []


def _check_references(source: str, settings: Experiment) -> None:
    """Refuse an environment variable that an SAE's files ask for, in what is opened here: they may be somebody else's.

    `model_name: evil/${env:HF_TOKEN}` would send the token as part of a request.
    """
    run, evaluation = settings.base_run(), settings.spec.evaluation
    opened = [(f"base.{name}", value) for name, value in _dumped(run).items()]
    if evaluation.dataset is not None:
        opened += [(f"evaluation.dataset.{name}", value) for name, value in _dumped(evaluation.dataset).items()]
    if evaluation.probes is not None:
        opened.append(("evaluation.probes.tasks", evaluation.probes.model_dump(mode="json")["tasks"]))
    references = {path: value for path, value in opened if has_reference(value)}
    if references:
        again = " ".join(
            f"--set '{path}={value if isinstance(value, str) else json.dumps(value)}'"
            for path, value in references.items()
        )
        raise UserError(
            f"{source}: {', '.join(references)} refer to environment variables, which what lies beside "
            f"an SAE must not read, as it may be somebody else's; where it is yours, repeat it: {again}; or give "
            "--experiment FILE"
        )


def _dumped(spec: BaseModel) -> dict[str, Any]:
    """Return what is opened of a spec, in the order of `OPENED`."""
    found = spec.model_dump(mode="json", include=set(OPENED))
    return {name: found[name] for name in OPENED if name in found}


def _tree_from_metadata(sae: ExportedSAE) -> dict[str, Any]:
    base = {"hook_name": "unknown", **run_of_metadata(sae.metadata)}
    base.pop("hook_name_out", None)  # nothing is trained here
    base["sae"] = {"architecture": "standard" if sae.n_layers == 1 else "standard_crosscoder", "d_sae": sae.d_sae}
    if base.get("dataset_path") == "builtin:synthetic":
        base |= {"model_name": None, "sae": {**base["sae"], "d_in": sae.d_in}}
    return {"name": "eval", "base": base, "space": {}}


def _strangers(sources: Sequence[str | Path], saes: Sequence[ExportedSAE], model: str | None) -> list[str]:
    """Return a note for every SAE whose metadata name another model; only a person can tell two names of one model."""
    named = {str(source): sae.metadata.get("model_name") for source, sae in zip(sources, saes, strict=True)}
    return [
        f"{source}: trained on {name}, measured on {model}"
        for source, name in named.items()
        if name not in (None, model)
    ]


def _hooks(sae: ExportedSAE, settings: Experiment, name: str, chosen: str | None) -> Hooks:
    if chosen is None:
        return hooks_of(sae, settings, name)
    if sae.is_transcoder:
        raise UserError(f"{name}: a transcoder, which has two hooks; leave --hook out, its metadata name both")
    check_layers(sae, chosen, name)
    return Hooks(chosen, chosen)


def check_widths(
    sources: Sequence[str | Path], saes: Sequence[ExportedSAE], hooks: Sequence[str], source: ActivationSource
) -> None:
    """Refuse an SAE of another width than the hook that it reads.

    Raises:
        UserError: The two differ.
    """
    for name, sae, hook in zip(sources, saes, hooks, strict=True):
        _check_width(name, "reads", sae.d_in, hook, source)


def _check_width(name: str | Path, what: str, width: int, hook: str, source: ActivationSource) -> None:
    found = source.stream.d_in[hook]
    if width != found:
        raise UserError(f"{name}: {what} activations {width} wide, but {hook!r} of this model is {found} wide")
