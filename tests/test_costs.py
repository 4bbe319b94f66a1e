"""A stopwatch that counts each second once, and the line that says where they went."""

from __future__ import annotations

import math

import pytest
import torch

from saesweep.costs import KINDS, WORDS, Kind, Stopwatch, cost_line, measuring_share
from saesweep.worker.device import stopwatch_for


def test_work_within_other_work_is_counted_once() -> None:
    now = [0.0]
    watch = Stopwatch(lambda: now[0])
    with watch.spending("measuring_ends"):
        now[0] += 2
        with watch.spending("saving"):
            now[0] += 3
        now[0] += 4
    now[0] += 100  # nobody's
    with watch.spending("training"):
        now[0] += 5
    assert watch.taken() == {"measuring_ends": 6, "saving": 3, "training": 5}
    assert watch.taken() == {}


def test_work_that_fails_is_counted_too() -> None:
    now = [0.0]
    watch = Stopwatch(lambda: now[0])

    def fail() -> None:
        with watch.spending("training"):
            now[0] += 2
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        fail()
    assert watch.taken() == {"training": 2}


def test_moments_of_a_device_are_asked_for_their_times_at_the_end() -> None:
    """A GPU works behind the program's back: a moment has no time yet when it is noted."""
    queue: list[float] = []
    done = False

    def between(begin: int, end: int) -> float:
        assert done
        return queue[end] - queue[begin]

    def mark() -> int:
        queue.append(float(len(queue)) ** 2)
        return len(queue) - 1

    watch = Stopwatch(mark, between)
    with watch.spending("language_model"):
        pass
    with watch.spending("training"):
        pass
    done = True
    assert watch.taken() == {"language_model": 1, "training": 5}


def test_one_line_says_the_largest_parts() -> None:
    costs: dict[Kind, float] = {
        "training": 71,
        "language_model": 15,
        "measuring_rungs": 5,
        "measuring_ends": 4.4,
        "saving": 0.1,
        "other": 4.5,
    }
    line = cost_line(costs, lambda seconds: f"{seconds:.0f}s")
    assert line == "100s: training 71%, language model 15%, measuring 9%, other 4%"
    assert measuring_share(costs) == pytest.approx(0.094)
    assert cost_line({}, str) == ""
    assert math.isnan(measuring_share({}))


def test_every_kind_has_words() -> None:
    assert set(WORDS) == set(KINDS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_s_own_queue_is_timed() -> None:
    device = torch.device("cuda")
    watch = stopwatch_for(device)
    a = torch.randn(4096, 4096, device=device)
    torch.cuda.synchronize()
    with watch.spending("training"):
        for _ in range(50):
            a = (a @ a).clamp(-1, 1)  # returns long before it is done
    assert watch.taken()["training"] > 0.01
