"""The cohort through its public door: lockstep training, independence of slots, exact restore."""

from typing import Any

import pytest
import torch
from torch import Tensor

from saesweep.cohort import Cohort, Slot
from saesweep.cohort import cohort as cohort_module
from saesweep.saes import Knobs, Normalizer, architecture_for
from saesweep.specs import BaseRun
from tests.saes.plain_formulas import denormalized

D, F, B = 12, 48, 64
HOOK = "h"
SPECS: dict[str, dict[str, Any]] = {
    "topk": {"k": 4},
    "batchtopk": {"k": 4},
    "matryoshka_batchtopk": {"k": 4, "matryoshka_widths": [12, 24]},
    "abstopk": {"k": 4},
    "multi_k": {"ks": [2, 4], "k": 4},
    "matching_pursuit": {"max_iterations": 4, "decoder_init_norm": 1.0},
    "standard": {"l1_coefficient": 2.0},
    "gated": {"l1_coefficient": 2.0},
    "jumprelu": {"jumprelu_sparsity_loss_mode": "tanh", "jumprelu_bandwidth": 2.0, "l0_coefficient": 0.5},
}


def make_run(architecture: str, **fields: Any) -> BaseRun:
    sae = {"architecture": architecture, "d_in": D, "d_sae": F, "dtype": "float64", **SPECS[architecture]}
    sae.update(fields.pop("sae", {}))
    return BaseRun.model_validate(
        {
            "dataset_path": "x",
            "hook_name": HOOK,
            "training_tokens": 40 * B,
            "train_batch_size_tokens": B,
            "lr": 3e-3,
            "lr_warm_up_steps": 3,
            "lr_decay_steps": 5,
            "dead_feature_window": 4,
            "sae": sae,
            **fields,
        }
    )


def batches(n: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, D, generator=generator, dtype=torch.float64)
    return [
        {HOOK: (torch.rand(B, 64, generator=generator, dtype=torch.float64) > 0.9).double() @ features}
        for _ in range(n)
    ]


def new_cohort(runs: list[BaseRun], n_slots: int | None = None) -> tuple[Cohort, list[Slot]]:
    normalizers = {(HOOK, "none"): Normalizer(mode="none")}
    cohort = Cohort(n_slots or len(runs), normalizers=normalizers, device="cpu")
    slots = [Slot(trial=i, run=run, joined_at_tokens=0, init_seed=7, device="cpu") for i, run in enumerate(runs)]
    for index, slot in enumerate(slots):
        cohort.place(index, slot)
    cohort.begin_block()
    return cohort, slots


@pytest.mark.parametrize("architecture", list(SPECS))
def test_a_slot_trains_as_torch_adam_with_clipping_does(architecture: str) -> None:
    run = make_run(architecture)
    cohort, (slot,) = new_cohort([run])
    arch = architecture_for(run.sae)
    params = {
        n: p.clone().requires_grad_()
        for n, p in arch.init(torch.Generator().manual_seed(7), dtype=torch.float64).items()
    }
    optimizer = torch.optim.Adam(list(params.values()), lr=1.0)
    silent = torch.zeros(F)
    for step, batch in enumerate(batches(15)):
        cohort.train_step(batch)
        optimizer.param_groups[0]["lr"] = slot.lr.at(step)
        dead = silent > 4
        knobs = Knobs.from_spec(run.sae)
        out = arch.forward(params, batch[HOOK], knobs, dead if bool(dead.any()) else None)
        optimizer.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(list(params.values()), 1.0)
        optimizer.step()
        arch.constrain_(params)
        silent = torch.where((out.feature_acts_BF != 0).any(0), 0.0, silent + 1)
    for name, expected in params.items():
        assert torch.allclose(slot.params[name], expected, rtol=1e-9, atol=1e-12), name


def test_neighbours_do_not_change_a_trial() -> None:
    runs = [make_run(name) for name in SPECS]
    together, slots = new_cohort(runs)
    data = batches(12)
    for batch in data:
        together.train_step(batch)
    for index, run in enumerate(runs):
        alone, (slot,) = new_cohort([run])
        for batch in data:
            alone.train_step(batch)
        for name, p in slot.params.items():
            assert torch.equal(p, slots[index].params[name]), (run.sae.architecture, name)


