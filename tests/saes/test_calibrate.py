"""The calibrated threshold against brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saesweep.saes import calibrate_threshold

VALUES = st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.0 + 2**-23, 2.0]) | st.floats(0, 4, width=32)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.lists(VALUES, min_size=6, max_size=6), min_size=1, max_size=12),
    cut=st.integers(0, 12),
    k=st.floats(0.1, 7),
)
def test_against_brute_force(rows: list[list[float]], cut: int, k: float) -> None:
    h_BF = torch.tensor(rows)
    batches = [part for part in (h_BF[:cut], h_BF[cut:]) if part.shape[0]]
    threshold = calibrate_threshold(lambda: batches, k)
    allowed = int(k * len(rows))
    stored = torch.tensor(threshold, dtype=torch.float32)  # as it is exported
    count = int((h_BF > stored).sum())
    assert count <= allowed
    # Nothing lower would do: letting the next distinct value in makes it too many.
    below = [v for v in h_BF.flatten().tolist() if 0 < v <= float(stored)]
    if below:
        assert int((h_BF >= max(below)).sum()) > allowed
    ordered = sorted((v for v in h_BF.flatten().tolist() if v > 0), reverse=True)
    if len(ordered) <= allowed:
        assert threshold == 0
    elif allowed and ordered[allowed - 1] > ordered[allowed]:
        assert count == allowed
        assert ordered[allowed] <= threshold < ordered[allowed - 1]


def test_it_lies_midway_between_the_neighbours() -> None:
    h_BF = torch.tensor([[4.0, 3.0, 1.0, 0.0], [5.0, 2.0, 0.5, 0.0]])
    assert calibrate_threshold(lambda: [h_BF], k=1.5) == 2.5
    assert calibrate_threshold(lambda: iter([h_BF[:1], h_BF[1:]]), k=1.5) == 2.5


def test_ties_at_the_boundary_are_dropped_together() -> None:
    h_BF = torch.tensor([[1.0, 1.0, 1.0, 3.0]])
    assert calibrate_threshold(lambda: [h_BF], k=2) == 2.0
    assert calibrate_threshold(lambda: [torch.ones(3, 4)], k=2) == 1.0


def test_adjacent_floats_stay_apart_once_stored_as_float32() -> None:
    """Their midpoint rounds to the even one: here the larger, which `h > threshold` would then drop."""
    h_BF = torch.tensor([[1 + 2**-22, 1 + 2**-23, 0.5]])
    stored = torch.tensor(calibrate_threshold(lambda: [h_BF], k=1), dtype=torch.float32)
    assert (h_BF > stored).tolist() == [[True, False, False]]


def test_few_actives_give_zero() -> None:
    assert calibrate_threshold(lambda: [torch.tensor([[0.0, 0.3, 0.0, 0.2]])], k=3) == 0


def test_large_batches_keep_only_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saesweep.saes.calibrate._MIN_SAMPLED_ELEMENTS", 1)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(64, 50, generator=generator) for _ in range(5)]
    threshold = calibrate_threshold(lambda: batches, k=3)
    assert int((torch.cat(batches) > threshold).sum()) == 3 * 64 * 5


@pytest.mark.parametrize("outlier", [1.0, 3.0, 1e3])
@pytest.mark.parametrize("k", [0.5, 3, 20])
def test_unlike_batches_are_looked_at_twice(k: float, outlier: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One dense row where the bound of a piece is guessed from it, as of an attention sink."""
    generator = torch.Generator().manual_seed(0)
    h_BF = (torch.randn(480, 64, generator=generator) - 1).relu()
    h_BF[160] = outlier * (1 + torch.rand(64, generator=generator))
    whole = calibrate_threshold(lambda: [h_BF], k)
    assert int((h_BF > whole).sum()) == int(k * 480) or whole == 0
    monkeypatch.setattr("saesweep.saes.calibrate._MIN_SAMPLED_ELEMENTS", 1)
    assert calibrate_threshold(lambda: h_BF.split(16), k) == whole
    assert calibrate_threshold(lambda: h_BF.split(5), k) == whole


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="no rows"):
        calibrate_threshold(lambda: [], k=3)
    with pytest.raises(ValueError, match="positive"):
        calibrate_threshold(lambda: [torch.rand(2, 3)], k=0)
    with pytest.raises(ValueError, match="d_sae"):
        calibrate_threshold(lambda: [torch.rand(3)], k=1)
