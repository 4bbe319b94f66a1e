"""Packing against rows that SAELens 6.54.12 made (`concat_and_batch_sequences`) of the same documents."""

import json
from pathlib import Path
from typing import Any

import pytest

from saesweep.activations.packing import Packer, Packing

GOLDEN = json.loads(Path(__file__).with_name("saelens_packing.json").read_text())


@pytest.mark.parametrize("disable_concat", [False, True])
@pytest.mark.parametrize("context_size", [2, 3, 5])
def test_rows_equal_saelens(disable_concat: bool, context_size: int) -> None:
    cases: list[dict[str, Any]] = [
        case
        for case in GOLDEN["cases"]
        if (case["disable_concat"], case["context_size"]) == (disable_concat, context_size)
    ]
    assert len(cases) == 18
    for case in cases:
        packing = Packing(
            context_size=context_size,
            begin_token=case["begin_batch"],
            separator_token=case["separator"],
            begin_sequence_token=case["begin_sequence"],
            concatenate=not disable_concat,
            is_tokenized=False,
        )
        packer = Packer(packing)
        assert [row for tokens in GOLDEN["documents"] for row, _ in packer.pack(tokens)] == case["rows"], case
