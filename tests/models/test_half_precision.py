"""A model of 16-bit weights on a processor without products of such numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saesweep.models.device import slow_half_precision
from saesweep.models.inspection import ModelFacts

HALF = ModelFacts(
    hooks={"model.layers.1": 64},
    d_vocab=100,
    n_token_ids=100,
    context_limit=None,
    n_parameters=1000,
    weight_bytes=2000,
    has_lm_head=True,
)


@pytest.mark.parametrize(
    ("facts", "device", "flags", "is_slow"),
    [
        (HALF, "cpu", "flags : fpu avx2 avx512f", True),
        (HALF, "cpu", "flags : fpu avx512f avx512_bf16", False),
        (HALF, "cpu", "Features : fp asimd bf16", False),
        (HALF, "cuda", "flags : fpu avx2", False),
        (replace(HALF, weight_bytes=4000), "cpu", "flags : fpu avx2", False),
        (replace(HALF, weight_bytes=1000), "cpu", "flags : fpu avx2", False),  # quantised: nothing is known of it
        (HALF, "cpu", None, False),
    ],
)
def test_what_is_said(facts: ModelFacts, device: str, flags: str | None, is_slow: bool, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(flags)
    said = slow_half_precision(facts, device, file)
    assert (said is not None) == is_slow
    if said is not None:
        assert "{dtype: float32}" in said
