"""Training from activations cached by SAELens: the Arrow dataset that its CacheActivationsRunner writes."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

import saesweep
from saesweep.activations import check_source, open_source
from saesweep.activations import open as open_module
from saesweep.errors import UserError
from saesweep.specs import EvaluationSpec
from tests.models.tiny import BOS, run_of

HOOK = "blocks.1.hook_resid_post"
ROWS, POSITIONS, WIDTH = 200, 16, 8
EVALUATION = EvaluationSpec(select_tokens=160, test_tokens=160)


def value_at(row: int, position: int) -> float:
    return row * 100.0 + position


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    acts = np.zeros((ROWS, POSITIONS, WIDTH), dtype=np.float32)
    acts[:, :, 0] = np.arange(ROWS)[:, None] * 100.0 + np.arange(POSITIONS)
    acts[:, :, 1:] = np.random.default_rng(0).normal(size=(ROWS, POSITIONS, WIDTH - 1))
    ids = np.full((ROWS, POSITIONS), 9, dtype=np.int32)
    ids[:, 0] = BOS
    features = datasets.Features(
        {
            HOOK: datasets.Array2D(shape=(POSITIONS, WIDTH), dtype="float32"),
            "token_ids": datasets.Sequence(datasets.Value("int32"), length=POSITIONS),
        }
    )
    path = tmp_path_factory.mktemp("saelens") / "cached"
    datasets.Dataset.from_dict({HOOK: acts, "token_ids": ids}, features=features).save_to_disk(path, num_shards=3)
    return path


def cached(folder: Path, **fields: Any) -> Any:
    values = {
        "dataset_path": "",
        "use_cached_activations": True,
        "cached_activations_path": str(folder),
        "hook_name": HOOK,
    }
    return run_of(**{**values, **fields})


def open_cached(run: Any) -> Any:
    return open_source(run, EVALUATION, [HOOK], with_model=False)


def places(rows: torch.Tensor) -> list[float]:
    return [float(value) for value in rows[:, 0]]


def test_every_row_is_served_once_an_epoch_shuffled_and_none_is_held_out(folder: Path) -> None:
    source = open_cached(cached(folder))
    held_out = [*source.select.batches(HOOK), *source.test.batches(HOOK)]
    apart = set(places(torch.cat(held_out)))
    assert len(apart) == 320
    trained: list[float] = []
    while source.stream.epoch == 0:
        trained += places(source.stream.next_batch()[HOOK])
    everything = {value_at(row, position) for row in range(ROWS) for position in range(POSITIONS)}
    assert len(set(trained[: len(everything) - 320])) > 0.8 * (len(everything) - 320)
    assert set(trained) <= everything - apart
    first = trained[:64]
    assert len({value // 100 for value in first}) > 10  # from many contexts


def test_it_resumes_where_it_stood(folder: Path) -> None:
    stream, again = open_cached(cached(folder)).stream, open_cached(cached(folder)).stream
    for _ in range(7):
        stream.next_batch()
    again.load_state(stream.state())
    assert torch.equal(again.next_batch()[HOOK], stream.next_batch()[HOOK])


def test_special_tokens_are_left_out_by_the_datasets_own_ids(folder: Path) -> None:
    source = open_cached(cached(folder, exclude_special_tokens=[BOS]))
    rows = source.stream.next_batch()[HOOK]
    assert all(value % 100 != 0 for value in places(rows))
    assert source.select.n_tokens == 10 * (POSITIONS - 1)


def test_a_sweep_trains_from_it_without_a_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: Any) -> None:
        raise AssertionError("the language model was loaded")

    monkeypatch.setattr(open_module, "load_model", forbid)
    base = cached(folder, training_tokens=1024).model_dump(mode="json", exclude_defaults=True)
    tree = {
        "name": "from-saelens",
        "base": {**base, "sae": {"architecture": "topk", "k": 4, "d_sae": 32}},
        "space": {"sae.k": {"int": [2, 6]}},
        "evaluation": {"select_tokens": 160, "test_tokens": 160},
        "search": {"trials": 2},
        "cohort": {"size": 2, "kernels": "reference"},
    }
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert (result.exit_code, len(result.rows)) == (0, 2)
    assert "make sure" in (tmp_path / "run" / "events.jsonl").read_text()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hook_name": "blocks.0.hook_resid_post"}, "holds blocks.1.hook_resid_post; hook_name"),
        ({"context_size": 32}, "holds 16 positions per context, this run wants 32"),
        ({"seqpos_slice": [1, None]}, "holds 16 positions per context, this run wants 15"),
        ({"sae": {"architecture": "topk", "k": 4, "d_sae": 64, "d_in": 32}}, "is 8 wide at .*, sae.d_in is 32"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(folder: Path, fields: dict[str, Any], said: str) -> None:
    run = cached(folder, **fields)
    with pytest.raises(UserError, match=said):
        check_source(run, EVALUATION, [run.hook_name], training_tokens=1024)


def test_cross_entropy_and_a_small_cache_are_refused(folder: Path) -> None:
    run = cached(folder)
    with pytest.raises(UserError, match="no token ids to measure cross-entropy with"):
        open_source(run, EVALUATION, [HOOK], with_model=True)
    large = EvaluationSpec(select_tokens=3000, test_tokens=3000)
    with pytest.raises(UserError, match="holds 3200 rows, not more than select_tokens"):
        check_source(run, large, [HOOK], training_tokens=1024)


def test_a_broken_dataset_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "gone.arrow"}]}')
    with pytest.raises(UserError, match="cannot be read as a SAELens cache"):
        open_cached(cached(tmp_path))
