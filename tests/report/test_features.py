"""What a latent fires on, against an SAE whose latents are single dimensions of the activations."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from saesweep.activations.held_out import HeldOut
from saesweep.report.features import BANDS, band_of, describe_latents, sample_latents
from saesweep.saes import ExportedSAE

D = 4


class Text(HeldOut):
    """Contexts whose activations are given; position 0 of each does not count."""

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


@pytest.fixture
def sae() -> ExportedSAE:
    cfg = {
        "architecture": "standard",
        "d_in": D,
        "d_sae": D,
        "dtype": "float32",
        "device": "cpu",
        "metadata": {},
        "apply_b_dec_to_input": False,
    }
    eye = torch.eye(D)
    return ExportedSAE(
        "standard", cfg, {"W_enc": eye, "W_dec": eye.clone(), "b_dec": torch.zeros(D), "b_enc": torch.zeros(D)}
    )


@pytest.mark.parametrize("batch_tokens", [3, 7, 1000])
def test_the_strongest_contexts_come_first_with_their_tokens(sae: ExportedSAE, batch_tokens: int) -> None:
    acts = torch.zeros(5, 10, D)
    acts[1, 6, 2], acts[1, 7, 2], acts[3, 1, 2], acts[4, 9, 2] = 2.0, 1.0, 5.0, 3.0
    acts[2, 0, 2] = 99.0  # does not count
    (latent,) = describe_latents(
        sae,
        Text(acts, batch_tokens),
        "h",
        {2: 1},
        max_tokens=10**6,
        unembedding_VD=None,
        contexts_shown=2,
        tokens_before=2,
        tokens_after=1,
    )
    assert latent.density == pytest.approx(4 / 45)
    assert latent.mean_active == pytest.approx(11 / 4)
    assert latent.maximum == 5.0
    assert [s.tokens for s in latent.snippets] == [[30, 31, 32], [47, 48, 49]]
    assert [s.peak for s in latent.snippets] == [1, 2]
    assert latent.snippets[1].activations == [0.0, 0.0, 3.0]
    assert latent.promoted == latent.suppressed == []


def test_a_latent_that_never_fires_says_so(sae: ExportedSAE) -> None:
    (latent,) = describe_latents(sae, Text(torch.zeros(2, 4, D), 8), "h", {0: 0}, max_tokens=100, unembedding_VD=None)
    assert (latent.density, latent.maximum, latent.snippets) == (0.0, 0.0, [])


def test_promoted_tokens_are_decoder_times_unembedding_less_the_mean(sae: ExportedSAE) -> None:
    unembedding = torch.zeros(6, D)
    unembedding[:, 1] = torch.tensor([3.0, -3.0, 1.0, 0.0, 0.0, 5.0])
    (latent,) = describe_latents(
        sae, Text(torch.ones(1, 3, D), 8), "h", {1: 0}, max_tokens=9, unembedding_VD=unembedding, output_tokens=2
    )
    assert latent.promoted == [(5, pytest.approx(4.0)), (0, pytest.approx(2.0))]
    assert latent.suppressed[0] == (1, pytest.approx(-4.0))


def test_output_tokens_need_a_hook_as_wide_as_the_unembedding(sae: ExportedSAE) -> None:
    (latent,) = describe_latents(
        sae, Text(torch.ones(1, 3, D), 8), "h", {1: 0}, max_tokens=9, unembedding_VD=torch.ones(6, D + 1)
    )
    assert latent.promoted == []


def test_synthetic_activations_have_no_text(sae: ExportedSAE) -> None:
    text = Text(torch.ones(1, 3, D), 8)
    text.tokens_NT = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="no text"):
        describe_latents(sae, text, "h", {0: 0}, max_tokens=9, unembedding_VD=None)


def test_the_sample_takes_every_band_and_what_is_asked_for() -> None:
    frequencies = [-10.0] * 50 + [-2.5] * 50 + [-0.5] * 2
    chosen = sample_latents(frequencies, 5, seed=0, always=[99])
    bands = list(chosen.values())
    assert {band: bands.count(band) for band in set(bands)} in ({0: 5, 3: 5, 5: 2}, {0: 5, 3: 6, 5: 2})
    assert chosen[99] == 3
    assert bands == sorted(bands, reverse=True)
    assert chosen == sample_latents(frequencies, 5, seed=0, always=[99])
    assert chosen != sample_latents(frequencies, 5, seed=1, always=[99])


@pytest.mark.parametrize("value", [-10.0, -9.0, -4.0, -3.99, -1.0, 0.0])
def test_every_frequency_has_one_band(value: float) -> None:
    low, high, _ = BANDS[band_of(value)]
    assert low <= value < high
