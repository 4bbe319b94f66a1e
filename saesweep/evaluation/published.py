"""What must be known of an SAE before it is measured here: which hook of the model at hand it belongs to, and which tokens it may have seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saesweep.errors import UserError
from saesweep.experiment import Experiment, load_experiment
from saesweep.experiment.hook_names import blocks_of, hugging_face_hook
from saesweep.experiment.saelens_cfg import run_of_metadata
from saesweep.models import transformer_lens_hook
from saesweep.models.library import Library, library_of, locate, model_type_of
from saesweep.models.pretrained import loading_kwargs, read_config
from saesweep.saes import ExportedSAE
from saesweep.specs import BaseRun
from saesweep.specs.joint_hooks import as_name, hooks_in, is_joint, joined


@dataclass(frozen=True)
class Hooks:
    """Where an SAE belongs."""

    target: str
    """The hook whose activations it reconstructs: where it is measured."""
    read: str
    """The hook that it reads; another one for transcoders alone."""


def hooks_of(sae: ExportedSAE, experiment: Experiment, name: str) -> Hooks:
    """Return the hooks to measure an SAE at; see `hook_of`.

    Raises:
        UserError: Its metadata name no hook, and the experiment has more than one; or a transcoder's name only one.
    """
    if not sae.is_transcoder:
        hook = hook_of(sae, experiment, name)
        check_layers(sae, hook, name)
        return Hooks(hook, hook)
    if not _stated(sae, "hook_name_out"):
        raise UserError(f"{name}: a transcoder whose metadata do not name hook_name_out, the hook that it reconstructs")
    return Hooks(hook_of(sae, experiment, name, "hook_name_out"), hook_of(sae, experiment, name))


def check_layers(sae: ExportedSAE, hook: str, name: str) -> None:
    """Refuse a crosscoder at another number of hooks than it reads together, and anything else at several hooks.

    Raises:
        UserError: They differ.
    """
    if (count := len(hooks_in(hook))) != sae.n_layers:
        reads = "one hook" if sae.n_layers == 1 else f"{sae.n_layers} hooks together"
        raise UserError(f"{name}: reads {reads}, and {hook!r} is {'one' if count == 1 else count}")


def read_hook(sae: ExportedSAE, hook: str) -> str:
    """Return the hook that an SAE of this run reads, given the one that it reconstructs."""
    return _stated(sae, "hook_name")[0] if sae.is_transcoder else hook


def _stated(sae: ExportedSAE, field: str) -> list[str]:
    """Return a hook as the metadata name it: by the run's own name, by the one that SAELens loads, and by Hugging Face's."""
    own = sae.metadata.get("saesweep")
    stated = [own.get(field) if isinstance(own, dict) else None]
    stated += [sae.metadata.get(field), sae.metadata.get(f"hf_{field}")]
    return [str(as_name(hook)) for hook in stated if hook]


def hook_of(sae: ExportedSAE, experiment: Experiment, name: str, field: str = "hook_name") -> str:
    """Return the hook that an SAE reads, or another one that its metadata name.

    Its metadata may name it as a module of the Hugging Face model or as a TransformerLens hook point; the experiment's
    hooks are recognised under both names. An SAE of another hook is measured there, where the model has it.

    Args:
        sae: The SAE.
        experiment: Model and hooks.
        name: What the user called the SAE, for messages.
        field: Of the metadata: `hook_name`, or `hook_name_out` for what a transcoder reconstructs.

    Raises:
        UserError: Its metadata name no hook, and the experiment has more than one.
    """
    hooks = experiment.hook_names()
    run = experiment.base_run()
    known = _stated(sae, field)
    for hook in hooks:
        if _fits(hook, run) and (hook in known or transformer_lens_hook(hook) in known):
            return hook
    if known:
        fitting = next((hook for hook in known if _fits(hook, run)), None)
        return _translated(known[0], run) if fitting is None else _whole(fitting, run)
    if len(hooks) > 1:
        raise UserError(f"{name}: its metadata name no hook; choose one of {', '.join(hooks)} with --hook")
    return hooks[0]


def _fits(hook: str, run: BaseRun) -> bool:
    """Return whether a name is of the kind that the run's model library uses."""
    return run.is_synthetic or ("hook_" in hook) == (library_of(run) is Library.TRANSFORMER_LENS)


