"""Generated activations with known features."""

import json

import pytest
import torch

from saesweep.activations import open_source
from saesweep.activations.synthetic import MEAN_ACTIVE, SyntheticFeatures, SyntheticStream
from saesweep.specs.evaluation import EvaluationSpec
from tests.models.tiny import run_of

RUN = {"model_name": None, "dataset_path": "builtin:synthetic", "hook_name": "x"}


def source_of(seed: int = 0, **fields: object):  # type: ignore[no-untyped-def]
    run = run_of(**RUN, seed=seed, **fields)
    return open_source(run, EvaluationSpec(select_tokens=300, test_tokens=150), ["x", "y"])


def test_features_are_sparse_unit_vectors_in_superposition() -> None:
    features = SyntheticFeatures(64, seed=0)
    assert features.features_FD.shape == (256, 64)
    torch.testing.assert_close(features.features_FD.norm(dim=1), torch.ones(256))
    assert float(features.probabilities_F.sum()) == pytest.approx(MEAN_ACTIVE, rel=1e-4)
    assert (features.probabilities_F.diff() <= 0).all()
    assert features.probabilities_F[-1] > 0
    # The rows are what the description says: regressing them on the features gives the firing rates back.
    x = features.sample(20_000, seed=1)
    expected = (features.probabilities_F[:, None] * features.features_FD).sum(0)
    torch.testing.assert_close(x.mean(0), expected, atol=0.05, rtol=0)


def test_batches_repeat_for_a_seed_and_continue_from_a_state() -> None:
    stream = source_of().stream
    first = [stream.next_batch() for _ in range(4)]
    state = json.loads(json.dumps(stream.state()))
    after = [stream.next_batch()["x"] for _ in range(3)]
    assert first[0]["x"].shape == (64, 64)
    assert torch.equal(first[0]["x"], first[0]["y"])
    assert not torch.equal(first[0]["x"], first[1]["x"])
    again = source_of().stream
    again.load_state(state)
    assert (again.batches_served, again.tokens_served) == (4, 256)
    assert all(torch.equal(again.next_batch()["x"], batch) for batch in after)
    assert not torch.equal(source_of(seed=1).stream.next_batch()["x"], first[0]["x"])
    with pytest.raises(ValueError, match="was saved with"):
        source_of(seed=1).stream.load_state(state)


def test_the_first_window_is_what_comes_next() -> None:
    stream = source_of().stream
    window = list(stream.first_window())
    assert len(window) == 512 // 64
    assert all(torch.equal(piece["x"], stream.next_batch()["x"]) for piece in window)


def test_held_out_parts_are_other_rows_of_the_same_features() -> None:
    source = source_of()
    assert source.model is None
    assert isinstance(source.stream, SyntheticStream)
    select, test = (torch.cat(list(part.batches("x"))) for part in (source.select, source.test))
    assert (len(select), len(test), source.select.n_tokens) == (300, 150, 300)
    assert torch.equal(torch.cat(list(source.select.batches("y"))), select)
    assert sum(len(batch) for batch in source.select.batches("x", 70)) == 70
    train = torch.cat([source.stream.next_batch()["x"] for _ in range(5)])
    rows = torch.cat([select, test, train])
    assert len(rows.unique(dim=0)) == len(rows)
    assert source.stream.features_FD.shape == (256, 64)


def test_the_width_is_the_sae_s() -> None:
    source = source_of(sae={"architecture": "topk", "k": 4, "d_sae": 64, "d_in": 24})
    assert source.stream.d_in == {"x": 24, "y": 24}
    assert source.stream.next_batch()["x"].shape == (64, 24)
