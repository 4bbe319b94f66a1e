"""`pretokenize`: the rows, the files around them, and that nothing which goes wrong changes the result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from saesweep.activations import check_source, open_source
from saesweep.activations.pretokenize import PretokenizeProgress, parts, pretokenize
from saesweep.activations.pretokenize import run as run_module
from saesweep.errors import UserError
from saesweep.specs import EvaluationSpec
from saesweep.specs.pretokenize import PretokenizeSpec
from tests.activations.cache.runs import save_texts
from tests.interop.saelens_pretokenize import save_tokenizer
from tests.models.tiny import BOS, EOS, run_of, word_id

BATCH = 30
PART_TOKENS = 1000
EVALUATION = EvaluationSpec(select_tokens=64, test_tokens=64)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl")


@pytest.fixture
def spec(llama: Path, texts: Path, tmp_path: Path) -> PretokenizeSpec:
    return spec_of(llama, texts, tmp_path / "result")


def spec_of(llama: Path, texts: Path, target: Path, **fields: Any) -> PretokenizeSpec:
    values = {
        "tokenizer_name": str(llama),
        "dataset_path": str(texts),
        "context_size": 16,
        "pretokenize_batch_size": BATCH,
        "seed": 3,
        "save_path": str(target),
    }
    return PretokenizeSpec.model_validate({**values, **fields})


def changed(spec: PretokenizeSpec, **fields: Any) -> PretokenizeSpec:
    return PretokenizeSpec.model_validate({**spec.model_dump(), **fields})


def rows_of(folder: str | Path) -> list[list[int]]:
    return list(datasets.load_from_disk(str(folder))["input_ids"])


def files_of(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def word_ids(texts: Path) -> list[list[int]]:
    return [
        [word_id(int(word[1:])) for word in json.loads(line)["text"].split()] for line in texts.read_text().splitlines()
    ]


def test_rows_are_packed_documents_in_a_new_order(spec: PretokenizeSpec, texts: Path) -> None:
    done = pretokenize(changed(spec, shuffle=False))
    rows = rows_of(done.path)
    expected = []
    documents = word_ids(texts)
    for start in range(0, len(documents), BATCH):
        tokens = [token for document in documents[start : start + BATCH] for token in (BOS, *document)]
        # A row begins with BOS; where a document is cut, one is put in.
        row: list[int] = []
        for token in tokens:
            if not row and token != BOS:
                row = [BOS]
            row.append(token)
            if len(row) == 16:
                expected.append(row)
                row = []
    assert rows == expected
    assert (done.rows, done.tokens, done.documents, done.skipped) == (len(rows), 16 * len(rows), 300, 0)


def test_the_shuffle_is_seeded(spec: PretokenizeSpec, tmp_path: Path) -> None:
    plain = rows_of(pretokenize(changed(spec, shuffle=False, save_path=str(tmp_path / "plain"))).path)
    first = rows_of(pretokenize(spec).path)
    other = rows_of(pretokenize(changed(spec, seed=4, save_path=str(tmp_path / "other"))).path)
    assert first != plain
    assert first != other
    assert sorted(first) == sorted(plain) == sorted(other)


def test_a_drawn_seed_is_noted(spec: PretokenizeSpec, tmp_path: Path) -> None:
    done = pretokenize(changed(spec, seed=None))
    seed = json.loads((done.path / "sae_lens.json").read_text())["seed"]
    again = pretokenize(changed(spec, seed=seed, save_path=str(tmp_path / "again")))
    assert rows_of(again.path) == rows_of(done.path)


def test_saelens_metadata(spec: PretokenizeSpec, llama: Path, texts: Path) -> None:
    done = pretokenize(spec)
    assert json.loads((done.path / "sae_lens.json").read_text()) == {
        "sae_lens_version": "6.54.12",
        "tokenizer_name": str(llama),
        "original_dataset": str(texts),
        "original_dataset_name": None,
        "original_split": "train",
        "original_data_files": None,
        "original_column_name": "text",
        "context_size": 16,
        "shuffled": True,
        "seed": 3,
        "begin_batch_token": "bos",
        "begin_sequence_token": None,
        "sequence_separator_token": "bos",
        "disable_concat_sequences": False,
        "use_chat_formatting": False,
    }


def test_special_tokens(spec: PretokenizeSpec, tmp_path: Path) -> None:
    fields = {"begin_batch_token": None, "sequence_separator_token": "eos", "begin_sequence_token": 7, "shuffle": False}
    tokens = [token for row in rows_of(pretokenize(changed(spec, **fields)).path) for token in row]
    # The tokenizer begins every document with BOS by itself, and that stays, behind what was asked for.
    assert tokens[:2] == [7, BOS]
    separators = [place for place, token in enumerate(tokens[:-2]) if token == EOS]
    assert len(separators) > 100
    assert all(tokens[place + 1 : place + 3] == [7, BOS] for place in separators)


def test_one_document_per_row(spec: PretokenizeSpec, texts: Path) -> None:
    rows = rows_of(pretokenize(changed(spec, disable_concat_sequences=True, shuffle=False)).path)
    assert rows == [[BOS, *document[:15]] for document in word_ids(texts) if len(document) >= 15]


@pytest.mark.slow
def test_several_processes_give_the_same(spec: PretokenizeSpec, tmp_path: Path) -> None:
    one = pretokenize(spec)
    two = pretokenize(changed(spec, num_proc=2, save_path=str(tmp_path / "two")))
    assert files_of(two.path) == files_of(one.path)


def test_a_run_trains_from_it(spec: PretokenizeSpec, llama: Path) -> None:
    done = pretokenize(spec)
    run = run_of(model_name=str(llama), dataset_path=str(done.path))
    source = open_source(run, EVALUATION, ["model.layers.1"])
    assert check_source(run, EVALUATION, ["model.layers.1"], training_tokens=64).warnings == ()
    assert source.stream.next_batch()["model.layers.1"].shape == (64, 32)
    assert source.select.tokens_NT is not None
    assert source.select.tokens_NT.tolist()[0] in rows_of(done.path)


def test_a_model_with_another_tokenizer_is_refused(spec: PretokenizeSpec, tmp_path: Path) -> None:
    done = pretokenize(spec)
    run = run_of(model_name="builtin:tiny-lm", hook_name="model.layers.1", dataset_path=str(done.path))
    with pytest.raises(UserError, match="whose vocabulary is not that of builtin:tiny-lm"):
        check_source(run, EVALUATION, ["model.layers.1"], training_tokens=64)


@pytest.mark.parametrize("after_documents", [1, 100, 299])
def test_resuming_after_an_interruption_gives_the_same(
    spec: PretokenizeSpec, tmp_path: Path, after_documents: int
) -> None:
    whole = pretokenize(spec, part_tokens=PART_TOKENS)
    seen: list[int] = []

    def interrupt(progress: PretokenizeProgress) -> None:
        seen.append(progress.documents)
        if progress.documents >= after_documents:
            raise KeyboardInterrupt

    stopped = changed(spec, save_path=str(tmp_path / "stopped"))
    with pytest.raises(KeyboardInterrupt):
        pretokenize(stopped, on_progress=interrupt, part_tokens=PART_TOKENS)
    seen.clear()
    resumed = pretokenize(stopped, on_progress=lambda p: seen.append(p.documents), part_tokens=PART_TOKENS)
    assert seen[0] > 0
    assert files_of(resumed.path) == files_of(whole.path)
    assert not list(tmp_path.glob(".*.partial"))


def test_the_same_call_again_does_nothing(spec: PretokenizeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pretokenize(spec)
    monkeypatch.setattr(run_module, "read_tokenizer", None)
    assert pretokenize(spec) == first


def test_other_settings_for_the_same_folder_are_refused(spec: PretokenizeSpec) -> None:
    done = pretokenize(spec)
    before = files_of(done.path)
    with pytest.raises(UserError, match=r"context_size: 16 there, 8 in this call\n  seed: 3 there, 4 in this call"):
        pretokenize(changed(spec, context_size=8, seed=4))
    assert files_of(done.path) == before


def test_a_folder_with_other_files_is_refused(spec: PretokenizeSpec) -> None:
    Path(spec.save_path).mkdir()
    (Path(spec.save_path) / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        pretokenize(spec)


def test_a_full_disk_loses_nothing(spec: PretokenizeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pretokenize(spec)
    replace_file, calls = parts.replace_file, 0

    def full(path: Path, fill: Callable[[Path], object]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(28, "No space left on device")
        replace_file(path, fill)

    monkeypatch.setattr(parts, "replace_file", full)
    other = changed(spec, save_path=str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"cannot be written .*No space left.*run the same command again"):
        pretokenize(other, part_tokens=PART_TOKENS)
    monkeypatch.setattr(parts, "replace_file", replace_file)
    assert files_of(pretokenize(other, part_tokens=PART_TOKENS).path) == files_of(whole.path)


def test_cells_without_tokens_are_left_out_and_counted(llama: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) for text in ("w1 w2 w3 w4", None, "", "w5 w6 w7 w8")]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    first, second = [BOS, *map(word_id, (1, 2, 3, 4))], [BOS, *map(word_id, (5, 6, 7, 8))]
    save_tokenizer(tmp_path / "plain", "$A")
    # A tokenizer that adds BOS by itself makes a token of an empty text, which the next document is packed behind.
    for tokenizer, skipped, rows in (
        (llama, 1, [first, [BOS, *second[:-1]]]),
        (tmp_path / "plain", 2, [first, second]),
    ):
        target = tmp_path / f"result-{skipped}"
        done = pretokenize(spec_of(tokenizer, tmp_path / "t.jsonl", target, context_size=5, shuffle=False))
        assert done.skipped == skipped
        assert rows_of(done.path) == rows


def test_conversations_go_through_the_chat_template(llama: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    cell = [{"role": "w10", "content": "w1 w2"}, {"role": "w11", "content": "w3 w4"}]
    (tmp_path / "t.jsonl").write_text(json.dumps({"chat": cell}))
    fields = {"column_name": "chat", "use_chat_formatting": True, "context_size": 6, "begin_batch_token": None}
    done = pretokenize(spec_of(tmp_path / "tokenizer", tmp_path / "t.jsonl", tmp_path / "result", **fields))
    assert rows_of(done.path) == [list(map(word_id, (10, 1, 2, 11, 3, 4)))]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"save_path": ""}, "save_path: missing"),
        ({"dataset_path": ""}, "dataset_path: missing"),
        ({"dataset_path": "/nowhere/x.jsonl"}, "does not exist"),
        ({"dataset_path": "builtin:nothing"}, "unknown built-in text"),
        ({"column_name": "body"}, r"column_name: .* has no column 'body'; its columns: text"),
        ({"tokenizer_name": "/nowhere"}, "tokenizer_name: '/nowhere' could not be"),
        ({"use_chat_formatting": True}, "has no chat template"),
        ({"context_size": 50_000}, "do not fill one row of 50000 tokens"),
        ({"dataset_trust_remote_code": True}, "cannot run remote code"),
    ],
)
def test_mistakes_are_named(
    spec: PretokenizeSpec, fields: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=said):
        pretokenize(changed(spec, **fields))


def test_the_tokenizers_own_bos_is_kept_as_saelens_keeps_it(llama: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("w1 w2 w3", "w4 w5 w6 w7", "w8")))
    fields = {"context_size": 4, "sequence_separator_token": "eos", "shuffle": False}
    pretokenize(spec_of(llama, texts, tmp_path / "result", **fields))
    words = [word_id(number) for number in range(9)]
    # Each document begins with the tokenizer's BOS: the first two need none from the packing, the third keeps its own
    # behind the separator.
    assert rows_of(tmp_path / "result") == [
        [BOS, *words[1:4]],
        [BOS, *words[4:7]],
        [BOS, words[7], EOS, BOS],
    ]
