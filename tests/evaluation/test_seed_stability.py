"""Which latents two replicates share, against plain float64 code and against the Hungarian assignment of the paper."""

import math
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from saesweep.evaluation import seed_stability
from saesweep.saes import ExportedSAE

D = 16


def sae_of(decoder_FD: Tensor, encoder_FD: Tensor | None = None) -> ExportedSAE:
    n_latents, width = decoder_FD.shape
    cfg = {"architecture": "standard", "d_in": width, "d_sae": n_latents, "dtype": "float32", "metadata": {}}
    encoder_FD = decoder_FD if encoder_FD is None else encoder_FD
    tensors = {"W_enc": encoder_FD.T, "W_dec": decoder_FD, "b_enc": torch.zeros(n_latents), "b_dec": torch.zeros(width)}
    return ExportedSAE("standard", cfg, tensors)


def all_live(*saes: ExportedSAE) -> list[Tensor]:
    return [torch.ones(sae.d_sae, dtype=torch.bool) for sae in saes]


def cosines(first_AD: Tensor, second_BD: Tensor) -> np.ndarray:
    a, b = first_AD.double().numpy(), second_BD.double().numpy()
    return np.asarray((a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T)


def plain_pairs(cosine_AB: np.ndarray, competing: bool = True) -> set[tuple[int, int]]:
    """Pairs above 0.7 of a dense assignment: of such pairs alone, or, as in the paper, of all."""
    own = np.where(cosine_AB > 0.7, cosine_AB, 0) if competing else cosine_AB
    chosen = zip(*linear_sum_assignment(own, maximize=True), strict=True)
    return {(int(a), int(b)) for a, b in chosen if cosine_AB[a, b] > 0.7}


def two_seeds(seed: int, n_latents: int = 120) -> list[Tensor]:
    """Dictionaries with shared, split and own directions, in different orders: decoders, then encoders, of both."""
    generator = torch.Generator().manual_seed(seed)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(n_latents, D, generator=generator)

    true_FD = noise(1.0)
    true_FD[: n_latents // 4] = true_FD[n_latents // 4 : n_latents // 2] + noise(0.5)[: n_latents // 4]
    found = []
    for _ in range(2):
        order = torch.randperm(n_latents, generator=generator)
        decoder_FD = (true_FD + noise(0.6) * torch.rand(n_latents, 1, generator=generator))[order]
        decoder_FD[: n_latents // 5] = noise(1.0)[: n_latents // 5]
        found += [decoder_FD, decoder_FD + noise(0.5)]
    return [found[0], found[2], found[1], found[3]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("elements", [1, 1000, 1 << 21])
def test_it_is_the_best_matching_of_the_pairs_above_the_threshold(
    seed: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["saesweep.evaluation.decoder_cosine"], "_CPU_PIECE_ELEMENTS", elements)
    dec, other_dec, enc, other_enc = two_seeds(seed)
    saes = [sae_of(dec, enc), sae_of(other_dec, other_enc)]
    decoder = plain_pairs(cosines(dec, other_dec))
    encoder = plain_pairs(cosines(enc, other_enc))
    assert seed_stability(saes, all_live(*saes)) == pytest.approx(
        {"seed_stability": len(decoder) / 120, "seed_stability_both": len(decoder & encoder) / 120}
    )
    # The paper's assignment of all latents counts nearly as many: it may choose other ones of near equals.
    paper = plain_pairs(cosines(dec, other_dec), competing=False)
    assert 30 < len(paper) < 110
    assert abs(len(paper) - len(decoder)) <= 4


def test_the_same_latents_in_another_order_are_all_found_again() -> None:
    rows_FD = torch.randn(50, D, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    saes = [sae_of(rows_FD), sae_of(3 * rows_FD[order])]
    assert seed_stability(saes, all_live(*saes)) == {"seed_stability": 1.0, "seed_stability_both": 1.0}
    # A latent that points the other way is another one.
    saes = [sae_of(rows_FD), sae_of(-rows_FD)]
    assert seed_stability(saes, all_live(*saes))["seed_stability"] < 0.1


def test_encoders_that_choose_another_partner_are_no_match_of_both() -> None:
    eye = torch.eye(4)
    saes = [sae_of(eye), sae_of(eye, eye[[1, 0, 2, 3]])]
    assert seed_stability(saes, all_live(*saes)) == {"seed_stability": 1.0, "seed_stability_both": 0.5}


def test_latents_that_never_fire_are_left_out_of_both_sides() -> None:
    eye = torch.eye(4)
    saes = [sae_of(eye), sae_of(eye)]
    live = [torch.tensor([True, True, False, False]), torch.tensor([True, True, True, True])]
    # Two of two are found again one way, two of four the other way.
    assert seed_stability(saes, live)["seed_stability"] == 0.75
    live[0][:] = False
    assert all(math.isnan(value) for value in seed_stability(saes, live).values())


def test_a_single_replicate_has_none_and_several_are_averaged_over_their_pairs() -> None:
    eye = torch.eye(4)
    assert math.isnan(seed_stability([sae_of(eye)], all_live(sae_of(eye)))["seed_stability"])
    half = eye.clone()
    half[2:] = -half[2:]
    saes = [sae_of(eye), sae_of(eye), sae_of(half)]
    assert seed_stability(saes, all_live(*saes))["seed_stability"] == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_many_copies_of_one_direction_match_one_to_one() -> None:
    # More candidates than compete: all of 100 copies are near all of 40.
    ones = torch.ones(1, D)
    few = torch.cat([ones.expand(40, D), torch.randn(60, D, generator=torch.Generator().manual_seed(2)) * 0.1 - ones])
    saes = [sae_of(ones.repeat(100, 1)), sae_of(few)]
    assert seed_stability(saes, all_live(*saes))["seed_stability"] == pytest.approx(0.4, abs=0.09)