def test_a_late_joiner_trains_its_own_schedule_from_step_zero() -> None:
    early, late = make_run("topk"), make_run("standard")
    cohort, _ = new_cohort([early], n_slots=2)
    data = batches(10)
    for batch in data[:4]:
        cohort.train_step(batch)
    slot = Slot(trial=9, run=late, joined_at_tokens=4 * B, init_seed=7, device="cpu")
    cohort.place(1, slot)
    cohort.begin_block()
    for batch in data[4:]:
        cohort.train_step(batch)
    alone, (expected,) = new_cohort([late])
    for batch in data[4:]:
        alone.train_step(batch)
    assert slot.step == 6
    assert all(torch.equal(slot.params[n], expected.params[n]) for n in slot.params)


def test_a_restored_slot_continues_bit_for_bit() -> None:
    run = make_run("batchtopk", sae={"dtype": "float32"})
    data = [{HOOK: b[HOOK].float()} for b in batches(14)]
    cohort, (slot,) = new_cohort([run])
    for batch in data[:7]:
        cohort.train_step(batch)
    meta, tensors = slot.meta(), {n: t.clone().contiguous() for n, t in slot.tensors().items()}
    other = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=1, device="cpu")
    other.load(tensors, meta)
    resumed = Cohort(1, normalizers={(HOOK, "none"): Normalizer(mode="none")}, device="cpu")
    resumed.place(0, other)
    for batch in data[7:]:
        cohort.train_step(batch)
        resumed.train_step(batch)
    for name, tensor in slot.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name


def test_a_finished_trial_is_left_alone() -> None:
    run = make_run("topk", training_tokens=2 * B, lr_warm_up_steps=0, lr_decay_steps=0)
    cohort, (slot,) = new_cohort([run])
    data = batches(4)
    for batch in data[:2]:
        cohort.train_step(batch)
    assert slot.is_done
    before = slot.params["W_dec"].clone()
    cohort.train_step(data[2])
    assert torch.equal(before, slot.params["W_dec"])


def test_nan_marks_the_slot_and_spares_its_neighbour() -> None:
    cohort, (sick, healthy) = new_cohort([make_run("topk"), make_run("topk")])
    sick.params["W_dec"].fill_(float("nan"))
    cohort.train_step(batches(1)[0])
    assert not bool(sick.is_finite)
    assert bool(healthy.is_finite)
    assert all(bool(torch.isfinite(p).all()) for p in healthy.params.values())


def test_the_exported_batchtopk_has_the_l0_of_its_training_form() -> None:
    run = make_run("batchtopk")
    cohort, (slot,) = new_cohort([run])
    data = batches(20)
    for batch in data:
        cohort.train_step(batch)
    exported = cohort.export(slot)
    assert exported.architecture == "jumprelu"
    recent = torch.cat([b[HOOK] for b in data[-10:]])
    l0 = float((exported.encode(recent) != 0).sum(-1).double().mean())
    assert l0 == pytest.approx(4.0, rel=1e-3)


def test_at_a_rung_the_threshold_is_that_of_the_newest_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort_module, "RUNG_CALIBRATION_TOKENS", 2 * B - 1)
    cohort, (slot,) = new_cohort([make_run("batchtopk")])
    data = batches(20)
    for batch in data:
        cohort.train_step(batch)
    exported = cohort.export(slot, at_rung=True)
    newest = torch.cat([b[HOOK] for b in data[-2:]])
    assert float((exported.encode(newest) != 0).sum(-1).double().mean()) == pytest.approx(4.0, rel=1e-2)
    assert not torch.equal(exported.tensors["threshold"], cohort.export(slot).tensors["threshold"])


def test_expected_average_scaling_is_folded_into_the_export() -> None:
    run = make_run("topk", sae={"normalize_activations": "expected_average_only_in"})
    data = batches(20)
    normalizer = Normalizer.fit("expected_average_only_in", [b[HOOK] for b in data], D)
    cohort = Cohort(1, normalizers={(HOOK, "expected_average_only_in"): normalizer}, device="cpu")
    slot = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=7, device="cpu")
    cohort.place(0, slot)
    for batch in data:
        cohort.train_step(batch)
    x = data[0][HOOK]
    trained = slot.architecture.forward(slot.params, normalizer.apply(x), Knobs.from_spec(run.sae), None)
    assert torch.allclose(cohort.export(slot).forward(x), denormalized(normalizer, trained.recon_BD), rtol=1e-8)


def test_placing_into_a_taken_slot_is_refused() -> None:
    cohort, (slot,) = new_cohort([make_run("topk")])
    with pytest.raises(ValueError, match="still holds"):
        cohort.place(0, slot)
