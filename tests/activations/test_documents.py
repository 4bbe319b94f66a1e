"""Where documents come from, which column they are in, and what is said when that fails."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from saesweep.activations.columns import Document
from saesweep.activations.documents import MapDocuments, StreamDocuments, open_documents
from saesweep.activations.encoding import encode_documents
from saesweep.errors import UserError
from tests.models.tiny import BOS, run_of, word_id

TEXTS = ["w1 w2", "w3", " w4  w5 "]


def everything(**fields: Any) -> list[Document]:
    """All documents; a streaming source also from the middle, a random-access one also out of order."""
    found = open_documents(run_of(**fields))
    if isinstance(found, StreamDocuments):
        rows = list(found.iterate(0))
        assert list(found.iterate(1)) == rows[1:]
        return rows
    rows = found.read(range(found.size))
    assert found.read([found.size - 1, 0]) == [rows[-1], rows[0]]
    return rows


def message(**fields: Any) -> str:
    with pytest.raises(UserError) as caught:
        everything(**fields)
    return str(caught.value)


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def refuse(document: Any, reason: str) -> None:
    raise AssertionError(reason)


def test_text_files_hold_one_document_a_line(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("w1 w2\n\n  \nw3\r\n")
    (tmp_path / "c.txt").write_text("ünïcödé — no newline at the end")
    (tmp_path / "README.md").write_text("no data")
    expected = ["w1 w2", "", "", "w3", "ünïcödé — no newline at the end"]
    assert everything(dataset_path=str(tmp_path)) == expected
    assert everything(dataset_path=str(tmp_path / "*.txt")) == expected
    assert everything(dataset_path=str(tmp_path / "c.txt")) == expected[-1:]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("leaky_streams")
@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_tables(tmp_path: Path, kind: str, streaming: bool) -> None:
    rows = [{"title": str(number), "text": text} for number, text in enumerate(TEXTS)]
    file = tmp_path / f"data.{kind}"
    if kind == "jsonl":
        write_rows(file, rows)
    elif kind == "json":
        file.write_text(json.dumps(rows))
    else:
        table = datasets.Dataset.from_list(rows)
        {"csv": table.to_csv, "parquet": table.to_parquet}[kind](str(file))
    found = open_documents(run_of(dataset_path=str(file), streaming=streaming))
    is_stream = streaming and kind != "jsonl"  # JSON Lines are read by position, as text files are
    assert isinstance(found, StreamDocuments if is_stream else MapDocuments)
    assert found.column == "text"
    assert everything(dataset_path=str(file), streaming=streaming) == TEXTS


def test_the_first_line_need_not_have_the_column(tmp_path: Path) -> None:
    rows = [{"version": 2}, {"version": 2, "text": None}, {"text": "w1"}, {"input": "x"}]
    found = open_documents(run_of(dataset_path=str(write_rows(tmp_path / "a.jsonl", rows))))
    assert isinstance(found, MapDocuments)
    assert (found.column, found.size, found.read([2])) == ("text", 4, ["w1"])


@pytest.mark.parametrize("in_dict", [True, False])
def test_a_saved_dataset(tmp_path: Path, in_dict: bool) -> None:
    table = datasets.Dataset.from_dict({"content": TEXTS})
    (datasets.DatasetDict({"train": table}) if in_dict else table).save_to_disk(tmp_path / "saved")
    assert everything(dataset_path=str(tmp_path / "saved")) == TEXTS


def test_a_saved_dataset_without_a_train_split(tmp_path: Path) -> None:
    datasets.DatasetDict({"test": datasets.Dataset.from_dict({"text": TEXTS})}).save_to_disk(tmp_path / "saved")
    assert "has no split 'train'; there is test" in message(dataset_path=str(tmp_path / "saved"))


@pytest.mark.parametrize("column", ["input_ids", "tokens"])
def test_token_columns_are_detected_and_win(tmp_path: Path, column: str) -> None:
    file = str(write_rows(tmp_path / "a.jsonl", [{"text": "w1", column: [3, 4]}, {"text": "w2", column: [5, 6]}]))
    assert everything(dataset_path=file, context_size=2) == [[3, 4], [5, 6]]
    assert open_documents(run_of(dataset_path=file)).is_tokenized
    assert everything(dataset_path=file, context_size=2, is_dataset_tokenized=True) == [[3, 4], [5, 6]]
    assert everything(dataset_path=file, is_dataset_tokenized=False) == ["w1", "w2"]


def test_a_missing_column_lists_those_that_are_there(tmp_path: Path) -> None:
    file = str(write_rows(tmp_path / "a.jsonl", [{"title": "x", "body": "y"}]))
    text = message(dataset_path=file)
    assert "no text column" in text
    assert "title, body" in text
    text = message(dataset_path=file, is_dataset_tokenized=True)
    assert text.startswith("base.is_dataset_tokenized: ")
    assert "title, body" in text


def test_cells(tmp_path: Path) -> None:
    file = str(write_rows(tmp_path / "a.jsonl", [{"text": "w1"}, {"text": None}]))
    assert everything(dataset_path=file) == ["w1", ""]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_text_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    assert "is empty" in message(dataset_path=str(tmp_path / "a.txt"))


@pytest.mark.parametrize("streaming", [True, False])
def test_an_empty_table(tmp_path: Path, streaming: bool) -> None:
    (tmp_path / "a.jsonl").write_text("")
    assert "is empty" in message(dataset_path=str(tmp_path / "a.jsonl"), streaming=streaming)
    datasets.Dataset.from_dict({"text": []}).to_parquet(str(tmp_path / "b.parquet"))
    assert "is empty" in message(dataset_path=str(tmp_path / "b.parquet"), streaming=streaming)


@pytest.mark.parametrize("streaming", [True, False])
def test_files_that_are_not_what_they_say(tmp_path: Path, streaming: bool) -> None:
    (tmp_path / "a.parquet").write_bytes(b"this is no parquet file at all")
    assert message(dataset_path=str(tmp_path / "a.parquet"), streaming=streaming).startswith("base.dataset_path: ")
    (tmp_path / "b.jsonl").write_text('{"text": "w1"\n[[[')
    assert message(dataset_path=str(tmp_path / "b.jsonl"), streaming=streaming).startswith("base.dataset_path: ")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe bad\n")
    assert "line 1 of" in message(dataset_path=str(tmp_path / "c.txt"))


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    assert "does not exist" in message(dataset_path=str(tmp_path / "nowhere"))
    assert "does not exist" in message(dataset_path="missing.jsonl")
    assert "holds no data files" in message(dataset_path=str(tmp_path))
    assert "holds no data files" in message(dataset_path=str(tmp_path / "*.txt"))
    (tmp_path / "a.bin").write_bytes(b"x")
    assert "the format of" in message(dataset_path=str(tmp_path / "a.bin"))
    (tmp_path / "a.txt").write_text("x")
    write_rows(tmp_path / "b.jsonl", [{"text": "y"}])
    (tmp_path / "a.bin").unlink()
    assert "mixes formats (json lines, text)" in message(dataset_path=str(tmp_path))


def test_the_built_in_text() -> None:
    found = open_documents(run_of(dataset_path="builtin:python-docs"))
    assert isinstance(found, MapDocuments)
    assert found.size > 500
    assert all(isinstance(text, str) and len(text) > 50 for text in found.read([0, found.size - 1]))
    assert "there is builtin:python-docs" in message(dataset_path="builtin:java-docs")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (True, "nobody/none could not be downloaded or read"),
        (False, "nobody/none is not on this machine, and the Hub"),
    ],
)
def test_a_hub_dataset_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, answers: bool, said: str) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'nobody/none' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    monkeypatch.setattr("saesweep.hub._answers", lambda endpoint: answers)
    text = message(dataset_path="nobody/none")
    assert said in text
    assert "Couldn't reach" in text


def test_documents_are_encoded_without_special_tokens(llama: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llama)
    assert tokenizer("w1")["input_ids"] == [BOS, word_id(1)]  # what must not happen to a document
    ids = encode_documents(tokenizer, ["w1 w2", "", "w3 " * 100], refuse)
    assert ids == [[word_id(1), word_id(2)], [], [word_id(3)] * 100]
    assert encode_documents(tokenizer, [[5, 6], [7]], refuse) == [[5, 6], [7]]
