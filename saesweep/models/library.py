"""Which library runs the model, what a hook is called in both libraries, and by which class and hook SAELens reads the same activations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from saesweep.errors import UserError
from saesweep.experiment.hook_names import hugging_face_hook, split_input, transformer_lens_hook
from saesweep.models.location import ModelLocation, locate_model
from saesweep.models.pretrained import loading_kwargs, read_config, shared_kwargs
from saesweep.specs.joint_hooks import hooks_in, is_joint, joined
from saesweep.specs.model_loading import BRIDGE_CLASSES, MODEL_CLASS_ADVICE, WEIGHT_PROCESSING, is_model_class

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun


class Library(Enum):
    """A model library with an adapter."""

    HUGGING_FACE = "transformers"
    TRANSFORMER_LENS = "TransformerBridge"


def library_of(run: BaseRun) -> Library:
    """Return the library for `run.model_class_name`.

    Raises:
        UserError: There is no adapter for it.
    """
    name = run.model_class_name
    if name in BRIDGE_CLASSES:
        return Library.TRANSFORMER_LENS
    if is_model_class(name):
        return Library.HUGGING_FACE
    raise UserError(f"base.model_class_name: {name!r} is not supported; {MODEL_CLASS_ADVICE}")


def locate(run: BaseRun) -> ModelLocation:
    """Return where the model's files are; classic TransformerLens aliases are resolved for that library.

    Raises:
        UserError: See `locate_model`; or a loading argument would let code run, and the run does not allow it.
        ValueError: The run has no model (the synthetic source).
    """
    if run.model_name is None:
        raise ValueError("this run has no language model")
    if refused := run.refused_arguments:  # for runs that were not read from a file, which is checked before
        raise UserError(f"base.model_from_pretrained_kwargs: {refused[0]}")
    location = locate_model(run.model_name, run.model_from_pretrained_kwargs)
    if library_of(run) is Library.TRANSFORMER_LENS and not location.is_local:
        from saesweep.models.bridge import hub_name

        return replace(location, source=hub_name(location.source))
    return location


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
    if is_joint(hook):
        each = [names_of_hook(run, one) for one in hooks_in(hook)]
        return HookNames(_all(name.hugging_face for name in each), _all(name.transformer_lens for name in each))
    model_type = model_type_of(run)
    if library_of(run) is Library.HUGGING_FACE:
        return HookNames(hook, transformer_lens_hook(hook, model_type))
    return HookNames(None if model_type is None else hugging_face_hook(hook, model_type), hook)


def _all(names: Iterable[str | None]) -> str | None:
    """Return the name of hooks that are read together; None where one of them has none."""
    found = list(names)
    return None if None in found else joined(name for name in found if name is not None)


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


CAUSAL = "AutoModelForCausalLM"
HOOKED = "HookedTransformer"


@dataclass(frozen=True)
class SAELensPair:
    """What SAELens' `load_model` and `ActivationsStore` are given: the two fit each other, as names of one library do.

    SAELens loads two kinds of language models: `AutoModelForCausalLM`, of which it reads the outputs of modules and no
    inputs, and `HookedTransformer`, which takes the Hub ids that TransformerLens lists and no folder.
    """

    model_class_name: str
    hook_name: str
    model_from_pretrained_kwargs: dict[str, Any]
    """Arguments of that class's loading call; for `HookedTransformer` all weight processing is off, because it changes
    what hooks hold."""
    hook_name_out: str | None = None
    """The hook that a transcoder reconstructs, of the same library; None for an SAE."""


def saelens_pair(run: BaseRun) -> SAELensPair:
    """Return the pair with which SAELens reads the activations that `run`'s SAE was trained on; a crosscoder's own, as it has none.

    The run's own class and hook where SAELens takes them; else a hook of the other library that holds the same
    activations. Where no such hook is known for certain, the run's own class and hook: SAELens cannot load those.
    """
    own = SAELensPair(run.model_class_name, run.hook_name, _kwargs(run, CAUSAL), run.hook_name_out)
    if is_joint(run.hook_name):
        return own
    if run.is_synthetic or run.model_name is None:
        return replace(own, model_from_pretrained_kwargs=dict(run.model_from_pretrained_kwargs or {}))
    hooks = [run.hook_name] if run.hook_name_out is None else [run.hook_name, run.hook_name_out]
    names = [names_of_hook(run, hook) for hook in hooks]
    causal, lens = [_causal_hook(run, each) for each in names], [each.transformer_lens for each in names]
    is_bridge = library_of(run) is Library.TRANSFORMER_LENS
    prefers_lens = is_bridge and not locate(run).is_local
    for class_name, found in ((HOOKED, lens), (CAUSAL, causal)) if prefers_lens else ((CAUSAL, causal), (HOOKED, lens)):
        if (hook := found[0]) is not None and None not in found:
            return SAELensPair(class_name, hook, _kwargs(run, class_name), *found[1:])
    return own


def _causal_hook(run: BaseRun, names: HookNames) -> str | None:
    """Return the module of `AutoModelForCausalLM` whose output holds the activations; None where none is known."""
    if run.hook_head_index is not None:  # outputs of modules have no axis of heads
        return None
    hook = names.hugging_face
    is_causal_class = run.model_class_name.endswith(("ForCausalLM", "LMHeadModel"))
    if hook is not None and is_causal_class and not split_input(hook)[1]:
        return hook
    model_type = model_type_of(run)
    if model_type is None or names.transformer_lens is None:
        return None
    # The input of a block is the output of the one before it; the embedding's output is not always the first input.
    point = re.sub(
        r"^blocks\.(\d+)\.hook_resid_pre$",
        lambda match: f"blocks.{int(match[1]) - 1}.hook_resid_post",
        names.transformer_lens,
    )
    found = hugging_face_hook(point, model_type)
    return None if found is None or split_input(found)[1] else found


def _kwargs(run: BaseRun, class_name: str) -> dict[str, Any]:
    own = {
        key: value for key, value in (run.model_from_pretrained_kwargs or {}).items() if key not in WEIGHT_PROCESSING
    }
    if class_name == CAUSAL:
        return own
    # HookedTransformer knows no "auto"; its default is float32.
    own = {key: value for key, value in own.items() if key not in ("dtype", "torch_dtype") or value != "auto"}
    return {**own, **dict.fromkeys(WEIGHT_PROCESSING, False)}
