"""p-annealing and resampling of the standard SAE, against plain definitions and across a restore."""

from typing import Any

import pytest
import torch
from torch import Tensor

from saesweep.cohort import Cohort, GradientEngine, ReferenceEngine, Slot
from saesweep.cohort.kernels import SparseEngine
from saesweep.saes import Normalizer
from saesweep.specs import BaseRun, PAnnealingPlan

D, F, B, STEPS = 12, 48, 64, 40
ANNEALED = {"p_end": 0.4, "anneal_start": 8, "anneal_end": 32, "n_sparsity_updates": 5, "sparsity_queue_length": 3}
RESAMPLED = {"resample_steps": 10}


def make_run(**sae: Any) -> BaseRun:
    own = {"architecture": "standard", "d_in": D, "d_sae": F, "dtype": "float64", "l1_coefficient": 0.5, **sae}
    return BaseRun.model_validate(
        {
            "dataset_path": "x",
            "hook_name": "h",
            "training_tokens": STEPS * B,
            "train_batch_size_tokens": B,
            "lr": 3e-3,
            "sae": own,
        }
    )


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, D, generator=generator, dtype=torch.float64)
    return [
        (torch.rand(B, 64, generator=generator, dtype=torch.float64) > 0.9).double() @ features for _ in range(STEPS)
    ]


def start(run: BaseRun, engine: GradientEngine | None = None) -> tuple[Cohort, Slot]:
    cohort = Cohort(1, normalizers={("h", "none"): Normalizer(mode="none")}, device="cpu", engine=engine)
    slot = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=7, device="cpu")
    cohort.place(0, slot)
    cohort.begin_block()
    return cohort, slot


def penalty(slot: Slot, x: Tensor, p: float, function: str) -> float:
    """The mean penalty of a batch, from the definition."""
    w = slot.params
    f = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).clamp(min=0) * w["W_dec"].pow(2).sum(1).sqrt()
    powers = torch.where(f > 0, f, 1.0).pow(p).mul(f > 0).sum(1)
    return float((powers if function == "Lp^p" else powers ** (1 / p)).mean())


@pytest.mark.parametrize("engine", [ReferenceEngine(), SparseEngine()], ids=["reference", "sparse"])
@pytest.mark.parametrize("function", ["Lp", "Lp^p"])
def test_p_and_the_coefficient_follow_their_definition(function: str, engine: GradientEngine) -> None:
    cohort, slot = start(make_run(sparsity_function=function, **ANNEALED), engine)
    values, at = [1.0, 0.85, 0.7, 0.55, 0.4], [8, 14, 20, 26, 32]
    coefficient, changes = 0.5, 0
    p: float = 1.0
    following: float | None = None
    queue: list[tuple[float, float]] = []
    for step, x in enumerate(batches()):
        knobs = slot.knobs_at(step)
        assert knobs.lp_norm == pytest.approx(p, abs=1e-12)
        assert knobs.l1_coefficient == pytest.approx(coefficient, rel=1e-10)
        if following is not None:
            queue = [*queue, (penalty(slot, x, p, function), penalty(slot, x, following, function))][-3:]
        if step in at:
            if following is not None:
                coefficient *= sum(now for now, _ in queue) / sum(then for _, then in queue)
            p, following = values[changes], values[changes + 1] if changes < 4 else None
            changes += 1
        cohort.train_step({"h": x})
    assert coefficient != 0.5
    assert p == 0.4


def test_update_times_are_those_of_torch_linspace() -> None:
    for first, last, n in ((8, 33, 5), (3, 40, 10), (0, 39, 7), (11, 37, 4)):
        run = make_run(p_end=0.2, anneal_start=first, anneal_end=last, n_sparsity_updates=n)
        plan = PAnnealingPlan.of(run)
        assert plan is not None
        assert list(plan.update_steps) == torch.linspace(first, last, n, dtype=torch.int64).tolist()


