"""The plan of the shuffle window and the pool of rows behind it."""

from collections import Counter

import numpy as np
import pytest
import torch

from saesweep.activations.window import RowPool, WindowPlan


@pytest.mark.parametrize("forward_contexts", [1, 4, 32, 1000])
@pytest.mark.parametrize("window_contexts", [1, 2, 3, 5, 20, 36, 100, 1000, 4097])
def test_residents_fit_and_every_segment_is_served_once(window_contexts: int, forward_contexts: int) -> None:
    plan = WindowPlan.fit(window_contexts, forward_contexts)
    assert 1 <= plan.resident_contexts <= window_contexts
    if window_contexts >= 100 and forward_contexts <= 4:
        assert plan.resident_contexts > 0.8 * window_contexts
    rows = {chunk: plan.cut(np.arange(3 * plan.contexts_of(chunk)), chunk) for chunk in range(40)}
    for interval in range(20):
        chunks = range(interval, interval + plan.segments)
        served = [interval - plan.first_interval(chunk) for chunk in chunks]
        assert all(0 <= done < plan.segments_of(chunk) for chunk, done in zip(chunks, served, strict=True))
        waiting = sum(len(s) for c, done in zip(chunks, served, strict=True) for s in rows[c][done:])
        assert waiting <= 3 * plan.resident_contexts + plan.segments
    served_by_chunk = Counter(chunk for t in range(40) for chunk in range(t, t + plan.segments))
    assert all(served_by_chunk[chunk] == plan.segments_of(chunk) for chunk in range(30))


def test_a_chunk_fills_a_forward_pass_where_the_window_allows() -> None:
    assert WindowPlan.fit(36, 8) == WindowPlan(8, 1)
    assert WindowPlan.fit(128, 32).full_chunk >= 32
    assert WindowPlan.fit(10_000, 32).segments == 8


def test_pool_keeps_rows_until_they_are_released() -> None:
    pool = RowPool(6, torch.device("cpu"))
    a, b = pool.take(4), pool.take(2)
    assert sorted([*a, *b]) == list(range(6))
    with pytest.raises(RuntimeError, match="0 free rows of 6, 1 are needed"):
        pool.take(1)
    pool.write("h", a, torch.arange(8.0, dtype=torch.bfloat16).reshape(4, 2))
    pool.write("h", b, torch.tensor([[10.0, 11], [12, 13]]))
    batch = pool.empty(3)
    pool.gather_into(batch, 0, pool.index(a[[3, 0]]))
    pool.gather_into(batch, 2, pool.index(b[:1]))
    rows = batch["h"]
    assert rows.dtype == torch.bfloat16  # the first write decides
    assert rows.tolist() == [[6, 7], [0, 1], [10, 11]]
    assert pool.nbytes == 6 * 2 * 2
    pool.release(b)
    assert sorted(pool.take(2)) == sorted(b)
