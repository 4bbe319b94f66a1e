"""What a run's hook is called in both libraries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from saesweep.errors import UserError
from saesweep.experiment.hook_names import hugging_face_hook, transformer_lens_hook
from saesweep.models.library import Library, library_of, locate
from saesweep.models.location import ModelLocation
from saesweep.models.pretrained import loading_kwargs, read_config, shared_kwargs

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun


@dataclass(frozen=True)
class HookNames:
    """A hook's names; None where no hook of that library holds the same activations for certain."""

    hugging_face: str | None
    transformer_lens: str | None


def names_of_hook(run: BaseRun, hook: str) -> HookNames:
    """Return what `hook` of `run`'s model is called in both libraries; the network is not asked.

    Args:
        run: The base run; its model fields are read.
        hook: In the naming of the run's own library.
    """
    if run.model_name is None:
        return HookNames(None, None)
    model_type = model_type_of(run)
    if library_of(run) is Library.HUGGING_FACE:
        return HookNames(hook, transformer_lens_hook(hook, model_type))
    return HookNames(None if model_type is None else hugging_face_hook(hook, model_type), hook)


def model_type_of(run: BaseRun) -> str | None:
    """Return `config.model_type` of the run's model; None where the configuration is not on this machine."""
    where = shared_kwargs(loading_kwargs(run.model_from_pretrained_kwargs))
    return _read_model_type(locate(run), tuple(sorted(where.items())))


@lru_cache(maxsize=32)
def _read_model_type(location: ModelLocation, where: tuple[tuple[str, object], ...]) -> str | None:
    try:
        return str(read_config(location, dict(where), offline=True).get_text_config().model_type)
    except UserError:  # not in the local cache any more: names that mean the same everywhere are still found
        return None
