"""The classes of language models that a run may name."""

from __future__ import annotations

import re

BRIDGE_CLASSES = ("TransformerBridge", "HookedTransformer")
"""Names of TransformerLens' model class: the present one, and that of SAELens' files (up to TransformerLens 3)."""
WEIGHT_PROCESSING = (
    "center_writing_weights",
    "center_unembed",
    "fold_ln",
    "fold_value_biases",
    "refactor_factored_attn_matrices",
)
"""Weight processing of HookedTransformer. It changes the activations, so SAELens' default is off, and here it is refused."""
MODEL_CLASS_ADVICE = (
    "known: AutoModelForCausalLM, TransformerBridge, or a model class of transformers such as AutoModel or BertModel"
)


def is_model_class(name: str) -> bool:
    """Return whether a name can be a model class of transformers; whether it is one, the preflight finds out."""
    return re.fullmatch(r"[A-Z]\w*(Model\w*|For[A-Z]\w+)", name) is not None
