"""Which TransformerLens hook point a Hugging Face module corresponds to."""

from __future__ import annotations

import re

_BLOCKS = ("model.layers", "transformer.h", "gpt_neox.layers", "model.decoder.layers")
"""Where the architectures that TransformerLens knows keep their blocks; a block's output is the residual stream."""

_INSIDE = {
    # Only where the module's output is what the block adds to the residual stream in every architecture of that
    # naming: Gemma 2 normalises the output of `model.layers.N.mlp` first, Bloom adds the residual inside its mlp.
    "transformer.h": {"attn": "hook_attn_out"},
    "gpt_neox.layers": {"attention": "hook_attn_out", "mlp": "hook_mlp_out"},
}


def transformer_lens_hook(hook: str) -> str | None:
    """Return the TransformerLens name of a Hugging Face module, as SAELens' hooked models know it.

    Args:
        hook: Such as `model.layers.12`.

    Returns:
        Such as `blocks.12.hook_resid_post`; None where none corresponds for certain, or `hook` is such a name already.
    """
    match = re.fullmatch(rf"({'|'.join(map(re.escape, _BLOCKS))})\.(\d+)(?:\.(\w+))?", hook)
    if match is None:
        return None
    blocks, layer, inside = match.groups()
    point = "hook_resid_post" if inside is None else _INSIDE.get(blocks, {}).get(inside)
    return None if point is None else f"blocks.{layer}.{point}"
