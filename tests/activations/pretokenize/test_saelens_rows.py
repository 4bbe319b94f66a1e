"""The rows of `pretokenize` are those that SAELens' PretokenizeRunner writes, whatever the tokenizer adds by itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from saesweep.activations.pretokenize import pretokenize
from saesweep.specs.pretokenize import PretokenizeSpec
from tests.activations.pretokenize.test_pretokenize import rows_of
from tests.interop.saelens_pretokenize import BASE, TOKENIZERS, VARIANTS, documents, save_tokenizer

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "saelens_rows.json").read_text())["cases"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saelens-rows")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents()))
    for name, template in TOKENIZERS.items():
        save_tokenizer(folder / name, template)
    return folder


def test_the_record_has_every_case_and_they_differ() -> None:
    assert [(case["tokenizer"], case["options"]) for case in CASES] == [(t, v) for t in TOKENIZERS for v in VARIANTS]
    # What the tokenizer adds makes more rows.
    options = {"sequence_separator_token": None}
    plain, bos, both = (len(c["rows"]) for c in CASES if c["options"] == options)
    assert plain < bos < both


@pytest.mark.parametrize("case", CASES, ids=[f"{case['tokenizer']}-{case['options']}" for case in CASES])
def test_rows_are_equal(case: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    spec = PretokenizeSpec.model_validate(
        {
            **BASE,
            **case["options"],
            "tokenizer_name": str(folder / case["tokenizer"]),
            "dataset_path": str(folder / "texts.jsonl"),
            "save_path": str(tmp_path / "rows"),
        }
    )
    assert rows_of(pretokenize(spec).path) == case["rows"]
