"""A model's facts from its configuration alone: no weights are read."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from saesweep.errors import UserError
from saesweep.models.base import LanguageModel, UnusableHookError
from saesweep.models.bridge import BridgeModel, build_bridge
from saesweep.models.hook_names import INPUT, hugging_face_hook, transformer_lens_hook
from saesweep.models.huggingface import HuggingFaceModel
from saesweep.models.library import Library, library_of, locate
from saesweep.models.pretrained import build_empty, loading_kwargs, quiet, read_config, read_tokenizer
from saesweep.models.shape import shape_activations

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun

_N, _T = 5, 7
"""Contexts and tokens of the forward pass that shapes are found with."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the preflight needs to know about a model."""

    hooks: dict[str, int]
    """Width of the activations (d_in) at every requested hook."""
    d_vocab: int
    """Number of logits."""
    context_limit: int | None
    """Most tokens per context; None where the architecture sets no limit."""
    n_parameters: int
    """Parameters, tied ones counted once."""
    weight_bytes: int
    """Their size in memory, in the type that they are loaded in."""
    has_lm_head: bool
    """Whether cross-entropy metrics are possible."""


@dataclass(frozen=True, kw_only=True)
class HookPoint:
    """A hook point of a model."""

    name: str
    """As `hook_name` takes it."""
    axes: tuple[str, ...] | None
    """Its axes, such as (context, token, 512); None where it holds no tensor or is switched off."""
    counterpart: str | None
    """Its name in the other library (Hugging Face or TransformerLens), where one corresponds for certain."""


def inspect_model(run: BaseRun, hooks: Sequence[str], *, offline: bool = False) -> ModelFacts:
    """Build the model without storage (meta device), run two tokens through it, and report.

    Args:
        run: The base run; its model fields, `context_size` and `hook_head_index` are read.
        hooks: Hook names to look at.
        offline: Look for a Hub model in the local cache only.

    Raises:
        UserError: The model cannot be had, a hook does not exist (the nearest names are listed) or gives no
            activations, or `context_size` is beyond what the model takes.
    """
    location, kwargs = locate(run), loading_kwargs(run.model_from_pretrained_kwargs)
    config = read_config(location, kwargs, offline=offline)
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and run.context_size > limit:
        raise UserError(f"base.context_size: {run.context_size} is more than {run.model_name} takes ({limit} tokens)")
    model, n_parameters, weight_bytes = _meta_model(run, config, offline=offline)
    check_hooks(model, hooks, run)
    widths = _widths(model, hooks, run.hook_head_index)
    for hook, width in widths.items():
        if run.sae.d_in not in (None, width):
            raise UserError(f"base.sae.d_in: {run.sae.d_in} is given, but {hook!r} of {run.model_name} is {width} wide")
    return ModelFacts(
        hooks=widths,
        d_vocab=model.d_vocab,
        context_limit=limit,
        n_parameters=n_parameters,
        weight_bytes=weight_bytes,
        has_lm_head=model.has_lm_head,
    )


def list_hooks(run: BaseRun, *, offline: bool = False) -> list[HookPoint]:
    """Return every hook point of a model with its shape, without reading weights.

    Args:
        run: The base run; its model fields are read.
        offline: Look for a Hub model in the local cache only.

    Raises:
        UserError: The model cannot be had.
    """
    config = read_config(locate(run), loading_kwargs(run.model_from_pretrained_kwargs), offline=offline)
    model, _, _ = _meta_model(run, config, offline=offline)
    tokens_NT = torch.zeros(_N, _T, dtype=torch.long, device="meta")
    with FakeTensorMode(allow_non_fake_inputs=True):
        shapes = model.hook_shapes(tokens_NT)
    is_bridge = isinstance(model, BridgeModel)
    return [
        HookPoint(
            name=name,
            axes=None if shape is None else _axes(shape),
            counterpart=hugging_face_hook(name, config.get_text_config().model_type)
            if is_bridge
            else transformer_lens_hook(name, config.get_text_config().model_type),
        )
        for name, shape in shapes.items()
    ]


