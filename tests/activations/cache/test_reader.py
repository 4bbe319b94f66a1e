"""Reading a cache: the same batches as the live stream, at any batch size, from any position; mismatches are named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from saesweep.activations import check_source, open_source
from saesweep.errors import UserError
from saesweep.specs import EvaluationSpec
from tests.activations.cache.runs import EVALUATION, HOOKS, TOKENS, write


def reading(run: Any, folder: Path, **fields: Any) -> Any:
    return run.model_copy(update={"use_cached_activations": True, "cached_activations_path": str(folder), **fields})


def open_cached(run: Any, folder: Path, **fields: Any) -> Any:
    return open_source(reading(run, folder, **fields), EVALUATION, HOOKS, with_model=False)


def test_everything_equals_the_live_source(run: Any, finished: Path) -> None:
    live, cached = open_source(run, EVALUATION, HOOKS), open_cached(run, finished)
    assert cached.model is None
    assert cached.stream.d_in == live.stream.d_in
    for ours, theirs in zip(cached.stream.first_window(), live.stream.first_window(), strict=True):
        assert all(torch.equal(ours[hook], theirs[hook]) for hook in HOOKS)
    for _ in range(20):
        ours, theirs = cached.stream.next_batch(), live.stream.next_batch()
        assert all(torch.equal(ours[hook], theirs[hook]) for hook in HOOKS)
    for ours, theirs in ((cached.select, live.select), (cached.test, live.test)):
        assert torch.equal(ours.tokens_NT, theirs.tokens_NT)
        assert torch.equal(ours.mask_NT, theirs.mask_NT)
        for most in (None, 100):
            pieces = list(zip(ours.batches(HOOKS[1], most), theirs.batches(HOOKS[1], most), strict=True))
            assert all(torch.equal(a, b) for a, b in pieces)
    cached.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_activation_norm_multiple": 1.1},
        {"seqpos_slice": (2, 9)},
        {"prefetch_llm_batches": 2},
        {"neighbour_pairs": True},
    ],
)
def test_whatever_selects_rows_is_in_the_cache(run: Any, tmp_path: Path, fields: dict[str, Any]) -> None:
    run = run.model_copy(update=fields)
    write(run, tmp_path / "rows", tokens=640)
    live, cached = open_source(run, EVALUATION, HOOKS), open_cached(run, tmp_path / "rows")
    for _ in range(10):
        assert torch.equal(cached.stream.next_batch()[HOOKS[1]], live.stream.next_batch()[HOOKS[1]])
    assert torch.equal(cached.select.mask_NT, live.select.mask_NT)
    pieces = list(zip(cached.select.batches(HOOKS[0]), live.select.batches(HOOKS[0]), strict=True))
    assert all(torch.equal(ours, theirs) for ours, theirs in pieces)
    live.close()


def test_any_batch_size_cuts_the_same_rows(run: Any, finished: Path) -> None:
    big, small = open_cached(run, finished), open_cached(run, finished, train_batch_size_tokens=16)
    rows = torch.cat([small.stream.next_batch()[HOOKS[0]] for _ in range(8)])
    assert torch.equal(rows, torch.cat([big.stream.next_batch()[HOOKS[0]] for _ in range(2)]))


def test_a_later_epoch_takes_the_same_batches_in_another_order(run: Any, finished: Path) -> None:
    stream = open_cached(run, finished).stream
    n_batches = TOKENS // 64
    first = [stream.next_batch()[HOOKS[0]] for _ in range(n_batches)]
    assert stream.epoch == 1
    second = [stream.next_batch()[HOOKS[0]] for _ in range(n_batches)]
    places = [next(i for i, batch in enumerate(first) if torch.equal(batch, again)) for again in second]
    assert sorted(places) == list(range(n_batches))
    assert places != sorted(places)


@pytest.mark.parametrize("served", [0, 5, 40])
def test_it_resumes_where_it_stood(run: Any, finished: Path, served: int) -> None:
    stream, again = open_cached(run, finished).stream, open_cached(run, finished).stream
    for _ in range(served):
        stream.next_batch()
    again.next_batch()
    again.load_state(json.loads(json.dumps(stream.state())))
    assert (again.batches_served, again.tokens_served) == (served, 64 * served)
    for _ in range(3):
        assert torch.equal(again.next_batch()[HOOKS[1]], stream.next_batch()[HOOKS[1]])


def test_a_run_resumes_with_a_cache_that_grew(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    write(run, folder, tokens=640)
    stream = open_cached(run, folder).stream
    for _ in range(9):
        stream.next_batch()
    state = stream.state()
    expected = [stream.next_batch()[HOOKS[0]] for _ in range(4)]
    write(run, folder, tokens=1280)
    grown = open_cached(run, folder).stream
    grown.load_state(state)
    assert all(torch.equal(grown.next_batch()[HOOKS[0]], rows) for rows in expected)


def test_one_hook_of_several(run: Any, finished: Path) -> None:
    source = open_source(reading(run, finished), EVALUATION, [HOOKS[1]], with_model=False)
    assert list(source.stream.next_batch()) == [HOOKS[1]]


@pytest.mark.parametrize("file", ["train-00000.safetensors", "select-00000.safetensors", "contexts.safetensors"])
def test_a_damaged_shard_is_named(run: Any, finished: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "rows"
    shutil.copytree(finished, folder)
    data = bytearray((folder / file).read_bytes())
    data[-1] ^= 1
    (folder / file).write_bytes(data)
    with pytest.raises(UserError, match=f"{file}: the shard does not have its checksum.*cache-activations"):
        _read_everything(open_cached(run, folder))


def _read_everything(source: Any) -> None:
    source.stream.next_batch()
    list(source.select.batches(HOOKS[0]))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"context_size": 8}, "context_size: 16 in the cache, 8 in this run"),
        ({"model_name": "other"}, 'model_name: .* in the cache, "other" in this run'),
        ({"dataset_path": "other"}, 'dataset_path: .* in the cache, "other" in this run'),
        ({"exclude_special_tokens": False}, "exclude_special_tokens: true in the cache, false in this run"),
        ({"seqpos_slice": (1, None)}, r"seqpos_slice: \[null\] in the cache, \[1, null\] in this run"),
        ({"model_from_pretrained_kwargs": {"dtype": "bfloat16"}}, "model_from_pretrained_kwargs"),
    ],
)
def test_a_cache_of_another_run_is_refused(run: Any, finished: Path, fields: dict[str, Any], said: str) -> None:
    other = reading(run, finished, **fields)
    with pytest.raises(UserError, match=said):
        check_source(other, EVALUATION, HOOKS, training_tokens=TOKENS)
    with pytest.raises(UserError, match=said):
        open_source(other, EVALUATION, HOOKS, with_model=False)


def test_hooks_widths_and_held_out_sizes_must_fit(run: Any, finished: Path) -> None:
    cached = reading(run, finished)
    with pytest.raises(UserError, match=r"hook_name: model.layers.0, model.layers.1 in the cache, model.layers.2 in"):
        check_source(cached, EVALUATION, ["model.layers.2"], training_tokens=TOKENS)
    with pytest.raises(UserError, match=r"evaluation.select_tokens: 256 in the cache, 512 in this run"):
        check_source(cached, EvaluationSpec(select_tokens=512, test_tokens=256), HOOKS, training_tokens=TOKENS)
    wide = cached.model_copy(update={"sae": cached.sae.model_copy(update={"d_in": 64})})
    with pytest.raises(UserError, match=r"sae.d_in: 32 at model.layers.0 in the cache, 64 in this run"):
        check_source(wide, EVALUATION, HOOKS, training_tokens=TOKENS)


def test_what_the_user_should_know(run: Any, finished: Path) -> None:
    cached = reading(run, finished)
    assert check_source(cached, EVALUATION, HOOKS, training_tokens=TOKENS).warnings == ()
    longer = check_source(cached.model_copy(update={"seed": 7}), EVALUATION, HOOKS, training_tokens=2 * TOKENS)
    assert "2.0 epochs" in longer.warnings[0]
    assert "seed 42" in longer.warnings[1]


def test_no_cache_and_half_a_cache(run: Any, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; make it with `saesweep cache-activations`"):
        open_cached(run, tmp_path / "nothing")
    with pytest.raises(UserError, match="no cache of activations"):
        open_cached(run, tmp_path)
    half = tmp_path / "half"
    shutil.copytree(finished, half)
    manifest = json.loads((half / "manifest.json").read_text())
    manifest["shards"] = manifest["shards"][:-1]
    (half / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"is not finished .* resumes where it stopped"):
        open_cached(run, half)
    (half / "manifest.json").write_text('{"format_version": 99}')
    with pytest.raises(UserError, match="format 99, this version reads format 1"):
        open_cached(run, half)
    (half / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json: unreadable"):
        open_cached(run, half)


def test_a_cache_smaller_than_a_batch_is_refused(run: Any, finished: Path) -> None:
    with pytest.raises(UserError, match="2048 training rows, less than one batch of 4096"):
        open_cached(run, finished, train_batch_size_tokens=4096)


def test_pairs_are_not_read_where_none_were_written(run: Any, finished: Path) -> None:
    with pytest.raises(UserError, match="neighbour_pairs: null in the cache, true in this run"):
        open_cached(run.model_copy(update={"neighbour_pairs": True}), finished)