def _translated(hook: str, run: BaseRun) -> str:
    """Return the other library's name for a hook; the same name where none is known, for the model to refuse."""
    if is_joint(hook):
        return joined(_translated(each, run) for each in hooks_in(hook))
    if library_of(run) is Library.TRANSFORMER_LENS:
        return transformer_lens_hook(hook, model_type_of(run)) or hook
    config = read_config(locate(run), loading_kwargs(run.model_from_pretrained_kwargs))
    return hugging_face_hook(hook, config.get_text_config().model_type) or hook


def _whole(hook: str, run: BaseRun) -> str:
    """Return a module's name in the whole model; sparsify's names begin in the body (`layers.5.mlp`)."""
    model_type = None if run.is_synthetic or library_of(run) is Library.TRANSFORMER_LENS else model_type_of(run)
    blocks = None if model_type is None else blocks_of(model_type)
    if blocks is None:
        return hook
    body, inner = blocks.split(".", 1)
    return f"{body}.{hook}" if hook.startswith(f"{inner}.") else hook


OWN_FILE = "experiment.yaml"
"""The experiment beside an SAE of ours."""
_DECIDE_THE_SPLIT = (
    "dataset_path",
    "dataset_name",
    "split",
    "data_files",
    "data_dir",
    "column_name",
    "datasets",
    "model_name",
    "context_size",
    "prepend_bos",
    "sequence_separator_token",
    "disable_concat_sequences",
    "use_chat_formatting",
    "seed",
)
"""Fields that decide which documents are held out first."""


def may_have_seen(
    source: str | Path, sae: ExportedSAE, measured: Experiment, part: Literal["select", "test"]
) -> str | None:
    """Return a note where the tokens may have been trained on; None where they were held out or are other text.

    Args:
        source: What the user named.
        sae: The SAE.
        measured: The experiment that the tokens come from.
        part: The part of it.
    """
    run = measured.base_run()
    if run.is_synthetic or _held_out(source, measured, part):
        return None
    trained_on = _trained_on(sae)
    if not trained_on:
        return f"{source}: its metadata do not say what it was trained on, so it may have seen these tokens"
    texts = {own.dataset_path for _, own in measured.spec.evaluation.text_of(run).by_dataset}
    both = ", ".join(sorted(texts.intersection(trained_on)))
    if not both:
        return None
    return f"{source}: trained on {both} too, where these tokens come from, so it may have seen them"


def _trained_on(sae: ExportedSAE) -> set[str]:
    """Return the datasets that an SAE's metadata name; empty where they name none."""
    found = run_of_metadata(sae.metadata)
    mixed = found.get("datasets")
    entries = [each for each in mixed if isinstance(each, dict)] if isinstance(mixed, list) else []
    named = [each.get("dataset_path") for each in entries]
    return {name for name in (found.get("dataset_path"), *named) if isinstance(name, str)}


def _held_out(source: str | Path, measured: Experiment, part: Literal["select", "test"]) -> bool:
    """Return whether the SAE's own run held these documents out: the same split, and no further than it went."""
    own_file = Path(source).expanduser() / OWN_FILE
    if not own_file.is_file():
        return False
    try:
        own = load_experiment(own_file, is_own=False, reads_environment=False)
    except UserError:  # such as a variable of the environment that is not set here
        return False
    own_run, measured_run = own.base_run(), measured.base_run()
    if any(getattr(own_run, name) != getattr(measured_run, name) for name in _DECIDE_THE_SPLIT):
        return False
    if own.spec.evaluation.dataset != measured.spec.evaluation.dataset:
        return False
    # The documents of `select` come first in the split, then those of `test`.
    needed = measured.spec.evaluation.select_tokens
    if part == "test":
        needed += measured.spec.evaluation.test_tokens
    return needed <= own.spec.evaluation.select_tokens + own.spec.evaluation.test_tokens
