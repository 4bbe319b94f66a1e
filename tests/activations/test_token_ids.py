"""Rows of token ids that a model cannot read, and text whose tokens it has no embedding for."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from saesweep.activations import check_source, open_source
from saesweep.errors import UserError
from saesweep.specs.base_run import BaseRun
from saesweep.specs.experiment import EvaluationSpec
from tests.models.tiny import D_VOCAB, WORDS, run_of, save_llama, word_id

HOOK = "model.layers.0"
EVALUATION = EvaluationSpec(select_tokens=64, test_tokens=64)
ROWS = [[word_id(random.Random(16 * row + at).randrange(120)) for at in range(16)] for row in range(400)]


def run(model: Path, dataset: Path, **fields: object) -> BaseRun:
    return run_of(**{"model_name": str(model), "dataset_path": str(dataset), "streaming": False, **fields})


def saved(file: Path, rows: list[list[int]]) -> Path:
    file.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROWS[201][:9], "row 201: it has 9 tokens, fewer than the 16 of a context"),
        ([*ROWS[201][:5], D_VOCAB, *ROWS[201][6:]], f"row 201: it holds token id {D_VOCAB}"),
    ],
)
def test_one_unusable_row_is_left_out_counted_and_named(
    row: list[int], reason: str, streaming: bool, llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*ROWS[:201], row, *ROWS[202:]]
    source = open_source(run(llama, saved(tmp_path / "a.jsonl", rows), streaming=streaming), EVALUATION, [HOOK])
    tokens = source.stream._source  # type: ignore[attr-defined]
    seen = {tuple(context) for context in tokens.take(2 * 400)}
    assert seen <= {tuple(each) for each in ROWS} - {tuple(ROWS[201])}
    assert len(seen) == 400 - 1 - 8
    assert tokens.unreadable_rows == 1
    assert [reason in record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()] == [
        True
    ]
    source.close()


def test_a_resumed_stream_leaves_the_same_row_out(llama: Path, tmp_path: Path) -> None:
    rows = [*ROWS[:201], ROWS[201][:9], *ROWS[202:]]
    asked = run(llama, saved(tmp_path / "a.jsonl", rows))

    def source_of() -> object:
        return open_source(asked, EVALUATION, [HOOK]).stream._source  # type: ignore[attr-defined]

    whole, cut = source_of(), source_of()
    expected = whole.take(700)  # type: ignore[attr-defined]
    cut.take(333)  # type: ignore[attr-defined]
    again = source_of()
    again.load_state(cut.state())  # type: ignore[attr-defined]
    assert np.array_equal(again.take(367), expected[333:])  # type: ignore[attr-defined]
    for each in (whole, cut, again):
        each.close()  # type: ignore[attr-defined]


def test_the_first_look_tells_of_them(llama: Path, tmp_path: Path) -> None:
    rows = [row[:9] if number % 4 == 0 else row for number, row in enumerate(ROWS[:200])]
    (warning,) = (
        text
        for text in check_source(
            run(llama, saved(tmp_path / "a.jsonl", rows)), EVALUATION, [HOOK], training_tokens=100
        ).warnings
        if "cannot be used" in text
    )
    assert "50 of the 200 rows" in warning
    assert "fewer than the 16 of a context" in warning


@pytest.fixture
def added(tmp_path: Path) -> Path:
    """A model whose tokenizer got a token that its embedding has no row for."""
    folder = save_llama(tmp_path / "added")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["Lily"])
    tokenizer.save_pretrained(folder)
    return folder


def texts(file: Path, n_with_lily: int) -> Path:
    lines = [" ".join(random.Random(number).choices(WORDS, k=20)) for number in range(400)]
    lines[:n_with_lily] = [f"{line} Lily" for line in lines[:n_with_lily]]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_token_beyond_the_embedding_is_named_before_training(added: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"token 'Lily' \(id {D_VOCAB}\), and the model has embeddings for 0 to {D_VOCAB - 1}"
    ):
        check_source(run(added, texts(tmp_path / "a.txt", 400)), EVALUATION, [HOOK], training_tokens=100)


def test_a_tokenizer_with_more_tokens_than_the_text_uses_is_no_fault(added: Path, tmp_path: Path) -> None:
    check_source(run(added, texts(tmp_path / "a.txt", 0)), EVALUATION, [HOOK], training_tokens=100)


def test_text_with_such_a_token_is_left_out_of_a_stream_and_counted(added: Path, tmp_path: Path) -> None:
    source = open_source(run(added, texts(tmp_path / "a.txt", 3)), EVALUATION, [HOOK])
    tokens = source.stream._source  # type: ignore[attr-defined]
    assert max(max(context) for context in tokens.take(1500)) < D_VOCAB
    assert tokens.unreadable_rows == 3
    source.close()


def test_a_first_token_beyond_the_embedding_is_refused(added: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(added)
    tokenizer.bos_token = "Lily"
    tokenizer.save_pretrained(added)
    with pytest.raises(UserError, match=rf"base\.prepend_bos: the tokenizer gives token 'Lily' \(id {D_VOCAB}\)"):
        check_source(run(added, texts(tmp_path / "a.txt", 0)), EVALUATION, [HOOK], training_tokens=100)


@pytest.mark.parametrize(("n_lines", "said"), [(200, r"of .*a\.txt"), (400, r"of the 256 of .*a\.txt looked at")])
def test_documents_shorter_than_their_own_context_name_the_field_that_says_so(
    n_lines: int, said: str, llama: Path, tmp_path: Path
) -> None:
    file = texts(tmp_path / "a.txt", 0)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:n_lines]))
    asked = run(llama, file, context_size=32, disable_concat_sequences=True)
    with pytest.raises(UserError, match=rf"base\.disable_concat_sequences: no document {said} has the 32 tokens"):
        check_source(asked, EVALUATION, [HOOK], training_tokens=100)
