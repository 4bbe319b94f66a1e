"""One topk SAE for several k."""

from typing import Any

import pytest
import torch

from saesweep.errors import UserError
from saesweep.saes import Knobs, Normalizer, architecture_for
from saesweep.specs.architectures import spec_class

from .plain_formulas import denormalized, make_batch, make_dead, make_params, make_spec


def test_with_one_level_it_is_topk() -> None:
    spec, dead_F, knobs = make_spec("multi_k", ks=(5,)), make_dead(0.5), Knobs(k=5)
    params, x_BD = make_params(spec), make_batch()
    ours = architecture_for(spec).forward(params, x_BD, knobs, dead_F)
    topk = architecture_for(make_spec("topk")).forward(params, x_BD, knobs, dead_F)
    for name, value in topk.losses.items():
        assert float(ours.losses[name]) == pytest.approx(float(value), rel=1e-12), name


def test_the_loss_is_the_mean_of_topk_s_at_every_level() -> None:
    spec = make_spec("multi_k", ks=(2, 3, 7))
    params, x_BD = make_params(spec), make_batch()
    alone = [
        float(architecture_for(make_spec("topk", k=k)).forward(params, x_BD, Knobs(k=k)).losses["mse_loss"])
        for k in (2, 3, 7)
    ]
    ours = architecture_for(spec).forward(params, x_BD, Knobs.from_spec(spec)).losses["mse_loss"]
    assert float(ours) == pytest.approx(sum(alone) / 3, rel=1e-12)


@pytest.mark.parametrize(
    ("given", "k", "levels"),
    [
        ({"k": 64}, 64, (8, 16, 32, 64)),
        ({"k": 3}, 3, (1, 3)),
        ({"ks": [4, 8]}, 8, (4, 8)),
        ({"ks": [4, 8], "k": 5}, 5, (4, 8)),
        ({}, 100, (12, 25, 50, 100)),
    ],
)
def test_what_trains_and_what_is_exported(given: dict[str, Any], k: int, levels: tuple[int, ...]) -> None:
    spec: Any = spec_class("multi_k").model_validate({"d_in": 12, "d_sae": 256, **given})
    assert (spec.k, spec.levels) == (k, levels)


@pytest.mark.parametrize("k", [3, 7])
@pytest.mark.parametrize("mode", ["none", "expected_average_only_in", "covariance_whitening"])
def test_the_export_is_a_topk_of_k_and_its_weights_serve_every_k(k: int, mode: str) -> None:
    spec = make_spec("multi_k", ks=(3, 7), k=k, normalize_activations=mode, dtype="float64")
    architecture, params, x_BD = architecture_for(spec), make_params(spec), 3 * make_batch()
    normalizer = Normalizer.fit(spec.normalize_activations, [x_BD], 12)
    exported = architecture.export(params, normalizer)
    assert (exported.architecture, exported.cfg["k"]) == ("topk", k)
    for level in (3, 7):
        topk = architecture_for(make_spec("topk", k=level, normalize_activations=mode, dtype="float64"))
        trained = topk.forward(params, normalizer.apply(x_BD), Knobs(k=level))
        at_level = exported.at_k(level)
        assert torch.equal(at_level.encode(x_BD) != 0, trained.feature_acts_BF != 0)
        torch.testing.assert_close(at_level(x_BD), denormalized(normalizer, trained.recon_BD), rtol=1e-8, atol=1e-8)
    details = exported.metadata["training_architecture_details"]
    assert (exported.metadata["training_architecture"], details["ks"]) == ("multi_k", [3, 7])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": (7, 3)}, r"sae.ks: \[7, 3\] must be positive and strictly ascending"),
        ({"ks": (0, 5)}, "positive and strictly ascending"),
        ({"ks": (5, 41)}, "sae.ks: 41 is more than d_sae 40"),
        ({"ks": (2, 5), "k": 6}, "sae.k: 6 is more than the largest of ks, 5"),
        ({"ks": (), "k": 41}, "sae.k: 41 is more than d_sae 40"),
    ],
)
def test_k_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        architecture_for(make_spec("multi_k", **options))
