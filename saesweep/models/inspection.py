"""A model's facts from its configuration alone: no weights are read."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from saesweep.errors import UserError
from saesweep.experiment.hook_names import INPUT, hugging_face_hook, transformer_lens_hook
from saesweep.models.base import LanguageModel, UnusableHookError
from saesweep.models.bridge import BridgeModel
from saesweep.models.huggingface import HuggingFaceModel
from saesweep.models.library import locate
from saesweep.models.pretrained import loading_kwargs, read_config
from saesweep.models.shape import shape_activations
from saesweep.models.skeleton import PROBE_SHAPE, build_skeleton, probe
from saesweep.specs.joint_hooks import hooks_in

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the preflight needs to know about a model."""

    hooks: dict[str, int]
    """Width of the activations (d_in) at every requested hook."""
    d_vocab: int
    """Number of logits."""
    n_token_ids: int
    """Rows of the token embedding: ids beyond it cannot be looked up."""
    context_limit: int | None
    """Maximum number of tokens per context; None where the architecture sets no limit."""
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
    """Build the model without its weights, run a few tokens through it, and report.

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
    model, n_parameters, weight_bytes = build_skeleton(run, config, offline=offline)
    check_hooks(model, hooks, run)
    widths = probe(
        run,
        config,
        model,
        lambda model, tokens_NT: _widths(model, tokens_NT, hooks, run.hook_head_index),
        offline=offline,
    )
    for hook, width in widths.items():
        is_target = hook == run.hook_name_out
        field, stated = ("d_out", getattr(run.sae, "d_out", None)) if is_target else ("d_in", run.sae.d_in)
        if stated not in (None, width):
            raise UserError(f"base.sae.{field}: {stated} is given, but {hook!r} of {run.model_name} is {width} wide")
    return ModelFacts(
        hooks=widths,
        d_vocab=model.d_vocab,
        n_token_ids=model.n_token_ids,
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
    model, _, _ = build_skeleton(run, config, offline=offline)
    shapes = probe(run, config, model, lambda model, tokens_NT: model.hook_shapes(tokens_NT), offline=offline)
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
    n, t = PROBE_SHAPE
    if shape[:2] == (n, t):
        return ("context", "token", *map(str, shape[2:]))
    return tuple({n: "context", t: "token", n * t: "context*token"}.get(size, str(size)) for size in shape)


def check_hooks(model: LanguageModel, hooks: Sequence[str], run: BaseRun) -> None:
    """Refuse hooks that the model does not have.

    Raises:
        UserError: Names the unknown hook and the nearest ones that exist.
    """
    known = model.hook_names()
    for hook in (each for name in hooks for each in hooks_in(name)):
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


def _widths(model: LanguageModel, tokens_NT: Tensor, hooks: Sequence[str], head_index: int | None) -> dict[str, int]:
    single = list(dict.fromkeys(each for name in hooks for each in hooks_in(name)))
    try:
        acts = model.activations(tokens_NT, single)
    except UnusableHookError as error:
        raise UserError(f"base.hook_name: {error}; choose another hook") from error
    for hook in single:
        if acts[hook].shape[:2] != tokens_NT.shape:
            n_contexts, n_tokens = tokens_NT.shape
            raise UserError(
                f"base.hook_name: {hook!r} gives {tuple(acts[hook].shape)} for {n_contexts} contexts of {n_tokens} tokens, "
                "not one row of activations per token; choose another hook"
            )
    widths = {hook: shape_activations(acts[hook], head_index).shape[-1] for hook in single}
    for name in hooks:
        own = {hook: widths[hook] for hook in hooks_in(name)}
        if len(set(own.values())) > 1:
            listed = ", ".join(f"{hook} is {width}" for hook, width in own.items())
            raise UserError(f"base.hook_name: hooks that are read together must be of one width: {listed} wide")
    return {name: sum(widths[hook] for hook in hooks_in(name)) for name in hooks}
