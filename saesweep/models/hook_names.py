"""The TransformerLens name of a Hugging Face module's output, where one corresponds."""

from __future__ import annotations

import re

_LAYERS = r"(?:model|transformer|gpt_neox|model\.model|language_model)\.(?:layers|h)\.(\d+)"
_RESIDUAL = re.compile(_LAYERS)


def transformer_lens_hook(name: str) -> str | None:
    """Return the TransformerLens hook point with the same activations as a hook, or None where none is known.

    TransformerLens names are returned as they are. Of the others only a decoder layer's output is mapped, to the residual
    stream: what follows an MLP or attention module differs between model families (Gemma normalises it again).
    """
    if name.startswith(("blocks.", "hook_")):
        return name
    match = _RESIDUAL.fullmatch(name)
    return f"blocks.{match[1]}.hook_resid_post" if match else None