def test_a_restored_slot_continues_bit_for_bit_through_annealing_and_resampling() -> None:
    run, data = make_run(**ANNEALED, **RESAMPLED, l1_warm_up_steps=5), batches()
    cohort, slot = start(run)
    slot.params["b_enc"][:9] = -1e3  # silent
    for x in data[:18]:
        cohort.train_step({"h": x})
    meta, tensors = slot.meta(), {n: t.clone().contiguous() for n, t in slot.tensors().items()}
    for x in data[18:]:
        cohort.train_step({"h": x})
    again, other = start(run)
    other.load(tensors, meta)
    for x in data[18:]:
        again.train_step({"h": x})
    for name, tensor in slot.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name


def test_silent_latents_are_drawn_from_what_is_reconstructed_badly() -> None:
    run, data = make_run(**RESAMPLED), batches()
    cohort, slot = start(run)
    slot.params["b_enc"][[3, 20, 41]] = -1e3
    for step in range(10):
        cohort.train_step({"h": data[step]})
    kept = {name: p.clone() for name, p in slot.params.items()}
    plain_cohort, plain = start(make_run())
    plain.load({n: t.clone().contiguous() for n, t in slot.tensors().items()}, slot.meta())
    cohort.train_step({"h": data[10]})
    plain_cohort.train_step({"h": data[10]})  # the same step, without resampling after it
    w, x = plain.params, data[10]
    recon = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).clamp(min=0) @ w["W_dec"] + w["b_dec"]
    drawn = torch.multinomial((x - recon).norm(dim=1), 3, generator=torch.Generator().manual_seed(7 * 1_000_003 + 10))
    unit = x[drawn] / x[drawn].norm(dim=1, keepdim=True)
    dead = torch.zeros(F, dtype=torch.bool)
    dead[[3, 20, 41]] = True
    size = 0.2 * w["W_enc"][:, ~dead].norm(dim=0).mean()
    assert torch.allclose(slot.params["W_dec"][dead], unit, rtol=1e-12)
    assert torch.allclose(slot.params["W_enc"][:, dead], (size * unit).t(), rtol=1e-12)
    assert bool((slot.params["b_enc"][dead] == 0).all())
    for moment in (slot.exp_avg, slot.exp_avg_sq):
        assert not moment["W_dec"][dead].any()
        assert not moment["W_enc"][:, dead].any()
        assert not moment["b_enc"][dead].any()
    for name, trained in slot.params.items():  # nothing else is touched
        rest = trained.t() if name == "W_enc" else trained
        other = w[name].t() if name == "W_enc" else w[name]
        assert torch.equal(rest if name == "b_dec" else rest[~dead], other if name == "b_dec" else other[~dead])
    assert not torch.equal(kept["W_dec"], slot.params["W_dec"])
    cohort.train_step({"h": data[11]})
    assert bool((slot.firing.steps_since_fired_F[dead] == 0).all())  # they fire at once


def test_a_failed_trial_is_left_to_fail() -> None:
    cohort, slot = start(make_run(**RESAMPLED))
    slot.params["b_enc"][:5] = -1e3
    for x in [*batches()[:10], torch.full((B, D), torch.nan, dtype=torch.float64)]:
        cohort.train_step({"h": x})
    assert not bool(slot.is_finite)


@pytest.mark.parametrize(
    ("sae", "field", "said"),
    [
        ({"p_end": 1.0}, "sae.p_end", "not below lp_norm"),
        ({"anneal_start": "5%"}, "sae.anneal_start", "p_end is left out"),
        ({"p_end": 0.5, "anneal_start": 38, "n_sparsity_updates": 5}, "sae.anneal_start", "p changes 4 times"),
        ({"p_end": 0.5, "anneal_end": 41}, "sae.anneal_end", "after the end of the run"),
        ({"resample_steps": 40}, "sae.resample_steps", "less than the run's 40"),
        ({"resample_steps": 10, "architecture": "standard_transcoder"}, "sae.resample_steps", "two directions"),
    ],
)
def test_mistakes_between_fields(sae: dict[str, Any], field: str, said: str) -> None:
    assert said in dict(make_run(**sae).problems())[field]
