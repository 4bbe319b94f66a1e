"""Datasets on the Hub, through the real clients against a stub of its endpoints."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from saesweep.activations import check_source
from saesweep.activations.documents import MapDocuments, StreamDocuments, open_documents
from saesweep.activations.pretokenize import pretokenize
from saesweep.errors import UserError
from saesweep.specs.experiment import EvaluationSpec
from saesweep.specs.pretokenize import PretokenizeSpec
from tests.activations.cache.runs import save_texts
from tests.models.tiny import run_of, save_gpt2
from tests.publish.hub_stub import StubHub, connected

EVALUATION = EvaluationSpec(select_tokens=64, test_tokens=64)
pytestmark = [
    # The Hub's client itself sends large files in a way that its HTTP library deprecates.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("leaky_streams"),
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubHub]:
    with connected(monkeypatch, tmp_path / "client") as stub:
        yield stub


def texts_of(**fields: Any) -> list[Any]:
    documents = open_documents(run_of(dataset_path="me/words", **fields))
    if isinstance(documents, StreamDocuments):
        return list(documents.iterate(0))
    return documents.read(range(documents.size))


@pytest.mark.parametrize("streaming", [False, True])
def test_splits_configurations_and_files(hub: StubHub, streaming: bool) -> None:
    parts = {"english/train": "ab", "english/validation": "c", "french/train": "d"}
    configs = [{"config_name": name, "data_dir": name} for name in ("english", "french")]
    readme = f"---\nconfigs: {json.dumps(configs)}\n---\n"
    hub.repos["me/words"] = {"main": {"README.md": readme.encode()}}
    for name, letters in parts.items():
        content = io.BytesIO()
        datasets.Dataset.from_dict({"text": list(letters)}).to_parquet(content)
        hub.files("me/words")[f"{name}-00000-of-00001.parquet"] = content.getvalue()
    assert texts_of(streaming=streaming, dataset_name="english") == ["a", "b"]
    assert texts_of(streaming=streaming, dataset_name="english", split="validation") == ["c"]
    assert texts_of(streaming=streaming, dataset_name="french") == ["d"]
    assert texts_of(streaming=streaming, data_files=["french/*.parquet"]) == ["d"]
    for fields, said in (
        ({}, "base.dataset_name: missing; me/words has the configurations english, french"),
        (
            {"dataset_name": "frensh"},
            "base.dataset_name: me/words has no configuration 'frensh'; did you mean 'french'?",
        ),
        (
            {"dataset_name": "english", "split": "valid"},
            "base.split: me/words has no split 'valid'; did you mean 'valid",
        ),
        (
            {"data_files": ["french/train-00000-of-00002.parquet"]},
            "base.data_files: me/words has no file 'french/train-00000-of-00002.parquet'; did you mean 'fr",
        ),
    ):
        with pytest.raises(UserError) as caught:
            texts_of(streaming=streaming, **fields)
        assert str(caught.value).startswith(said)


def test_a_dataset_that_is_not_there(hub: StubHub) -> None:
    with pytest.raises(UserError, match=r"base\.dataset_path: me/words could not be downloaded or read"):
        texts_of()


def test_a_pre_tokenised_dataset_there_and_back(hub: StubHub, llama: Path, tmp_path: Path) -> None:
    texts = save_texts(tmp_path / "texts.jsonl")
    fields = {"tokenizer_name": str(llama), "dataset_path": str(texts), "context_size": 16, "seed": 3}
    target = {"save_path": str(tmp_path / "result"), "hf_repo_id": "me/words", "hf_num_shards": 2}
    done = pretokenize(PretokenizeSpec.model_validate({**fields, **target, "hf_is_private_repo": True}))
    files = hub.files("me/words")
    assert hub.private["me/words"] is True
    assert sorted(name for name in files if name.endswith(".parquet")) == [
        f"data/train-{number:05d}-of-00002.parquet" for number in range(2)
    ]
    assert json.loads(files["sae_lens.json"])["context_size"] == 16
    run = run_of(model_name=str(llama), dataset_path="me/words", streaming=False)
    documents = open_documents(run)
    assert isinstance(documents, MapDocuments)
    assert documents.is_tokenized
    assert documents.read(range(documents.size)) == list(datasets.load_from_disk(str(done.path))["input_ids"])
    assert check_source(run, EVALUATION, ["model.layers.0"], training_tokens=64).warnings == ()
    # The same texts with another model's tokenizer: its description on the Hub tells.
    other = save_gpt2(tmp_path / "gpt2")
    vocabulary = json.loads((other / "tokenizer.json").read_text())
    vocabulary["model"]["vocab"]["w119"], vocabulary["model"]["vocab"]["w118"] = 121, 122
    (other / "tokenizer.json").write_text(json.dumps(vocabulary))
    asked = run.model_copy(update={"model_name": str(other)})
    with pytest.raises(UserError, match=r"was tokenised with .* whose vocabulary is not that of"):
        check_source(asked, EVALUATION, ["transformer.h.0"], training_tokens=64)
    del files["saesweep.json"]  # as SAELens writes it
    (tmp_path / "client").rename(tmp_path / "earlier")
    with pytest.raises(UserError, match=r"was tokenised with .* whose vocabulary is not that of"):
        check_source(asked, EVALUATION, ["transformer.h.0"], training_tokens=64)


def test_a_failed_upload_keeps_the_dataset(hub: StubHub, llama: Path, tmp_path: Path) -> None:
    texts = save_texts(tmp_path / "texts.jsonl")
    fields = {"tokenizer_name": str(llama), "dataset_path": str(texts), "context_size": 16, "seed": 3}
    spec = PretokenizeSpec.model_validate(
        {**fields, "save_path": str(tmp_path / "result"), "hf_repo_id": "me/words", "hf_num_shards": 1}
    )
    hub.faults += [("POST", "/preupload/", 403)]
    with pytest.raises(UserError, match=r"hf_repo_id: me/words could not be uploaded: .* complete in .*same command"):
        pretokenize(spec)
    pretokenize(spec)
    assert "data/train-00000-of-00001.parquet" in hub.files("me/words")
