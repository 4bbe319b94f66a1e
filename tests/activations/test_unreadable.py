"""Rows that cannot be used are left out and counted; a dataset of nothing else is refused."""

import json
import logging
import random
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from saesweep.activations import check_source, open_source
from saesweep.activations.cache.writer import write_cache
from saesweep.activations.columns import Document
from saesweep.activations.documents import MapDocuments, StreamDocuments, open_documents
from saesweep.activations.pretokenize import pretokenize
from saesweep.activations.unreadable import MAX_IN_A_ROW, UnreadableRows
from saesweep.errors import UserError
from saesweep.specs.base_run import BaseRun
from saesweep.specs.experiment import EvaluationSpec
from saesweep.specs.pretokenize import PretokenizeSpec
from tests.models.tiny import WORDS, run_of, word_id

HOOK = "model.layers.0"
EVALUATION = EvaluationSpec(select_tokens=64, test_tokens=64)
GOOD = [" ".join(random.Random(number).choices(WORDS, k=20)) for number in range(60)]
BROKEN = ['{"text": "w1', "[1, 2]", '{"text": 4}', '{"text": null}', '{"other": "w1"}', '{"text": ["w1"]}', "\xff"]


def jsonl(file: Path, *, broken: list[str] = BROKEN) -> Path:
    """Every ninth line is broken; a blank line at the end is none."""
    lines = [json.dumps({"text": text}) for text in GOOD]
    for number, line in enumerate(broken):
        lines.insert(9 * number, line)
    file.write_bytes(("\n".join(lines) + "\n\n").encode("latin-1"))
    return file


def run(llama: Path, dataset: Path, **fields: Any) -> BaseRun:
    return run_of(**{"model_name": str(llama), "dataset_path": str(dataset), "streaming": False, **fields})


def test_lines_that_cannot_be_read_are_empty_documents(llama: Path, tmp_path: Path) -> None:
    documents = open_documents(run(llama, jsonl(tmp_path / "a.jsonl")))
    assert isinstance(documents, MapDocuments)
    for _ in range(2):  # counted once, however often they are read
        texts = documents.read(range(documents.size))
        assert [text for text in texts if text] == GOOD
        assert documents.unreadable.count == len(BROKEN)
    assert documents.unreadable.example.startswith("line 1 of")
    assert "is no JSON object" in documents.unreadable.example


def test_lines_of_text_that_are_not_utf8(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"w1\n\xff\xfe\n\nw2\n")
    documents = open_documents(run(llama, tmp_path / "a.txt"))
    assert isinstance(documents, MapDocuments)
    assert documents.read(range(documents.size)) == ["w1", "", "", "w2"]
    assert documents.unreadable.count == 1
    assert "line 2 of" in documents.unreadable.example
    assert "is not UTF-8" in documents.unreadable.example


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("leaky_streams")
@pytest.mark.parametrize("streaming", [False, True])
def test_null_cells_of_a_table(llama: Path, streaming: bool, tmp_path: Path) -> None:
    cells = [[3, 4], None, [5, None], [6, 7], [-1, 3]]
    datasets.Dataset.from_dict({"input_ids": cells}).to_parquet(str(tmp_path / "a.parquet"))
    documents = open_documents(run(llama, tmp_path / "a.parquet", streaming=streaming, context_size=2))
    rows = documents.read(range(5)) if isinstance(documents, MapDocuments) else list(documents.iterate(0))
    assert rows == [[3, 4], [], [], [6, 7], []]
    assert documents.unreadable.count == 3
    assert documents.unreadable.example == "row 1: column 'input_ids' is null"


def test_training_leaves_them_out_and_resumes(llama: Path, tmp_path: Path) -> None:
    asked = run(llama, jsonl(tmp_path / "a.jsonl"))
    (warning,) = check_source(asked, EVALUATION, [HOOK], training_tokens=64).warnings
    assert f"{len(BROKEN)} of the {len(GOOD) + len(BROKEN) + 1} rows of" in warning
    assert "cannot be used and are left out: " in warning
    whole = open_source(asked, EVALUATION, [HOOK]).stream
    batches, states = [], []
    for _ in range(60):
        states.append(whole.state())
        batches.append(whole.next_batch()[HOOK])
    assert whole.epoch > 1
    assert whole.unreadable_rows == len(BROKEN)
    for done in (0, 7, 31):
        again = open_source(asked, EVALUATION, [HOOK]).stream
        again.load_state(states[done])
        assert torch.equal(again.next_batch()[HOOK], batches[done])


