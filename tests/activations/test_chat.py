"""Conversations, formatted by the tokenizer's chat template."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from saesweep.activations import check_source, open_source
from saesweep.activations.documents import MapDocuments, open_documents
from saesweep.activations.encoding import encode_documents
from saesweep.errors import UserError
from saesweep.specs.base_run import BaseRun
from saesweep.specs.experiment import EvaluationSpec
from tests.models.tiny import BOS, EOS, run_of, save_llama, word_id

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    "<s> {{ 'w100' if m['role'] == 'user' else 'w101' }} {{ m['content'] }} </s> {% endfor %}"
)
EVALUATION = EvaluationSpec(select_tokens=64, test_tokens=64)


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    folder = save_llama(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def put(folder: Path, column: str, cells: list[Any]) -> str:
    file = folder / "chat.jsonl"
    file.write_text("".join(json.dumps({"id": str(n), column: cell}) + "\n" for n, cell in enumerate(cells)))
    return str(file)


def run(chat_model: Path, dataset: str, **fields: Any) -> BaseRun:
    return run_of(model_name=str(chat_model), dataset_path=dataset, use_chat_formatting=True, streaming=False, **fields)


def refuse(document: Any, reason: str) -> None:
    raise AssertionError(reason)


TALK = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3"}]
IDS = [BOS, word_id(100), word_id(1), word_id(2), EOS, BOS, word_id(101), word_id(3), EOS]


@pytest.mark.parametrize("column", ["conversation", "conversations", "messages"])
def test_conversations_become_the_template_s_tokens(column: str, chat_model: Path, tmp_path: Path) -> None:
    documents = open_documents(run(chat_model, put(tmp_path, column, [TALK, TALK[:1]])))
    assert isinstance(documents, MapDocuments)
    assert documents.column == column
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    assert encode_documents(tokenizer, documents.read([0, 1]), refuse) == [IDS, IDS[:5]]


def test_text_is_a_message_of_a_user(chat_model: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("w1 w2\n")
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    for dataset in (put(tmp_path, "text", ["w1 w2"]), str(lines)):
        documents = open_documents(run(chat_model, dataset))
        assert isinstance(documents, MapDocuments)
        assert encode_documents(tokenizer, documents.read([0]), refuse) == [IDS[:5]]


def test_a_stream_of_activations_from_conversations(chat_model: Path, tmp_path: Path) -> None:
    dataset = put(tmp_path, "messages", [TALK * 8] * 60)
    for streaming in (False, True):
        asked = run(chat_model, dataset).model_copy(update={"streaming": streaming})
        check_source(asked, EVALUATION, ["model.layers.1"], training_tokens=256)
        source = open_source(asked, EVALUATION, ["model.layers.1"])
        assert source.stream.next_batch()["model.layers.1"].shape == (64, 32)
        assert source.select.tokens_NT is not None
        assert word_id(101) in source.select.tokens_NT
        source.close()


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("story", TALK, "no column of conversations (conversation, conversations, messages) and no text column; its columns: id, story"),
        ("messages", [{"from": "human", "value": "w1"}], "a list of messages with `role` and `content` is needed"),
        ("messages", [{"role": "system", "content": "w1"}], "refuses a conversation: no system messages"),
    ],
)  # fmt: skip
def test_what_is_no_conversation(column: str, cell: Any, said: str, chat_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        check_source(
            run(chat_model, put(tmp_path, column, [cell] * 9)), EVALUATION, ["model.layers.1"], training_tokens=64
        )
    assert said in str(caught.value)


def test_a_tokenizer_without_a_template(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no chat template"):
        check_source(run(llama, put(tmp_path, "messages", [TALK])), EVALUATION, ["model.layers.1"], training_tokens=64)
