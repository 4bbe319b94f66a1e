"""Splits, configurations, files and columns by name, through a run and through `pretokenize` alike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from saesweep.activations.columns import Conversation
from saesweep.activations.documents import MapDocuments, open_documents
from saesweep.activations.pretokenize.rows import open_cells
from saesweep.errors import UserError
from saesweep.specs.pretokenize import PretokenizeSpec
from tests.models.tiny import run_of

Read = Callable[..., list[Any]]
LETTERS = "abcdefghij"


def of_run(**fields: Any) -> list[Any]:
    found = open_documents(run_of(**{"streaming": False, **fields}))
    return found.read(range(found.size)) if isinstance(found, MapDocuments) else list(found.iterate(0))


def of_pretokenize(**fields: Any) -> list[Any]:
    return list(open_cells(PretokenizeSpec.model_validate(fields)).iterate(0))


@pytest.fixture(params=[of_run, of_pretokenize], ids=["run", "pretokenize"])
def read(request: pytest.FixtureRequest) -> Any:
    return request.param


def table(*texts: str) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": list(texts), "other": [text * 2 for text in texts]})


def write(folder: Path, kind: str, **files: str) -> Path:
    """Write one file per name; its rows are the letters of the value."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, letters in files.items():
        file = folder / f"{name.replace('__', '/')}.{kind}"
        file.parent.mkdir(exist_ok=True)
        if kind == "txt":
            file.write_text("\n".join(letters))
        elif kind == "jsonl":
            file.write_text("\n".join(json.dumps({"text": each, "other": each * 2}) for each in letters))
        else:
            table(*letters).to_parquet(str(file))
    return folder


