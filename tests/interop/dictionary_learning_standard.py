"""p-annealing and resampling of the standard SAE against dictionary_learning's own trainers, step by step.

    PYTHONPATH=. path/to/peers-env/bin/python tests/interop/dictionary_learning_standard.py

Its trainers keep decoder rows at norm 1 and penalise latents; ours leave the rows free and penalise latents times norms. At rows
of norm 1 both have the same loss, and the same gradient but for the part along a row, which its optimiser removes. So its trainer
goes its way, and at every step our code gets its weights: loss, gradients, p and coefficient are compared along its whole
trajectory, on both gradient paths. Resampling: the steps, the latents, the new weights and Adam's moments. Activations have norm 1
there: its new encoder vectors are 0.2 x the mean norm x the activation, ours (as in Towards Monosemanticity) x its direction.

Float64; prints the largest relative difference of each and exits 1 above the bound. The bound of p-annealing is float32's, in which
the peer takes the mean of its queue.
"""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

import torch
from dictionary_learning.trainers.p_anneal import PAnnealTrainer
from dictionary_learning.trainers.standard import StandardTrainer
from torch import Tensor

from saesweep.cohort import GradientEngine, ReferenceEngine, Slot
from saesweep.cohort.kernels import SparseEngine
from saesweep.cohort.resampling import resample_
from saesweep.saes import Params
from saesweep.specs import BaseRun

D_IN, D_SAE, BATCH, STEPS, EVERY = 24, 160, 128, 80, 20
COMMON: dict[str, Any] = {
    "steps": STEPS, "activation_dim": D_IN, "dict_size": D_SAE, "layer": 0, "lm_name": "x", "lr": 3e-3, "device": "cpu", "seed": 1
}  # fmt: skip


def make_run(**sae: Any) -> BaseRun:
    """Return our run."""
    own = {"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float64", **sae}
    tokens = {"training_tokens": STEPS * BATCH, "train_batch_size_tokens": BATCH}
    return BaseRun.model_validate({"dataset_path": "x", "hook_name": "h", "sae": own, **tokens})


