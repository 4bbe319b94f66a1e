"""`write_cache`: what is on disk, and that nothing which goes wrong changes it."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from saesweep.activations import open_source
from saesweep.activations.cache import shards, writer
from saesweep.activations.cache.manifest import read_manifest
from saesweep.activations.cache.writer import CacheProgress, DiskNeed
from saesweep.activations.stream import ActivationStream
from saesweep.errors import UserError
from saesweep.files import sha256
from tests.activations.cache.runs import EVALUATION, HOOKS, TOKENS, cached_run, files_of, write


def test_the_rows_are_those_of_the_live_stream_in_its_order(run: Any, finished: Path) -> None:
    manifest = read_manifest(finished)
    assert manifest is not None
    assert manifest.is_complete
    stored = [load_file(finished / shard.file) for shard in manifest.of("train")]
    assert len(stored) > 2
    live = open_source(run, EVALUATION, HOOKS).stream
    batches = [live.next_batch() for _ in range(TOKENS // 64)]
    for hook in HOOKS:
        assert torch.equal(torch.cat([shard[hook] for shard in stored]), torch.cat([batch[hook] for batch in batches]))


def test_neighbouring_rows_come_from_different_contexts(run: Any, finished: Path) -> None:
    """The shuffle on disk is real: a row's neighbour shares its context about as often as chance has it."""
    source = open_source(run, EVALUATION, HOOKS)
    assert isinstance(source.stream, ActivationStream)
    assert source.model is not None
    context_of: dict[tuple[float, ...], int] = {}
    for number, tokens in enumerate(source.stream._source.take(200)):
        for row in source.model.activations(torch.tensor([tokens]), HOOKS[:1])[HOOKS[0]][0]:
            context_of[_key(row)] = number
    manifest = read_manifest(finished)
    assert manifest is not None
    rows = torch.cat([load_file(finished / shard.file)[HOOKS[0]] for shard in manifest.of("train")])
    contexts = [context_of.get(_key(row)) for row in rows]
    pairs = [(a, b) for a, b in itertools.pairwise(contexts) if a is not None and b is not None]
    assert len(pairs) > TOKENS / 2
    assert sum(a == b for a, b in pairs) / len(pairs) < 0.1  # 32 contexts are in the window, unshuffled it is 0.93


def _key(row: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(value, 3) for value in row[:6].tolist())


def test_the_manifest_names_what_it_was_made_from(finished: Path, llama: Path, texts: Path) -> None:
    data = json.loads((finished / "manifest.json").read_text())
    assert data["source"]["model_name"] == str(llama)
    assert data["source"]["dataset_path"] == str(texts)
    assert data["hooks"] == dict.fromkeys(HOOKS, 32)
    assert (data["dtype"], data["model_dtype"], data["seed"]) == ("float32", "float32", 42)
    for shard in data["shards"]:
        assert sha256(finished / shard["file"]) == shard["sha256"]


def test_half_precision_rounds_and_says_so(run: Any, finished: Path, tmp_path: Path) -> None:
    manifest = write(run, tmp_path / "rows", dtype="bfloat16", tokens=128)
    assert manifest.is_lossy
    rows = load_file(tmp_path / "rows" / manifest.of("train")[0].file)[HOOKS[0]]
    exact = load_file(finished / "train-00000.safetensors")[HOOKS[0]][: len(rows)]
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows, exact.bfloat16())


def test_a_model_in_half_precision_is_kept_as_it_is(llama: Path, texts: Path, tmp_path: Path) -> None:
    run = cached_run(llama, texts, model_from_pretrained_kwargs={"dtype": "bfloat16"})
    manifest = write(run, tmp_path / "rows", tokens=128)
    assert (manifest.dtype, manifest.is_lossy) == ("bfloat16", False)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_resuming_after_an_interruption_gives_the_same_files(
    run: Any, finished: Path, tmp_path: Path, after: int
) -> None:
    seen = 0

    def interrupt(progress: CacheProgress) -> None:
        nonlocal seen
        if seen == after:
            raise KeyboardInterrupt
        seen += 1

    with pytest.raises(KeyboardInterrupt):
        write(run, tmp_path / "rows", on_progress=interrupt)
    (tmp_path / "rows" / ".train-00009.safetensors.1.tmp").write_bytes(b"torn")  # as a kill leaves it
    write(run, tmp_path / "rows")
    assert files_of(tmp_path / "rows") == files_of(finished)


@pytest.mark.parametrize("file", ["train-00001.safetensors", "select-00000.safetensors", "contexts.safetensors"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_damaged_shard_is_named_and_made_again(
    run: Any, finished: Path, tmp_path: Path, file: str, damage: str
) -> None:
    folder = tmp_path / "rows"
    shutil.copytree(finished, folder)
    data = bytearray((folder / file).read_bytes())
    if damage == "missing":
        (folder / file).unlink()
    else:
        data[len(data) // 2] ^= 1
        (folder / file).write_bytes(data if damage == "flipped" else data[:-10])
    messages: list[str] = []
    write(run, folder, on_damage=messages.append)
    assert len(messages) == 1
    assert file in messages[0]
    assert files_of(folder) == files_of(finished)


def test_more_tokens_make_the_cache_longer(run: Any, tmp_path: Path, finished: Path) -> None:
    manifest = read_manifest(finished)
    assert manifest is not None
    write(run, tmp_path / "rows", tokens=2 * manifest.shard_tokens)
    longer = write(run, tmp_path / "rows", tokens=TOKENS)
    assert longer.rows("train") == TOKENS
    assert files_of(tmp_path / "rows") == files_of(finished)


def test_the_disk_is_checked_first(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs: list[DiskNeed] = []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"needs 0\.00 GB more and the disk has"):
        write(run, tmp_path / "rows", on_disk_need=needs.append)
    assert needs[0].needed_bytes > TOKENS * 2 * 32 * 4
    assert not [path for path in (tmp_path / "rows").iterdir() if path.suffix == ".safetensors"]


@pytest.mark.parametrize("kind", ["system", "safetensors"])
def test_a_full_disk_loses_nothing(
    run: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from safetensors import SafetensorError

    save, calls = shards.save_file, 0

    def full(tensors: Any, path: Path) -> None:
        nonlocal calls
        calls += 1
        save(tensors, path)
        if calls == 8:
            if kind == "system":
                raise OSError(28, "No space left on device")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(shards, "save_file", full)
    with pytest.raises(UserError, match=r"train-\d+\.safetensors: cannot be written .*No space left") as caught:
        write(run, tmp_path / "rows")
    assert "run the same command again" in str(caught.value)
    assert not list((tmp_path / "rows").glob(".*.tmp"))
    monkeypatch.setattr(shards, "save_file", save)
    write(run, tmp_path / "rows")
    assert files_of(tmp_path / "rows") == files_of(finished)


def test_another_cache_in_the_folder_is_left_alone(run: Any, finished: Path) -> None:
    before = files_of(finished)
    with pytest.raises(UserError, match=r"holds another cache.*\n.*context_size: 16 in the cache, 8 in this run"):
        write(run.model_copy(update={"context_size": 8}), finished)
    assert files_of(finished) == before


def test_a_folder_with_other_files_is_refused(run: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        write(run, tmp_path)


def test_two_writers_do_not_meet(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "rows"

    def second(need: DiskNeed) -> None:
        with pytest.raises(UserError, match=r"process \d+ on .* writes this cache"):
            write(run, folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(run, folder, on_disk_need=second)