def refused(read: Read, **fields: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(**fields)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_splits_of_a_folder_by_the_names_of_its_files(read: Read, kind: str, tmp_path: Path) -> None:
    path = str(write(tmp_path / "d", kind, a="ab", train="cd", valid="ef", data__test="gh"))
    assert read(dataset_path=path) == list("abcd")
    assert read(dataset_path=path, split="validation") == list("ef")
    assert read(dataset_path=path, split="test") == list("gh")
    assert read(dataset_path=path, split="train[1:3]") == list("bc")
    assert read(dataset_path=path, split="train[50%:]+validation") == list("cdef")
    assert read(dataset_path=f"{path}/*.{kind}") == list("abcdef")
    said = refused(read, dataset_path=path, split="validatoin")
    assert "split: " in said
    assert "has no split 'validatoin'; did you mean 'validation'?; there is test, train, validation" in said
    assert "'train[50%' is no slice such as train[:10%]" in refused(read, dataset_path=path, split="train[50%")
    assert "'train[:0]' of" in refused(read, dataset_path=path, split="train[:0]")


def test_files_of_other_splits_are_mentioned(tmp_path: Path) -> None:
    path = str(write(tmp_path / "d", "txt", a="ab", valid="ef"))
    (note,) = open_documents(run_of(dataset_path=path)).notes
    assert "base.split: " in note
    assert "which are not read: validation (valid.txt)" in note
    assert open_documents(run_of(dataset_path=path, split="train+validation")).notes == ()


def test_splits_of_a_saved_dataset(read: Read, tmp_path: Path) -> None:
    path = str(tmp_path / "saved")
    datasets.DatasetDict({"train": table("a", "b", "c"), "held_out": table("d")}).save_to_disk(path)
    assert read(dataset_path=path) == list("abc")
    assert read(dataset_path=path, split="held_out") == ["d"]
    assert read(dataset_path=path, split="held_out+train[-1:]") == ["d", "c"]
    assert "did you mean 'held_out'" in refused(read, dataset_path=path, split="heldout")
    assert "is a dataset saved by save_to_disk" in refused(read, dataset_path=path, data_dir="x")


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_files_and_folders_of_a_dataset(read: Read, kind: str, tmp_path: Path) -> None:
    path = str(write(tmp_path / "d", kind, a="ab", en__b="cd", en__c="ef"))
    assert read(dataset_path=path, data_dir="en") == list("cdef")
    assert read(dataset_path=path, data_files=[f"en/c.{kind}", f"a.{kind}"]) == list("efab")
    assert read(dataset_path=path, data_dir="en", data_files=["*"]) == list("cdef")
    said = refused(read, dataset_path=path, data_files=[f"en/d.{kind}"])
    assert f"data_files: {path} has no file 'en/d.{kind}'; did you mean 'en/" in said
    assert f"data_dir: {path} has no folder 'fr'" in refused(read, dataset_path=path, data_dir="fr")
    assert "is a file" in refused(read, dataset_path=f"{path}/a.{kind}", data_dir="x")
    assert "is a glob" in refused(read, dataset_path=f"{path}/*.{kind}", dataset_name="x")
    assert "is built in" in refused(read, dataset_path="builtin:python-docs", dataset_name="x")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("leaky_streams")
def test_configurations_of_a_folder(read: Read, streaming: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", "parquet", english__train="ab", french__train="cd", french__test="ef")
    configs = [{"config_name": name, "data_dir": name} for name in ("english", "french")]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    fields = {"dataset_path": str(folder), "streaming": streaming}
    assert read(**fields, dataset_name="french") == list("cd")
    assert read(**fields, dataset_name="french", split="test") == list("ef")
    said = refused(read, **fields, dataset_name="frnech")
    assert "dataset_name: " in said
    assert "has no configuration 'frnech'; did you mean 'french'?; there is english, french" in said
    assert "did you mean 'test'" in refused(read, **fields, dataset_name="french", split="tets")


def test_a_slice_of_a_stream_is_refused(read: Read, tmp_path: Path) -> None:
    path = str(write(tmp_path / "d", "parquet", a="ab"))
    said = refused(read, dataset_path=path, split="train[:1]", streaming=True)
    assert "'train[:1]' is a slice, which a stream has not; set streaming: false" in said


def test_a_column_by_name(tmp_path: Path) -> None:
    path = str(write(tmp_path / "d", "jsonl", a="ab"))
    assert of_run(dataset_path=path, column_name="other") == ["aa", "bb"]
    said = refused(of_run, dataset_path=path, column_name="othr")
    assert said.startswith("base.column_name: ")
    assert "has no column 'othr'; did you mean 'other'?; its columns: text, other" in said
    assert "did you mean 'other'" in refused(of_pretokenize, dataset_path=path, column_name="othr")


def test_a_column_of_token_ids_or_of_conversations_by_name(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "w1"}]
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": "w1", "ids": [3, 4], "talk": talk}))
    documents = open_documents(run_of(dataset_path=str(file), column_name="ids"))
    assert documents.is_tokenized
    assert of_run(dataset_path=str(file), column_name="ids", context_size=2) == [[3, 4]]
    assert of_run(dataset_path=str(file), column_name="talk", use_chat_formatting=True) == [
        Conversation(tuple(talk), row=0)
    ]
    assert of_run(dataset_path=str(file), is_dataset_tokenized=False) == ["w1"]


def test_a_column_of_token_ids_in_another_library_s_format(tmp_path: Path) -> None:
    """As SAELens saves its datasets."""
    saved = datasets.Dataset.from_dict({"ids": [[3, 4], [5, 6]]}).with_format("torch")
    saved.save_to_disk(str(tmp_path / "saved"))
    assert of_run(dataset_path=str(tmp_path / "saved"), column_name="ids", context_size=2) == [[3, 4], [5, 6]]


def test_synthetic_activations_have_no_dataset_to_select_from() -> None:
    run = run_of(model_name=None, dataset_path="builtin:synthetic", split="test", column_name="x")
    assert {field for field, _ in run.problems()} == {"split", "column_name"}
