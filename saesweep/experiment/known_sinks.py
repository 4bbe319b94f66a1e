"""Warns about model families that are known to have attention sinks, before any model is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from saesweep.specs import BaseRun


@dataclass(frozen=True)
class Family:
    """A family of models with sinks in its residual stream."""

    name: str
    pattern: str
    """Of the last part of a model's name, in lower case."""
    known_from: str
    special_only: bool = False
    """The sinks are at BOS, so that `exclude_special_tokens: true` leaves them out."""


# Only what was measured with this program, or what the source says about these very models.
FAMILIES = (
    Family("SmolLM2", r"smollm2", "measured on SmolLM2-135M: 35 of 8,192 tokens hold 99% of the variance at layer 12"),
    Family("Llama 2", r"llama-?2", "Sun et al. 2024, arXiv 2402.17762"),
    Family("Qwen", r"qwen", "the documentation of dictionary_learning's ActivationBuffer"),
    Family("Pythia", r"pythia", "Gallego-Feliciano et al. 2025, arXiv 2508.03616"),
    Family(
        "Gemma 3", r"gemma-?3", "measured on Gemma 3 270M: BOS holds 91% of the variance at layer 9", special_only=True
    ),
)
_RESIDUAL = re.compile(r"(\.(layers|h|blocks)|^blocks)\.\d+(\.hook_resid_(pre|mid|post))?$")


def sink_warnings(runs: Sequence[BaseRun]) -> list[str]:
    """Return a warning for each family whose residual stream is read with its sinks."""
    families = {family.name: family for run in runs if (family := _family(run)) is not None}
    return [
        f"{family.name} models have attention sinks ({family.known_from}): few tokens hold much of the variance of the "
        "residual stream, and explained variance and the scale of normalisation follow them. Set "
        + ("exclude_special_tokens: true or " if family.special_only else "")
        + "max_activation_norm_multiple: 10; `run` and `plan --calibrate` measure them"
        for family in families.values()
    ]


def _family(run: BaseRun) -> Family | None:
    if run.is_synthetic or run.model_name is None or run.max_activation_norm_multiple is not None:
        return None
    if run.seqpos_slice and len(run.seqpos_slice) > 1 and run.seqpos_slice[0]:  # begins after the first position
        return None
    if not _RESIDUAL.search(run.hook_name):
        return None
    name = run.model_name.rstrip("/").rsplit("/", 1)[-1].lower()
    for family in FAMILIES:
        if re.search(family.pattern, name):
            return None if family.special_only and run.exclude_special_tokens is True else family
    return None
