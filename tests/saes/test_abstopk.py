"""Latents with signs."""

import pytest
import torch

from saesweep.cohort import ReferenceEngine
from saesweep.errors import UserError
from saesweep.saes import Knobs, Normalizer, architecture_for

from .plain_formulas import BATCH, make_batch, make_params, make_spec


def test_it_keeps_k_per_token_by_magnitude_with_their_signs() -> None:
    spec = make_spec("abstopk")
    architecture, params, x_BD = architecture_for(spec), make_params(spec), make_batch()
    acts_BF = architecture.encode(params, x_BD)
    assert (acts_BF != 0).sum(1).tolist() == [5] * BATCH
    assert bool((acts_BF < 0).any())
    assert bool((acts_BF > 0).any())
    hidden_BF = architecture.encode_parts(params, architecture.encoder_input(params, x_BD), Knobs(k=5))[1]
    largest_left_out_B = hidden_BF.masked_fill(acts_BF != 0, 0).abs().amax(1)
    assert bool((acts_BF.masked_fill(acts_BF == 0, torch.inf).abs().amin(1) >= largest_left_out_B).all())


def test_a_latent_that_is_negative_has_fired() -> None:
    spec = make_spec("abstopk")
    params, x_BD = make_params(spec), make_batch()
    step = ReferenceEngine().step(architecture_for(spec), params, x_BD, Knobs(k=5), None)
    acts_BF = architecture_for(spec).encode(params, x_BD)
    assert torch.equal(step.firing_F, (acts_BF != 0).sum(0))
    assert bool(((acts_BF < 0).any(0) & ~(acts_BF > 0).any(0) & (step.firing_F > 0)).any())


def test_turning_every_direction_round_turns_the_latents_and_nothing_else() -> None:
    spec = make_spec("abstopk")
    params, x_BD = make_params(spec), make_batch()
    turned = {name: -tensor if name != "b_dec" else tensor for name, tensor in params.items()}
    exported, other = (architecture_for(spec).export(p, Normalizer(mode="none")) for p in (params, turned))
    torch.testing.assert_close(other.encode(x_BD), -exported.encode(x_BD))
    torch.testing.assert_close(other(x_BD), exported(x_BD))


def test_more_than_d_sae_cannot_be_active() -> None:
    with pytest.raises(UserError, match=r"sae.k: 41 is more than d_sae 40"):
        architecture_for(make_spec("abstopk", k=41))