def batches(*, unit: bool = False) -> list[Tensor]:
    """Return sparse combinations of fixed features, of norm 1 where asked for."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, D_IN, generator=generator, dtype=torch.float64)
    active = (torch.rand(STEPS, BATCH, 200, generator=generator, dtype=torch.float64) > 0.97).double()
    data = (active * torch.rand(STEPS, BATCH, 200, generator=generator, dtype=torch.float64)) @ features
    return list(data / data.norm(dim=-1, keepdim=True).clamp(min=1e-9) if unit else data)


def params_of(ae: Any) -> Params:
    """Return its weights under our names, W_enc as a transposed view of [F, D]."""
    return {
        "W_enc": ae.encoder.weight.detach().clone(memory_format=torch.contiguous_format).t(),
        "W_dec": ae.decoder.weight.detach().t().clone(memory_format=torch.contiguous_format),
        "b_enc": ae.encoder.bias.detach().clone(),
        "b_dec": ae.bias.detach().clone(),
    }


def in_double(trainer: Any) -> Any:
    """Let a trainer begin in float64, with decoder rows of norm 1 and a constant learning rate."""
    trainer.ae.double()
    with torch.no_grad():
        trainer.ae.decoder.weight /= trainer.ae.decoder.weight.norm(dim=0, keepdim=True)
    trainer.scheduler = mock.Mock()
    return trainer


def apart(mine: Tensor | float, other: Tensor | float) -> float:
    """Return the largest difference, relative to the largest value."""
    mine, other = (torch.as_tensor(value, dtype=torch.float64) for value in (mine, other))
    return float((mine - other).abs().max() / other.abs().max().clamp(min=1e-30))


def annealed(function: str, engine: GradientEngine) -> dict[str, float]:
    """Return the worst differences along a run of `PAnnealTrainer`."""
    trainer = in_double(
        PAnnealTrainer(
            **COMMON, sparsity_function=function, initial_sparsity_penalty=0.2, sparsity_warmup_steps=10,
            anneal_start=15, p_end=0.3, n_sparsity_updates=6, sparsity_queue_length=4, warmup_steps=0,
        )
    )  # fmt: skip
    run = make_run(
        sparsity_function=function, l1_coefficient=0.2, l1_warm_up_steps=10,
        anneal_start=15, p_end=0.3, n_sparsity_updates=6, sparsity_queue_length=4,
    )  # fmt: skip
    slot = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=1, device="cpu")
    assert slot.annealing is not None
    worst = dict.fromkeys(("loss", "gradients", "p", "coefficient"), 0.0)
    for step, x in enumerate(batches()):
        params, knobs = params_of(trainer.ae), slot.knobs_at(step)
        found = engine.step(slot.architecture, params, x, knobs, None)
        grads = {name: grad.clone() for name, grad in found.grads.items()}
        slot.annealing.observe(step, found.observed)
        mse = float((x - trainer.ae(x).detach()).pow(2).sum(-1).mean())
        trainer.update(step, x)
        rows = params["W_dec"]
        grads["W_dec"] -= (grads["W_dec"] * rows).sum(1, keepdim=True) * rows
        theirs = {
            "W_enc": trainer.ae.encoder.weight.grad.t(), "W_dec": trainer.ae.decoder.weight.grad.t(),
            "b_enc": trainer.ae.encoder.bias.grad, "b_dec": trainer.ae.bias.grad,
        }  # fmt: skip
        now = {
            "loss": apart(found.loss, mse + float(trainer.scaled_lp_loss)),
            "gradients": max(apart(grads[name], grad) for name, grad in theirs.items()),
            "p": apart(slot.annealing.p, trainer.p),
            "coefficient": apart(0.2 * slot.annealing.factor, trainer.sparsity_coeff),
        }
        worst = {name: max(worst[name], now[name]) for name in worst}
    print(f"     {function}: p 1 -> {trainer.p:.2f}, coefficient 0.2 -> {trainer.sparsity_coeff:.4g}")
    return worst


def resampled() -> dict[str, float]:
    """Return the differences of steps and latents, and of the weights and moments after one resampling."""
    trainer = in_double(
        StandardTrainer(**COMMON, l1_penalty=0.05, sparsity_warmup_steps=None, resample_steps=EVERY, warmup_steps=1)
    )
    run = make_run(l1_coefficient=0.05, resample_steps=EVERY)
    slot, data, engine = (
        Slot(trial=0, run=run, joined_at_tokens=0, init_seed=1, device="cpu"),
        batches(unit=True),
        ReferenceEngine(),
    )
    with torch.no_grad():
        trainer.ae.encoder.bias[::7] = -1e3
    asked: list[tuple[int, Tensor]] = []
    ours: list[tuple[int, Tensor]] = []
    step = 0
    with mock.patch.object(trainer, "resample_neurons", lambda deads, x: asked.append((step, deads.clone()))):
        for step, x in enumerate(data):
            found = engine.step(slot.architecture, params_of(trainer.ae), x, slot.knobs_at(step), None)
            slot.firing.update(found.firing_F, BATCH)
            with mock.patch("saesweep.cohort.slot.resample_") as called:
                slot.step = step
                slot.resample_dead_(x)
                ours += [(step, each.args[4].clone()) for each in called.call_args_list]
            trainer.update(step, x)
    asked = [(at, dead) for at, dead in asked if dead.any()]
    ours = [(at, dead) for at, dead in ours if dead.any()]
    assert [at for at, _ in asked] == [at for at, _ in ours] == [20, 40, 60]
    same = all(torch.equal(one, other) for (_, one), (_, other) in zip(asked, ours, strict=True))

    dead, x, params = asked[-1][1], data[-1], params_of(trainer.ae)
    state = trainer.optimizer.state_dict()["state"]
    moments = [
        {"b_dec": state[0][key].clone(), "W_enc": state[1][key].clone().t(), "b_enc": state[2][key].clone(), "W_dec": state[3][key].t().clone()}
        for key in ("exp_avg", "exp_avg_sq")
    ]  # fmt: skip
    draw = torch.multinomial
    assert resample_(slot.architecture, params, moments, x, dead, torch.Generator().manual_seed(3)) == int(dead.sum())
    with mock.patch(
        "torch.multinomial",
        lambda p, num_samples, replacement: draw(p, num_samples, generator=torch.Generator().manual_seed(3)),
    ):
        trainer.resample_neurons(dead.clone(), x)
    theirs = params_of(trainer.ae)
    after = [
        {"b_dec": state[0][key], "W_enc": state[1][key].t(), "b_enc": state[2][key], "W_dec": state[3][key].t()}
        for key in ("exp_avg", "exp_avg_sq")
    ]
    return {
        "latents": 0.0 if same else 1.0,
        "weights": max(apart(params[name], theirs[name]) for name in theirs),
        "moments": max(
            apart(mine[name], other[name]) for mine, other in zip(moments, after, strict=True) for name in mine
        ),
    }


def main() -> int:
    """Compare everything."""
    misses = 0

    def told(name: str, found: dict[str, float], bound: float) -> None:
        nonlocal misses
        is_ok = all(value <= bound for value in found.values())
        misses += not is_ok
        print(
            f"{'ok  ' if is_ok else 'MISS'} {name:<28}"
            + "  ".join(f"{key} {value:.1e}" for key, value in found.items())
        )

    for function in ("Lp", "Lp^p"):
        for name, engine in (("reference", ReferenceEngine()), ("sparse", SparseEngine())):
            told(f"p-annealing {function} {name}", annealed(function, engine), 1e-6)
    told("resampling", resampled(), 1e-12)
    print(f"{misses} above their bound")
    return int(misses > 0)


if __name__ == "__main__":
    sys.exit(main())
