"""Aligned training: inner products stay 1, and steps are those of autograd through the free vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saesweep.cohort import Cohort, GradientEngine, ReferenceEngine, Slot
from saesweep.cohort.alignment import align_, align_gradients_, aligned_vectors
from saesweep.cohort.kernels import SparseEngine
from saesweep.saes import Knobs, Normalizer, Params, architecture_for, save_sae_folder
from saesweep.specs import BaseRun
from saesweep.specs.architectures import architectures, spec_class

D, F, B, STEPS = 12, 48, 64, 30
HOOK = "h"
OPTIONS: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 0.5},
    "jumprelu": {
        "l0_coefficient": 0.1,
        "jumprelu_sparsity_loss_mode": "tanh",
        "jumprelu_bandwidth": 0.6,
        "pre_act_loss_coefficient": 0.1,
    },
    "topk": {"k": 5},
    "batchtopk": {"k": 4.5},
    "matryoshka_batchtopk": {"k": 4.5, "matryoshka_widths": [8, 20]},
    "abstopk": {"k": 5},
    "multi_k": {"k": 5},
}
CROSSCODERS = [name for name in architectures() if name.endswith("_crosscoder")]
ENGINES = pytest.mark.parametrize("engine", [ReferenceEngine(), SparseEngine()], ids=["reference", "sparse"])


def make_run(architecture: str = "topk", dtype: str = "float64", **sae: Any) -> BaseRun:
    own = {**OPTIONS[architecture.removesuffix("_crosscoder").removesuffix("_transcoder")], "aligned": True, **sae}
    if architecture.endswith("_crosscoder"):
        own |= {"n_layers": 3}
    return BaseRun.model_validate(
        {
            "dataset_path": "x",
            "hook_name": HOOK,
            "training_tokens": STEPS * B,
            "train_batch_size_tokens": B,
            "lr": 3e-3,
            "lr_warm_up_steps": 4,
            "dead_feature_window": 5,
            "sae": {"architecture": architecture, "d_in": D, "d_sae": F, "dtype": dtype, **own},
        }
    )


def batches(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, D, generator=generator, dtype=torch.float64)
    rows = [(torch.rand(B, 64, generator=generator, dtype=torch.float64) > 0.9).double() for _ in range(STEPS)]
    return [(row @ features).to(dtype) for row in rows]


def start(run: BaseRun, engine: GradientEngine | None = None, seed: int = 7) -> tuple[Cohort, Slot]:
    cohort = Cohort(1, normalizers={(HOOK, "none"): Normalizer(mode="none")}, device="cpu", engine=engine)
    slot = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=seed, device="cpu")
    slot.params["b_enc"][::5] = -1e3  # silent: the losses on dead latents have something to do
    cohort.place(0, slot)
    cohort.begin_block()
    return cohort, slot


def products_of(params: Params) -> Tensor:
    """From the definition, in float64."""
    return torch.einsum("df,fd->f", params["W_enc"].double(), params["W_dec"].double())


def random_params(run: BaseRun) -> Params:
    """Weights away from their symmetric start, as a step leaves them."""
    generator = torch.Generator().manual_seed(3)
    params = architecture_for(run.sae).init(generator, dtype=torch.float64)
    for name, tensor in params.items():
        if name != "threshold":
            tensor += 0.3 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    align_(params)
    return params


def through_free_vectors(leaves: Params) -> Params:
    """The weights as a function of what trains."""
    e_FD, d_FD = aligned_vectors(leaves["W_enc"].t(), leaves["W_dec"])
    return {**leaves, "W_enc": e_FD.t(), "W_dec": d_FD}


@pytest.mark.parametrize("architecture", [*OPTIONS, *CROSSCODERS])
def test_gradients_are_those_of_autograd_through_the_free_vectors(architecture: str) -> None:
    run = make_run(architecture)
    arch, params, x = architecture_for(run.sae), random_params(run), batches()[0]
    knobs, dead = Knobs.from_spec(run.sae), torch.arange(F) % 4 == 0
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    arch.forward(through_free_vectors(leaves), x, knobs, dead).loss.backward()
    grads = ReferenceEngine().step(arch, params, x, knobs, dead).grads
    before = {name: grad.clone() for name, grad in grads.items()}
    align_gradients_(params, grads)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        torch.testing.assert_close(grads[name], leaf.grad, rtol=1e-11, atol=1e-12)
        assert torch.equal(grads[name], before[name]) == (name not in ("W_enc", "W_dec"))


@pytest.mark.parametrize("architecture", [*OPTIONS, *CROSSCODERS])
@ENGINES
def test_training_is_that_of_torch_s_adam_on_the_free_vectors(architecture: str, engine: GradientEngine) -> None:
    run = make_run(architecture)
    cohort, slot = start(run, engine)
    arch = slot.architecture
    leaves = {name: p.clone().requires_grad_() for name, p in slot.params.items()}
    optimizer = torch.optim.Adam(list(leaves.values()), lr=1.0)
    silent_F = torch.zeros(F)
    for step, x in enumerate(batches()):
        cohort.train_step({HOOK: x})
        optimizer.param_groups[0]["lr"] = slot.lr.at(step)
        dead_F = silent_F > slot.loss_window_steps
        out = arch.forward(through_free_vectors(leaves), x, slot.knobs_at(step), dead_F if bool(dead_F.any()) else None)
        optimizer.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(list(leaves.values()), 1.0)
        optimizer.step()
        with torch.no_grad():
            for name, p in through_free_vectors(leaves).items():
                leaves[name].copy_(p)
            arch.constrain_(leaves)
        silent_F = torch.where((out.feature_acts_BF != 0).any(0), 0.0, silent_F + 1)
    for name, expected in leaves.items():
        torch.testing.assert_close(slot.params[name], expected.detach(), rtol=1e-8, atol=1e-10)
    free = {name: p.clone() for name, p in slot.params.items()}
    other_cohort, other = start(make_run(architecture, aligned=False), engine)
    for x in batches():
        other_cohort.train_step({HOOK: x})
    assert not torch.allclose(other.params["W_enc"], free["W_enc"], rtol=1e-2)
    assert not torch.allclose(products_of(other.params), torch.ones(F, dtype=torch.float64), atol=1e-2)


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-14), ("float32", 1e-6)])
@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", [*OPTIONS, *CROSSCODERS])
def test_inner_products_are_1_from_the_start_to_the_end(
    architecture: str, moments: Any, dtype: str, bound: float
) -> None:
    run = make_run(architecture, dtype)
    slot = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=7, device="cpu", adam_moments=moments)
    cohort = Cohort(1, normalizers={(HOOK, "none"): Normalizer(mode="none")}, device="cpu", engine=SparseEngine())
    cohort.place(0, slot)
    cohort.begin_block()
    first = {name: p.clone() for name, p in slot.params.items()}
    for x in [None, *batches(slot.params["W_dec"].dtype)]:
        if x is not None:
            cohort.train_step({HOOK: x})
        assert float((products_of(slot.params) - 1).abs().max()) < bound
        assert float((slot.params["W_dec"].double().norm(dim=1) - 1).abs().max()) < bound
    assert not torch.equal(first["W_enc"], slot.params["W_enc"])
    assert slot.params["W_enc"].t().is_contiguous()


def test_the_encoder_starts_as_the_decoder() -> None:
    slot = Slot(trial=0, run=make_run(), joined_at_tokens=0, init_seed=7, device="cpu")
    torch.testing.assert_close(slot.params["W_enc"].t(), slot.params["W_dec"], rtol=1e-6, atol=0)
    plain = make_run(aligned=False, decoder_init_norm=1.0)
    drawn = architecture_for(plain.sae).init(torch.Generator().manual_seed(7), dtype=torch.float64)
    torch.testing.assert_close(slot.params["W_dec"], drawn["W_dec"], rtol=1e-6, atol=0)


def test_replacing_the_free_vectors_changes_nothing_but_rounding() -> None:
    params = random_params(make_run())
    generator = torch.Generator().manual_seed(1)
    for name in ("W_enc", "W_dec"):  # free vectors of another length, a little apart
        params[name] += 0.02 * torch.randn(params[name].shape, generator=generator, dtype=torch.float64)
    params["W_enc"] *= 1.4
    params["W_dec"] *= 0.9
    e_FD, d_FD = aligned_vectors(params["W_enc"].t(), params["W_dec"])
    direction = torch.nn.functional.normalize(params["W_enc"].t(), dim=1)
    torch.testing.assert_close(torch.nn.functional.normalize(e_FD, dim=1), direction)
    align_(params)
    torch.testing.assert_close(params["W_enc"].t(), e_FD, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(params["W_dec"], d_FD, rtol=1e-12, atol=1e-14)
    again = {name: p.clone() for name, p in params.items()}
    align_(again)
    for name, p in params.items():
        torch.testing.assert_close(again[name], p, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("product", [0.3, 0.0, -2.0])
def test_an_encoder_vector_that_turned_away_comes_back_without_growing(product: float) -> None:
    params = random_params(make_run())
    params["W_enc"] += (product - 1.0) * params["W_dec"].t()
    before = params["W_enc"].clone()
    align_(params)
    torch.testing.assert_close(products_of(params), torch.ones(F, dtype=torch.float64))
    across = before - product * params["W_dec"].t()
    torch.testing.assert_close(params["W_enc"], 2.0 * across + params["W_dec"].t())


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    params = random_params(run)
    grads = {
        name: torch.randn_like(p) for name, p in params.items()
    }  # in the layout of the weights, as kernels give them
    whole, whole_grads = ({name: p.clone() for name, p in each.items()} for each in (params, grads))
    monkeypatch.setattr("saesweep.cohort.alignment._BLOCK_ELEMENTS", 5 * D)
    align_gradients_(params, grads)
    align_(params)
    monkeypatch.undo()
    align_gradients_(whole, whole_grads)
    align_(whole)
    for name in params:
        assert torch.equal(params[name], whole[name])
        assert torch.equal(grads[name], whole_grads[name])


def test_a_decoder_vector_of_0_harms_nothing() -> None:
    params = random_params(make_run())
    params["W_dec"][3] = 0
    grads = {name: torch.ones_like(p) for name, p in params.items()}
    align_gradients_(params, grads)
    align_(params)
    assert not params["W_dec"][3].any()
    assert all(bool(torch.isfinite(each[name]).all()) for each in (params, grads) for name in params)


def test_resampled_latents_are_aligned() -> None:
    run = make_run("standard", resample_steps=10)
    cohort, slot = start(run)
    for x in batches()[:11]:
        cohort.train_step({HOOK: x})
    torch.testing.assert_close(slot.params["W_enc"].t()[::5], slot.params["W_dec"][::5], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slot.params["W_dec"][::5].norm(dim=1), torch.ones(10, dtype=torch.float64))
    assert float((products_of(slot.params) - 1).abs().max()) < 1e-14


@pytest.mark.parametrize(
    ("architecture", "sae"), [("batchtopk", {}), ("standard", {"resample_steps": 8, "p_end": 0.5})]
)
@ENGINES
def test_a_restored_slot_continues_bit_for_bit(architecture: str, sae: dict[str, Any], engine: GradientEngine) -> None:
    run, data = make_run(architecture, "float32", **sae), batches(torch.float32)
    cohort, slot = start(run, engine)
    for x in data[:13]:
        cohort.train_step({HOOK: x})
    meta, tensors = slot.meta(), {n: t.clone().contiguous() for n, t in slot.tensors().items()}
    again, other = start(run, engine, seed=7)
    other.load(tensors, meta)
    for x in data[13:]:
        cohort.train_step({HOOK: x})
        again.train_step({HOOK: x})
    for name, tensor in slot.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name


@pytest.mark.parametrize("mode", ["none", "expected_average_only_in", "covariance_whitening"])
@pytest.mark.parametrize("architecture", OPTIONS)
def test_inner_products_of_exported_saes_are_1(architecture: str, mode: Any) -> None:
    run = make_run(architecture, normalize_activations=mode)
    data = [3.0 * x + 0.5 for x in batches()]
    normalizer = Normalizer.fit(mode, data[:4], D)
    cohort = Cohort(1, normalizers={(HOOK, mode): normalizer}, device="cpu")
    slot = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=7, device="cpu")
    cohort.place(0, slot)
    cohort.begin_block()
    for x in data[:8]:
        cohort.train_step({HOOK: x})
    exported = cohort.export(slot)
    torch.testing.assert_close(products_of(exported.tensors), torch.ones(F, dtype=torch.float64))
    assert exported.cfg["metadata"]["training_architecture_details"]["aligned"] is True


def test_weights_that_were_read_are_aligned_before_the_first_step(tmp_path: Path) -> None:
    cohort, slot = start(make_run(aligned=False))
    for x in batches():
        cohort.train_step({HOOK: x})
    save_sae_folder(tmp_path / "sae", cohort.export(slot), sparsity_F=None)
    run = make_run().model_copy(update={"from_pretrained_path": str(tmp_path / "sae")})
    _, tuned = start(run)
    assert float((products_of(tuned.params) - 1).abs().max()) < 1e-14
    torch.testing.assert_close(tuned.params["W_dec"], torch.nn.functional.normalize(slot.params["W_dec"], dim=1))


@pytest.mark.parametrize(
    ("sae", "field", "said"),
    [
        ({"architecture": "topk_transcoder", "d_out": D}, "sae.aligned", "two spaces"),
        ({"architecture": "standard_skip_transcoder", "d_out": D}, "sae.aligned", "two spaces"),
        ({"architecture": "topk", "decoder_init_norm": 0.1}, "sae.decoder_init_norm", "at norm 1"),
        ({"architecture": "standard", "decoder_init_norm": None}, "sae.decoder_init_norm", "at norm 1"),
    ],
)
def test_what_cannot_be_combined_is_refused(sae: dict[str, Any], field: str, said: str) -> None:
    own = {"d_in": D, "d_sae": F, "aligned": True, **sae}
    assert said in dict(BaseRun.model_validate({"dataset_path": "x", "sae": own}).problems())[field]


def test_who_has_it() -> None:
    without = {name for name in architectures() if "aligned" not in spec_class(name).model_fields}
    assert without == {"gated", "matching_pursuit", "gated_transcoder", "gated_skip_transcoder"}
    assert not any(spec_class(name).model_fields["aligned"].default for name in set(architectures()) - without)
