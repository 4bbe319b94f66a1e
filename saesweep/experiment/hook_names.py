"""Names of hooks: the input of a module, and what corresponds between Hugging Face and TransformerLens."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

INPUT = ":input"
"""After a module's name: the module's input instead of its output."""


def split_input(hook: str) -> tuple[str, bool]:
    """Return (module name, whether its input is meant) for a Hugging Face hook."""
    return hook.removesuffix(INPUT), hook.endswith(INPUT)


@dataclass(frozen=True)
class _Family:
    """Where models of one naming keep their blocks, and which modules inside write to the residual stream.

    `attention` and `mlp` are the modules whose output is *exactly* what the block adds to the residual stream, which is
    what TransformerLens' `hook_attn_out` and `hook_mlp_out` hold; None where no module's output is. `heads` is the
    projection of the joined heads: its input is `attn.hook_z`, flattened.
    """

    blocks: str
    attention: str | None
    mlp: str | None
    heads: str | None


_LLAMA = _Family("model.layers", "self_attn", "mlp", "self_attn.o_proj")
# Normalised before it is added: the norm's output is the contribution, not the module's.
_NORM_AFTER = _Family("model.layers", "post_attention_layernorm", "post_feedforward_layernorm", "self_attn.o_proj")
_GPT2 = _Family("transformer.h", "attn", "mlp", "attn.c_proj")

_FAMILIES = {
    "gpt2": _GPT2,
    "gpt_neo": replace(_GPT2, heads="attn.attention.out_proj"),
    "gptj": replace(_GPT2, heads="attn.out_proj"),
    "gpt_neox": _Family("gpt_neox.layers", "attention", "mlp", "attention.dense"),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _LLAMA,
    "stablelm": _LLAMA,
    "olmo": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _NORM_AFTER,
    "gemma3_text": _NORM_AFTER,
    "olmo2": _NORM_AFTER,
    "phi": replace(_LLAMA, heads="self_attn.dense"),
    "phi3": _LLAMA,
    "falcon": _Family("transformer.h", "self_attention", "mlp", "self_attention.dense"),
    "opt": _Family("model.decoder.layers", "self_attn", None, "self_attn.out_proj"),
    # Its attention and MLP modules add the residual stream themselves.
    "bloom": _Family("transformer.h", "self_attention.dense", "mlp.dense_4h_to_h", "self_attention.dense"),
}
"""By `config.model_type`. Every entry is compared with TransformerLens in tests/models/test_hook_map.py."""

_BY_PREFIX = {
    # Without a model type, only what holds in every architecture of that naming.
    "model.layers": _Family("model.layers", None, None, None),
    "transformer.h": _Family("transformer.h", "attn", None, None),
    "gpt_neox.layers": _FAMILIES["gpt_neox"],
    "model.decoder.layers": _Family("model.decoder.layers", None, None, None),
}


def transformer_lens_hook(hook: str, model_type: str | None = None) -> str | None:
    """Return the TransformerLens name of a Hugging Face hook, as SAELens' hooked models know it.

    Args:
        hook: Such as `model.layers.12`.
        model_type: `config.model_type`; for an unknown one, only names that mean the same in every architecture map.

    Returns:
        Such as `blocks.12.hook_resid_post`; None where none corresponds for certain, or `hook` is such a name already.
    """
    name, is_input = split_input(hook)
    for family in _families(model_type):
        # A bare body (AutoModel) has the same names without their first part.
        body, inner = family.blocks.split(".", 1)
        optional = "?" if model_type in _FAMILIES else ""
        match = re.fullmatch(rf"(?:{re.escape(body)}\.){optional}{re.escape(inner)}\.(\d+)(?:\.(.+))?", name)
        if match is None:
            continue
        layer, inside = match.groups()
        point = _points(family).get((inside, is_input))
        return None if point is None else f"blocks.{layer}.{point}"
    return None


def hugging_face_hook(hook: str, model_type: str) -> str | None:
    """Return the Hugging Face name of a TransformerLens hook point, the inverse of `transformer_lens_hook`.

    Args:
        hook: Such as `blocks.12.hook_resid_post`.
        model_type: `config.model_type`.

    Returns:
        Such as `model.layers.12`; None where none corresponds for certain.
    """
    match = re.fullmatch(r"blocks\.(\d+)\.([\w.]+)", hook)
    family = _FAMILIES.get(model_type)
    if match is None or family is None:
        return None
    layer, wanted = match.groups()
    for (inside, is_input), point in _points(family).items():
        if point == wanted:
            return f"{family.blocks}.{layer}{'' if inside is None else f'.{inside}'}{INPUT if is_input else ''}"
    return None


def blocks_of(model_type: str) -> str | None:
    """Return where models of a type keep their blocks, such as `model.layers`; None for a type that is not in the map."""
    family = _FAMILIES.get(model_type)
    return None if family is None else family.blocks


def _families(model_type: str | None) -> list[_Family]:
    if model_type is None:
        return list(_BY_PREFIX.values())
    return [_FAMILIES[model_type]] if model_type in _FAMILIES else list(_BY_PREFIX.values())


def _points(family: _Family) -> dict[tuple[str | None, bool], str]:
    """TransformerLens point by (module inside the block or None for the block, whether its input is meant)."""
    points: dict[tuple[str | None, bool], str] = {(None, False): "hook_resid_post", (None, True): "hook_resid_pre"}
    if family.attention is not None:
        points[family.attention, False] = "hook_attn_out"
    if family.mlp is not None:
        points[family.mlp, False] = "hook_mlp_out"
    if family.heads is not None:
        points[family.heads, True] = "attn.hook_z"
    return points
