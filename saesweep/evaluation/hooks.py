"""Which hook of the language model at hand an SAE belongs to."""

from __future__ import annotations

from saesweep.errors import UserError
from saesweep.experiment import Experiment
from saesweep.experiment.hook_names import hugging_face_hook
from saesweep.models import transformer_lens_hook
from saesweep.models.library import Library, library_of, locate
from saesweep.models.pretrained import loading_kwargs, read_config
from saesweep.saes import ExportedSAE
from saesweep.specs import BaseRun


def hook_of(sae: ExportedSAE, experiment: Experiment, name: str) -> str:
    """Return the hook to measure an SAE at.

    Its metadata may name it as a module of the Hugging Face model or as a TransformerLens hook point; the experiment's
    hooks are recognised under both names. An SAE of another hook is measured there, where the model has it.

    Args:
        sae: The SAE.
        experiment: Model and hooks.
        name: What the user called the SAE, for messages.

    Raises:
        UserError: Its metadata name no hook, and the experiment has more than one.
    """
    hooks = experiment.hook_names()
    run = experiment.base_run()
    own = sae.metadata.get("saesweep")
    stated = [own.get("hook_name") if isinstance(own, dict) else None, sae.metadata.get("hook_name")]
    known = [str(hook) for hook in stated if hook]
    for hook in hooks:
        if _fits(hook, run) and (hook in known or transformer_lens_hook(hook) in known):
            return hook
    if known:
        return next((hook for hook in known if _fits(hook, run)), None) or _translated(known[0], run)
    if len(hooks) > 1:
        raise UserError(f"{name}: its metadata name no hook; choose one of {', '.join(hooks)} with --hook")
    return hooks[0]


def _fits(hook: str, run: BaseRun) -> bool:
    """Return whether a name is of the kind that the run's model library uses."""
    return run.is_synthetic or ("hook_" in hook) == (library_of(run) is Library.TRANSFORMER_LENS)


def _translated(hook: str, run: BaseRun) -> str:
    """Return the other library's name for a hook; the same name where none is known, for the model to refuse."""
    if library_of(run) is Library.TRANSFORMER_LENS:
        return transformer_lens_hook(hook) or hook
    config = read_config(locate(run), loading_kwargs(run.model_from_pretrained_kwargs))
    return hugging_face_hook(hook, config.get_text_config().model_type) or hook
