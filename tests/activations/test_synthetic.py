"""Generated activations with known features."""

import json

import pytest
import torch

from saesweep.activations import open_source
from saesweep.activations.synthetic import SyntheticFeatures, SyntheticStream
from saesweep.specs.experiment import EvaluationSpec
from saesweep.specs.synthetic import SyntheticSpec
from tests.models.tiny import run_of

RUN = {"model_name": None, "dataset_path": "builtin:synthetic", "hook_name": "x"}


def source_of(seed: int = 0, **fields: object):  # type: ignore[no-untyped-def]
    run = run_of(**RUN, seed=seed, **fields)
    return open_source(run, EvaluationSpec(select_tokens=300, test_tokens=150), ["x", "y"])


def test_features_are_sparse_unit_vectors_in_superposition() -> None:
    features = SyntheticFeatures(64, seed=0)
    assert features.features_FD.shape == (256, 64)
    torch.testing.assert_close(features.features_FD.norm(dim=1), torch.ones(256))
    assert float(features.probabilities_F.sum()) == pytest.approx(8.0, rel=1e-4)
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


def features_with(**fields: object) -> SyntheticFeatures:
    return SyntheticFeatures(32, seed=0, spec=SyntheticSpec.model_validate(fields))


def test_without_options_the_stream_is_what_it_always_was() -> None:
    """Sums of the first batch, recorded before there were options: a run of an older version resumes."""
    batch = source_of().stream.next_batch()["x"].double()
    assert float(batch.sum()) == pytest.approx(110.86534769885839, abs=1e-4)
    assert float(batch.square().sum()) == pytest.approx(529.9349255400707, abs=1e-3)


def test_rates_and_magnitudes_are_those_asked_for() -> None:
    features = features_with(
        num_features=50,
        firing_probability={"mean_active": 5, "exponent": 0.5, "max_prob": 0.2},
        mean_firing_magnitudes={"generator_name": "linear", "start": 3.0, "end": 1.0},
        std_firing_magnitudes=0.1,
    )
    acts = features.sample_acts(20_000, seed=1)
    rate = (acts > 0).float().mean(0)
    assert features.probabilities_F[0] <= 0.2
    assert float(rate.sum()) == pytest.approx(5, rel=0.02)
    torch.testing.assert_close(rate, features.probabilities_F, atol=0.015, rtol=0)
    strength = acts.sum(0) / (acts > 0).sum(0)
    torch.testing.assert_close(strength, torch.linspace(3, 1, 50), atol=0.03, rtol=0)


def test_correlated_features_fire_as_often_and_together() -> None:
    plain, correlated = (
        (
            features_with(firing_probability={"exponent": 0.0, "mean_active": 12.8}, **extra).sample_acts(20_000, 1) > 0
        ).float()
        for extra in ({}, {"correlation": {"rank": 2, "correlation_scale": 0.6}})
    )
    torch.testing.assert_close(correlated.mean(0), torch.full((128,), 0.1), atol=0.012, rtol=0)
    strongest = [torch.corrcoef(fires.T).fill_diagonal_(0).abs().max() for fires in (plain, correlated)]
    assert strongest[0] < 0.05
    assert strongest[1] > 0.5


def test_children_fire_only_with_their_parent_and_rivals_never_together() -> None:
    tree = {"total_root_nodes": 4, "branching_factor": 3, "max_depth": 2, "mutually_exclusive_portion": 1.0}
    uniform = {"exponent": 0.0, "mean_active": 12.8}
    acts = features_with(hierarchy=tree, firing_probability=uniform).sample_acts(20_000, 1)
    roots, children, grandchildren = acts[:, :4], acts[:, 4:16].reshape(-1, 4, 3), acts[:, 16:52].reshape(-1, 4, 3, 3)
    assert not (children[roots == 0] != 0).any()
    assert not (grandchildren[children == 0] != 0).any()
    assert (children > 0).sum(2).max() == 1
    assert (children > 0).any()
    assert float((acts[:, 52:] > 0).float().mean()) == pytest.approx(0.1, abs=0.01)  # outside of the trees
    often = {**tree, "mutually_exclusive_portion": 0.0, "compensate_probabilities": True, "max_depth": 1}
    rate = (features_with(hierarchy=often, firing_probability=uniform).sample_acts(20_000, 1) > 0).float().mean(0)
    torch.testing.assert_close(rate, torch.full((128,), 0.1), atol=0.012, rtol=0)


def test_children_scaled_by_their_parent() -> None:
    tree = {"total_root_nodes": 1, "branching_factor": 2, "max_depth": 1, "scale_children_by_parent": True}
    features = features_with(hierarchy=tree, mean_firing_magnitudes=2.0, std_firing_magnitudes=0.0)
    acts = features.sample_acts(2000, 1)
    assert set(acts[:, 1].unique().tolist()) == {0.0, 2.0}
    varied = features_with(hierarchy=tree, mean_firing_magnitudes=2.0, std_firing_magnitudes=0.5).sample_acts(20_000, 1)
    both = (varied[:, 0] > 0) & (varied[:, 1] > 0)
    assert torch.corrcoef(varied[both][:, :2].T)[0, 1] > 0.5
