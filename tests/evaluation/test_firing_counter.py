"""How often latents fire, as shares and as a histogram."""

import torch

from saesweep.evaluation import Densities, FiringCounter
from saesweep.events import DENSITY_EDGES


def test_batches_add_up_to_shares() -> None:
    counter = FiringCounter()
    counter.update(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]]))
    counter.update(torch.tensor([[3.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))
    found = counter.densities("select")
    assert found.share_F.tolist() == [0.5, 0.0, 1.0]
    assert found.described() == {"part": "select", "tokens": 4}


def test_the_histogram_has_every_latent_in_the_bar_of_its_share() -> None:
    shares = [0.0, 1e-12, 1e-6, 1.5e-6, 10**-2.9, 0.1, 0.999, 1.0]
    bars = Densities(torch.tensor(shares, dtype=torch.float64), "select", 10).histogram()
    assert len(bars) == len(DENSITY_EDGES) - 1
    assert sum(bars) == len(shares)
    assert bars[0] == 2  # never, or below a millionth
    assert bars[1] == 2
    assert bars[-1] == 2
    assert [count for edge, count in zip(DENSITY_EDGES, bars, strict=False) if edge in (-3.0, -1.0)] == [1, 1]
