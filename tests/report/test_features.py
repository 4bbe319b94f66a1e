"""What a latent fires on, against an SAE whose latents are single dimensions of the activations."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from saesweep.activations.held_out import HeldOut
from saesweep.report.feature_data import band_index, bands_of
from saesweep.report.feature_scan import scan
from saesweep.report.features import BINS, Described, describe, nearest
from saesweep.saes import ExportedSAE

D = 4
SEPARATOR = 999


class Text(HeldOut):
    """Contexts whose activations are given; position 0 of each does not count."""

    mask_NT: Tensor = torch.empty(0)
    n_tokens: int = 0

    def __init__(self, acts_NTD: Tensor, batch_tokens: int) -> None:
        n, t, _ = acts_NTD.shape
        self.tokens_NT = torch.arange(n * t).reshape(n, t)
        self.mask_NT = torch.ones(n, t, dtype=torch.bool)
        self.mask_NT[:, 0] = False
        self.rows = acts_NTD[self.mask_NT]
        self.n_tokens = len(self.rows)
        self.batch_tokens = batch_tokens

    def batches(self, hook: str, max_tokens: int | None = None) -> Iterator[Tensor]:
        yield from self.rows[:max_tokens].split(self.batch_tokens)


def sae_of(w_dec: Tensor) -> ExportedSAE:
    cfg = {
        "architecture": "standard",
        "d_in": D,
        "d_sae": D,
        "dtype": "float32",
        "device": "cpu",
        "metadata": {},
        "apply_b_dec_to_input": False,
    }
    return ExportedSAE(
        "standard", cfg, {"W_enc": torch.eye(D), "W_dec": w_dec, "b_dec": torch.zeros(D), "b_enc": torch.zeros(D)}
    )


@pytest.fixture
def sae() -> ExportedSAE:
    return sae_of(torch.eye(D))


def described(sae: ExportedSAE, text: Text, numbers: list[int], **more: Any) -> list[Described]:
    found = scan(sae, text, "h", 10**6)
    return describe(sae, text, "h", found, numbers, max_tokens=10**6, **{"unembedding_VD": None, **more})


@pytest.mark.parametrize("batch_tokens", [3, 7, 1000])
def test_every_latent_is_counted_whatever_the_batches(sae: ExportedSAE, batch_tokens: int) -> None:
    acts = torch.zeros(5, 10, D)
    acts[1, 6, 2], acts[1, 7, 2], acts[3, 1, 2], acts[4, 9, 2], acts[2, 3, 0] = 2.0, 1.0, 5.0, 3.0, 7.0
    acts[2, 0, 2] = 99.0  # does not count
    found = scan(sae, Text(acts, batch_tokens), "h", 10**6)
    assert (found.n_tokens, found.n_contexts) == (45, 5)
    assert found.fired_F.tolist() == [1, 0, 4, 0]
    assert found.sum_F.tolist() == [7.0, 0.0, 11.0, 0.0]
    assert found.max_F.tolist() == [7.0, 0.0, 5.0, 0.0]
    assert found.peak_token_F.tolist() == [23, -1, 31, -1]
    assert found.density_F[2] == pytest.approx(4 / 45)


@pytest.mark.parametrize("batch_tokens", [3, 1000])
def test_the_strongest_contexts_come_first_with_all_their_activations(sae: ExportedSAE, batch_tokens: int) -> None:
    acts = torch.zeros(5, 10, D)
    acts[1, 6, 2], acts[1, 7, 2], acts[3, 1, 2], acts[4, 9, 2] = 2.0, 1.0, 5.0, 3.0
    (latent,) = described(sae, Text(acts, batch_tokens), [2])
    assert [(e.context, e.peak, e.interval) for e in latent.examples] == [(3, 1, None), (4, 9, None), (1, 6, None)]
    assert latent.examples[2].activations == {6: 2.0, 7: 1.0}
    assert (latent.examples[2].begin, latent.examples[2].end) == (0, 10)
    assert sum(latent.histogram) == 4
    assert [i for i, n in enumerate(latent.histogram) if n] == [3, 7, 11, BINS - 1]  # 1, 2, 3 and 5 of 5


def test_latents_with_signs_are_ranked_by_magnitude_and_keep_their_signs() -> None:
    cfg = {
        **sae_of(torch.eye(D)).cfg,
        "architecture": "abstopk",
        "k": 1,
        "rescale_acts_by_decoder_norm": False,
    }
    zeros = torch.zeros(D)
    sae = ExportedSAE("abstopk", cfg, {"W_enc": torch.eye(D), "W_dec": torch.eye(D), "b_dec": zeros, "b_enc": zeros})
    acts = torch.zeros(3, 6, D)
    acts[0, 2, 1], acts[0, 3, 1], acts[1, 4, 1] = 2.0, -1.0, -4.0
    found = scan(sae, Text(acts, 100), "h", 10**6)
    assert (int(found.fired_F[1]), float(found.sum_F[1]), float(found.max_F[1])) == (3, 7.0, 4.0)
    assert int(found.peak_token_F[1]) == 1 * 6 + 4
    (latent,) = described(sae, Text(acts, 100), [1])
    assert [(e.context, e.peak, e.activations) for e in latent.examples] == [
        (1, 4, {4: -4.0}),
        (0, 2, {2: 2.0, 3: -1.0}),
    ]
    assert [i for i, n in enumerate(latent.histogram) if n] == [4, 9, BINS - 1]  # 1, 2 and 4 of 4


def test_an_example_never_reaches_across_documents(sae: ExportedSAE) -> None:
    acts = torch.zeros(1, 30, D)
    acts[0, 12, 1], acts[0, 25, 1] = 4.0, 1.0
    text = Text(acts, 100)
    text.tokens_NT[0, [8, 20]] = SEPARATOR
    (latent,) = described(sae, text, [1], separators={SEPARATOR})
    (example,) = latent.examples
    assert (example.begin, example.end) == (9, 20)
    assert example.activations == {12: 4.0}  # what fires in the next document is not of this one


def test_examples_come_from_every_part_of_the_range_too(sae: ExportedSAE) -> None:
    acts = torch.zeros(60, 5, D)
    acts[:, 2, 0] = torch.linspace(0.1, 8.0, 60)
    (latent,) = described(sae, Text(acts, 64), [0])
    top = [e for e in latent.examples if e.interval is None]
    assert [e.context for e in top] == list(range(59, 51, -1))
    for interval in range(4):
        members = [e.activations[e.peak] for e in latent.examples if e.interval == interval]
        assert len(members) == 2
        assert all(2.0 * interval - 0.05 < value < 2.0 * (interval + 1) + 0.05 for value in members)
    assert [e.interval for e in latent.examples if e.interval is not None] == [3, 3, 2, 2, 1, 1, 0, 0]


def test_a_latent_that_never_fires_has_no_examples(sae: ExportedSAE) -> None:
    (latent,) = described(sae, Text(torch.zeros(2, 4, D), 8), [0])
    assert (latent.examples, sum(latent.histogram)) == ([], 0)


def test_promoted_tokens_are_decoder_times_unembedding_less_the_mean(sae: ExportedSAE) -> None:
    unembedding = torch.zeros(6, D)
    unembedding[:, 1] = torch.tensor([3.0, -3.0, 1.0, 0.0, 0.0, 5.0])
    (latent,) = described(sae, Text(torch.ones(1, 3, D), 8), [1], unembedding_VD=unembedding)
    assert latent.promoted[:2] == [(5, pytest.approx(4.0)), (0, pytest.approx(2.0))]
    assert latent.suppressed[0] == (1, pytest.approx(-4.0))


def test_output_tokens_need_a_hook_as_wide_as_the_unembedding(sae: ExportedSAE) -> None:
    (latent,) = described(sae, Text(torch.ones(1, 3, D), 8), [1], unembedding_VD=torch.ones(6, D + 1))
    assert latent.promoted == []


def test_neighbours_are_by_the_angle_of_decoder_directions() -> None:
    w_dec = torch.tensor([[1.0, 0, 0, 0], [5.0, 5.0, 0, 0], [0, 0, 1.0, 0], [-1.0, 0, 0, 0.1]])
    sae = sae_of(w_dec)
    text = Text(torch.ones(1, 3, D), 8)
    (latent,) = described(sae, text, [0])
    assert [n for n, _ in latent.neighbours] == [1, 2, 3]
    assert latent.neighbours[0][1] == pytest.approx(2**-0.5)
    other = sae_of(w_dec.roll(1, 0))
    ((found,),) = nearest(sae, other, [2], 1, scan(other, text, "h", 10**6))
    assert found == (3, pytest.approx(1.0))


def test_a_latent_that_never_fires_is_nobodys_neighbour(sae: ExportedSAE) -> None:
    acts = torch.ones(1, 3, D)
    acts[..., 3] = 0
    text = Text(acts, 8)
    (latent,) = described(sae, text, [0])
    assert sorted(n for n, _ in latent.neighbours) == [1, 2]
    ((found,),) = nearest(sae, sae, [3], 1, scan(sae, text, "h", 10**6))
    assert found[0] != 3
    nothing_fires = scan(sae, Text(torch.zeros(1, 3, D), 8), "h", 10**6)
    assert nearest(sae, sae, [0, 1], 1, nothing_fires) == [[], []]


def test_synthetic_activations_have_no_text(sae: ExportedSAE) -> None:
    text = Text(torch.ones(1, 3, D), 8)
    tokens = text.tokens_NT
    text.tokens_NT = None  # type: ignore[assignment]
    with pytest.raises((ValueError, AssertionError)):
        scan(sae, text, "h", 9)
    text.tokens_NT, text.mask_NT = tokens, None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="no text"):
        scan(sae, text, "h", 9)


@pytest.mark.parametrize("n_tokens", [20, 8_000, 200_000, 10_000_000])
def test_bands_fit_the_tokens_that_were_counted(n_tokens: int) -> None:
    densities = [0.0, 1 / n_tokens, *(10**-e for e in (0.5, 1.5, 2.5, 3.5)), 10 / n_tokens, 1.0]
    bands = bands_of(densities, n_tokens)
    assert sum(band.n_latents for band in bands) == len(densities)
    assert [bands[band_index(bands, d)].low <= d < bands[band_index(bands, d)].high for d in densities] == [True] * len(
        densities
    )
    assert bands[-1].name == "never fires"
    assert bands[-2].name == f"fires on fewer than 10 of {n_tokens:,} tokens"
    if n_tokens > 1000:
        assert bands[0].high <= 0.01  # interpretable ones first