def test_they_are_logged_at_powers_of_ten(caplog: pytest.LogCaptureFixture) -> None:
    rows = UnreadableRows("data")
    with caplog.at_level(logging.WARNING, "saesweep"):
        for row in range(120):
            rows.add(row, f"row {row}: null")
            rows.add(row, f"row {row}: null")
            rows.usable()
    assert [record.getMessage().split(" of data")[0].split(": ")[1] for record in caplog.records] == [
        "1 row", "10 rows", "100 rows",
    ]  # fmt: skip


def test_nothing_else_than_unusable_rows_is_an_error(llama: Path, tmp_path: Path) -> None:
    rows = UnreadableRows("data")
    for row in range(MAX_IN_A_ROW - 1):
        rows.add(row, "null")
    with pytest.raises(UserError, match=f"{MAX_IN_A_ROW} rows of data in a row cannot be used"):
        rows.add(MAX_IN_A_ROW, "null")
    (tmp_path / "a.jsonl").write_text('{"text": 3}\n' * 5 + '{"text": "w1"}\n' * 4)
    with pytest.raises(
        UserError, match=r"5 of the 9 rows .* row \d: column 'text' holds int, not text; correct the data"
    ):
        check_source(run(llama, tmp_path / "a.jsonl"), EVALUATION, [HOOK], training_tokens=64)
    (tmp_path / "b.jsonl").write_text("{\n[[\n")
    with pytest.raises(UserError, match=r"no row of .* can be read; line 1 of .* is no JSON object"):
        open_documents(run(llama, tmp_path / "b.jsonl"))


def test_pretokenize_counts_them(llama: Path, tmp_path: Path) -> None:
    fields = {"tokenizer_name": str(llama), "dataset_path": str(jsonl(tmp_path / "a.jsonl")), "context_size": 20}
    done = pretokenize(PretokenizeSpec.model_validate({**fields, "save_path": str(tmp_path / "d"), "seed": 0}))
    assert (done.documents, done.skipped) == (
        len(GOOD) + len(BROKEN) + 1,
        len(BROKEN),
    )  # a blank line is a document without tokens, as in SAELens
    tokens = {token for row in datasets.load_from_disk(str(done.path))["input_ids"] for token in row}
    assert tokens.issuperset(word_id(int(word[1:])) for word in GOOD[0].split())
    (tmp_path / "b.jsonl").write_text('{"text": 3}\n' * 9)
    with pytest.raises(UserError, match=r"9 of the 9 rows .* holds int, not text; .* another column with column_name"):
        pretokenize(
            PretokenizeSpec.model_validate(
                {**fields, "dataset_path": str(tmp_path / "b.jsonl"), "save_path": str(tmp_path / "e")}
            )
        )


def test_a_cache_of_activations_leaves_them_out_and_says_so(llama: Path, tmp_path: Path) -> None:
    said: list[str] = []
    asked = run(llama, jsonl(tmp_path / "a.jsonl"))
    write_cache(asked, EVALUATION, [HOOK], tmp_path / "cache", tokens=2048, on_warning=said.append)
    assert "looked at cannot be used and are left out" in said[0]
    assert f"{len(BROKEN)} of the dataset's rows that were read could not be used" in said[-1]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("leaky_streams")
@pytest.mark.parametrize("streaming", [False, True])
def test_a_damaged_file_is_named(llama: Path, streaming: bool, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        datasets.Dataset.from_dict({"text": [f"{name}{n} " * 50 for n in range(5000)]}).to_parquet(
            str(tmp_path / f"{name}.parquet")
        )
    content = bytearray((tmp_path / "b.parquet").read_bytes())
    content[len(content) // 3 : len(content) // 3 + 500] = b"\xff" * 500
    (tmp_path / "b.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"base\.dataset_path: .*\(file .*b\.parquet\): "):
        read_all(run(llama, tmp_path, streaming=streaming))


def read_all(asked: BaseRun) -> list[Document]:
    documents = open_documents(asked)
    assert isinstance(documents, StreamDocuments)  # the other kind reads everything when it is opened
    return list(documents.iterate(0))