def _axes(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Name the axes of contexts and tokens, which are no facts of the model."""
    if shape[:2] == (_N, _T):
        return ("context", "token", *map(str, shape[2:]))
    return tuple({_N: "context", _T: "token", _N * _T: "context*token"}.get(size, str(size)) for size in shape)


def check_hooks(model: LanguageModel, hooks: Sequence[str], run: BaseRun) -> None:
    """Refuse hooks that the model does not have.

    Raises:
        UserError: Names the unknown hook and the nearest ones that exist.
    """
    known = model.hook_names()
    for hook in hooks:
        if hook in set(known):
            continue
        # Inputs are offered to those who ask for one.
        alike = [name for name in known if name.endswith(INPUT) == hook.endswith(INPUT)]
        nearest = difflib.get_close_matches(hook, alike or known, n=5, cutoff=0.4)
        listed = ", ".join(nearest) if nearest else ", ".join([*known[:5], "..."])
        hint = ""
        if isinstance(model, HuggingFaceModel) and "hook_" in hook:
            hint = ". It looks like a TransformerLens name: set model_class_name: TransformerBridge to use those"
        elif isinstance(model, BridgeModel) and "hook_" not in hook:
            hint = ". It looks like a Hugging Face module: set model_class_name: AutoModelForCausalLM to use those"
        raise UserError(
            f"base.hook_name: {run.model_name} ({run.model_class_name}) has no hook {hook!r}; nearest: {listed}{hint}"
        )


def _meta_model(run: BaseRun, config: Any, *, offline: bool) -> tuple[LanguageModel, int, int]:
    """Return the model without storage, the number of its parameters and their bytes."""
    location, kwargs = locate(run), loading_kwargs(run.model_from_pretrained_kwargs)
    if library_of(run) is Library.HUGGING_FACE:
        skeleton = build_empty(location, config, kwargs, run.model_class_name)
        model: LanguageModel = HuggingFaceModel(skeleton, tokenizer=None, forward_kwargs=run.model_kwargs)
        return model, *_sizes(skeleton)
    skeleton = build_empty(location, config, kwargs)
    sizes = _sizes(skeleton)
    return _meta_bridge(skeleton, read_tokenizer(location, kwargs, offline=offline), run), *sizes


def _sizes(skeleton: Any) -> tuple[int, int]:
    parameters = list(skeleton.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() * p.element_size() for p in parameters)


def _meta_bridge(skeleton: Any, tokenizer: Any, run: BaseRun) -> BridgeModel:
    dtype = next(skeleton.parameters()).dtype
    # A bridge reads the architecture's name, which only a configuration saved with a model has.
    skeleton.config.architectures = [type(skeleton).__name__]
    with quiet():
        try:
            bridge = build_bridge(skeleton, tokenizer, str(run.model_name), dtype, "meta")
        except NotImplementedError:
            # Fused query-key-value weights (GPT-2) are split at boot, which needs storage. Empty storage is not
            # touched by anything else, so it costs address space and those weights alone.
            skeleton.to_empty(device="cpu")
            bridge = build_bridge(skeleton, tokenizer, str(run.model_name), dtype, "cpu")
            bridge.original_model.to("meta")
            bridge.cfg.device = "meta"
    return BridgeModel(bridge, tokenizer, forward_kwargs=run.model_kwargs)


def _widths(model: LanguageModel, hooks: Sequence[str], head_index: int | None) -> dict[str, int]:
    tokens_NT = torch.zeros(_N, _T, dtype=torch.long, device="meta")
    # Fake tensors, because transformers reads values of masks, which plain meta tensors refuse.
    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            acts = model.activations(tokens_NT, hooks)
        except UnusableHookError as error:
            raise UserError(f"base.hook_name: {error}; choose another hook") from error
    for hook in hooks:
        if acts[hook].shape[:2] != tokens_NT.shape:
            raise UserError(
                f"base.hook_name: {hook!r} gives {tuple(acts[hook].shape)} for {_N} contexts of {_T} tokens, "
                "not one row of activations per token; choose another hook"
            )
    return {hook: shape_activations(acts[hook], head_index).shape[-1] for hook in hooks}
