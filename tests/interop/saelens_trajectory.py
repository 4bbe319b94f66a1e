"""Whole training trajectories against SAELens' own trainer: same weights, same batches, loss by loss.

    PYTHONPATH=. path/to/saelens-env/bin/python tests/interop/saelens_trajectory.py

Each architecture trains with SAELens' `SAETrainer.step` and with our cohort (reference path and sparse kernels): Adam, clipping,
warm-up, cosine or constant course, decay, coefficient warm-up, and dead latents with their auxiliary losses. 300 steps in float64,
30 in fp32; prints the largest relative difference of any step's loss and exits 1 above the bound.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.training.sae_trainer import SAETrainer

from saesweep.cohort import Cohort, GradientEngine, ReferenceEngine, Slot
from saesweep.cohort.kernels import SparseEngine
from saesweep.saes import Normalizer, architecture_for
from saesweep.specs import BaseRun

D_IN, D_SAE, BATCH, WINDOW_STEPS = 24, 160, 128, 6
BOUNDS = {"float64": (300, 1e-8), "float32": (30, 1e-5)}
SAES: dict[str, dict[str, Any]] = {
    "topk": {"k": 6},
    "batchtopk": {"k": 6},
    "matryoshka_batchtopk": {"k": 6, "matryoshka_widths": [40, 80]},
    "abstopk": {"k": 6},
    "matching_pursuit": {"max_iterations": 6, "decoder_init_norm": 1.0},
    "standard": {"l1_coefficient": 0.5, "l1_warm_up_steps": 10},
    "gated": {"l1_coefficient": 0.5, "l1_warm_up_steps": 10},
    "jumprelu": {
        "jumprelu_sparsity_loss_mode": "tanh",
        "jumprelu_bandwidth": 2.0,
        "jumprelu_init_threshold": 0.1,
        "jumprelu_ste_to_input": True,
        "pre_act_loss_coefficient": 0.01,
        "l0_coefficient": 0.3,
        "l0_warm_up_steps": 10,
    },
}


def make_run(architecture: str, dtype: str, steps: int, schedule: str) -> BaseRun:
    """Return the run that both sides train."""
    return BaseRun.model_validate(
        {
            "dataset_path": "x",
            "hook_name": "h",
            "training_tokens": steps * BATCH,
            "train_batch_size_tokens": BATCH,
            "lr": 3e-3,
            "lr_scheduler_name": schedule,
            "lr_warm_up_steps": 5,
            "lr_decay_steps": steps // 5,
            "dead_feature_window": WINDOW_STEPS,
            "sae": {"architecture": architecture, "d_in": D_IN, "d_sae": D_SAE, "dtype": dtype, **SAES[architecture]},
        }
    )


def batches(steps: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return sparse combinations of fixed features: activations with something to find."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, D_IN, generator=generator, dtype=torch.float64)
    active = (torch.rand(steps, BATCH, 200, generator=generator, dtype=torch.float64) > 0.97).double()
    strength = torch.rand(steps, BATCH, 200, generator=generator, dtype=torch.float64)
    return list(((active * strength) @ features).to(dtype))


def ours(run: BaseRun, data: list[torch.Tensor], engine: GradientEngine) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Return the loss of every step, and the weights at the start."""
    cohort = Cohort(1, normalizers={("h", "none"): Normalizer(mode="none")}, device="cpu", engine=engine)
    slot = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=5, device="cpu")
    start = {name: p.clone() for name, p in slot.params.items()}
    cohort.place(0, slot)
    losses = []
    for x in data:
        cohort.begin_block()
        cohort.train_step({"h": x})
        losses.append(slot.mean_losses()["overall_loss"])
    return losses, start


def theirs(run: BaseRun, data: list[torch.Tensor], start: dict[str, torch.Tensor]) -> tuple[list[float], int]:
    """Return the loss of every step of SAELens' trainer, and how many latents were dead at the end."""
    sae_class, cfg_class = get_sae_training_class(run.sae.architecture)
    sae = sae_class(cfg_class(d_in=D_IN, d_sae=D_SAE, dtype=run.sae.dtype, **SAES[run.sae.architecture]))
    sae.to(data[0].dtype)
    for name, parameter in sae.named_parameters():
        # Replaced, not filled: SAELens keeps jumprelu's threshold in fp32 whatever the type, and float64 needs all of it.
        parameter.data = start[name].clone().contiguous()
    config = SAETrainerConfig(
        total_training_samples=run.training_tokens,
        train_batch_size_samples=BATCH,
        lr=run.lr,
        lr_end=run.lr / 10,
        lr_scheduler_name=run.lr_scheduler_name,
        lr_warm_up_steps=run.to_steps(run.lr_warm_up_steps),
        lr_decay_steps=run.to_steps(run.lr_decay_steps),
        dead_feature_window=WINDOW_STEPS,
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=iter(data))
    losses = []
    for x in data:
        losses.append(float(trainer.step(x).loss.detach()))
        trainer.n_training_steps += 1
    return losses, int(trainer.dead_neurons.sum())


def main() -> int:
    """Compare all architectures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=list(SAES), action="append")
    arguments = parser.parse_args()
    misses = 0
    for architecture in arguments.architecture or list(SAES):
        for dtype, (steps, bound) in BOUNDS.items():
            data = batches(steps, getattr(torch, dtype))
            for schedule in ("constant", "cosineannealing"):
                run = make_run(architecture, dtype, steps, schedule)
                engines = (("reference", ReferenceEngine()), ("sparse", SparseEngine()))
                kernels = SparseEngine().supports(architecture_for(run.sae)) is None
                for name, engine in engines if kernels else engines[:1]:
                    mine, start = ours(run, data, engine)
                    other, dead = theirs(run, data, start)
                    worst = max(abs(a - b) / abs(b) for a, b in zip(mine, other, strict=True))
                    misses += not worst <= bound
                    print(
                        f"{'ok  ' if worst <= bound else 'MISS'} {architecture:<22}{dtype} {steps:>3} steps {schedule:<16}"
                        f"{name:<10} worst loss difference {worst:.1e}  (loss {other[0]:.3f} -> {other[-1]:.3f}, {dead} dead)"
                    )
    print(f"{misses} above their bound")
    return int(misses > 0)


if __name__ == "__main__":
    sys.exit(main())
