"""Which hook of the language model at hand an SAE belongs to."""

from __future__ import annotations

from saesweep.errors import UserError
from saesweep.experiment import Experiment
from saesweep.models import transformer_lens_hook
from saesweep.models.hook_names import hugging_face_hook
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
    own = sae.metadata.get("saesweep")
    stated = [own.get("hook_name") if isinstance(own, dict) else None, sae.metadata.get("hook_name")]
    known = [str(hook) for hook in stated if hook]
    for hook in hooks:
        if hook in known or transformer_lens_hook(hook) in known:
            return hook
    if known:
        return _fitting(known, experiment.base_run())
    if len(hooks) > 1:
        raise UserError(f"{name}: its metadata name no hook; choose one of {', '.join(hooks)} with --hook")
    return hooks[0]


def _fitting(known: list[str], run: BaseRun) -> str:
    """Return the name that the experiment's model library understands, translated where the SAE has only the other one."""
    is_lens = run.is_synthetic or library_of(run) is Library.TRANSFORMER_LENS
    for hook in known:
        if is_lens == ("hook_" in hook):
            return hook
    if not is_lens:
        config = read_config(locate(run), loading_kwargs(run.model_from_pretrained_kwargs))
        return hugging_face_hook(known[0], config.get_text_config().model_type) or known[0]
    return transformer_lens_hook(known[0]) or known[0]
