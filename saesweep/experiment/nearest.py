"""Did you mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ELSEWHERE = {
    **dict.fromkeys(("learning_rate", "max_lr", "optimizer_lr"), "lr"),
    **dict.fromkeys(
        ("dict_size", "dictionary_size", "d_dict", "d_hidden", "n_latents", "num_latents", "n_features"), "d_sae"
    ),
    **dict.fromkeys(("activation_fn", "activation_fn_str", "sae_type", "trainer"), "architecture"),
    **dict.fromkeys(("layer", "layer_name", "submodule_name", "hookpoint", "hookpoints"), "hook_name"),
    **dict.fromkeys(("l1_penalty", "l1_coeff", "l1_lambda"), "l1_coefficient"),
    **dict.fromkeys(("sparsity_penalty", "l0_lambda"), "l0_coefficient"),
    **dict.fromkeys(("warmup_steps", "lr_warmup"), "lr_warm_up_steps"),
    **dict.fromkeys(("total_tokens", "num_tokens", "n_tokens", "max_tokens"), "training_tokens"),
    **dict.fromkeys(("vanilla", "relu", "l1"), "standard"),
    **dict.fromkeys(("grid_search", "gridsampler", "brute"), "grid"),
    **dict.fromkeys(("fp16", "half"), "float16"),
    **dict.fromkeys(("fp32", "float"), "float32"),
}
"""Words of other tools (SAELens up to version 5, dictionary_learning, sparsify, Optuna) -> ours."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like this one; for dotted paths, one whose last part is this word counts as near.

    A word that other tools have for it is nearer than one that only looks like it.
    """
    options = list(known)
    block, dot, name = word.rpartition(".")
    meant = f"{block}{dot}{_ELSEWHERE.get(name.lower(), name)}"
    if meant != word and meant in options:
        return meant
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return close[0]
    lower = word.lower()
    begun = [option for option in options if option.lower() == lower or (len(word) > 3 and option.startswith(lower))]
    if begun:
        return begun[0]
    last = word.rsplit(".", 1)[-1]
    by_last = {option.rsplit(".", 1)[-1]: option for option in options}
    close = difflib.get_close_matches(last, by_last, n=1, cutoff=0.8)
    return by_last[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or nothing where no known word is near."""
    match = nearest(word, known)
    return f"; did you mean {match!r}?" if match is not None else ""
