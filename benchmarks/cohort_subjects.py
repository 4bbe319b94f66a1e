"""What `cohort_worker.py` times: saesweep, its peers, and the floor that no exact step gets below.

A subject takes the setup and returns a function that builds it and the number of SAEs that it trains; what is built trains a
number of steps. The parent's choice decides which packages are imported, so each subject imports its own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from cohort_setup import BATCH_TOKENS, L1, LAYERS, LR, Setup

Advance = Callable[[int], None]
"""Train that many steps: every SAE of the subject, one batch each."""
SEQUENCES = 32
"""Contexts in a batch, for a trainer that takes tokens."""
BATCHES: list[torch.Tensor] = []
TARGETS: list[torch.Tensor] = []
"""What transcoders reconstruct, batch by batch; empty for SAEs."""
NOTES: dict[str, Any] = {}
REPORTED: list[float] = []
"""Seconds that a subject measured by itself, instead of the clock around it."""


def our_cohort(
    setup: Setup, choice: Any, *, lr: float = LR, fresh: bool = False
) -> tuple[Any, list[dict[str, torch.Tensor]]]:
    """Return a cohort as a sweep fills it, and its batches by hook.

    Args:
        setup: The case.
        choice: A `KernelChoice`.
        lr: Learning rate.
        fresh: Make every SAE anew instead of copying the first, which saves drawing weights, a second at the larger sizes.
    """
    from saesweep.cohort import Cohort, Slot, Stacks
    from saesweep.cohort.kernels import SparseEngine
    from saesweep.saes import Normalizer
    from saesweep.specs import BaseRun
    from saesweep.specs.joint_hooks import joined

    read = joined(f"hook.{i}" for i in range(LAYERS)) if setup.is_crosscoder else "hook"
    hooks, batches = {"hook_name": read}, [{read: x} for x in BATCHES]
    if setup.is_transcoder:
        hooks["hook_name_out"] = "out"
        batches = [{read: x, "out": y} for x, y in zip(BATCHES, TARGETS, strict=True)]
    run = BaseRun.model_validate(
        {
            "dataset_path": "in memory",
            **hooks,
            "training_tokens": 10**10,
            "train_batch_size_tokens": BATCH_TOKENS,
            "lr": lr,
            "sae": {"architecture": setup.architecture, **setup.sae_fields},
        }
    )
    engine = SparseEngine(choice, autocast=setup.autocast)
    cohort = Cohort(
        setup.slots,
        normalizers={(hook, "none"): Normalizer(mode="none") for hook in hooks.values()},
        device=setup.device,
        engine=engine,
        autocast=setup.autocast,
        stacks=Stacks(engine) if choice.stacked != "no" else None,
    )
    weights = setup.weights(BATCHES[0])

    def new_slot() -> Slot:
        slot = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=0, device=setup.device)
        for name, value in named_weights(setup, weights, list(slot.params)).items():
            slot.params[name].copy_(value)
        slot.firing.steps_since_fired_F[setup.dead_F()] = 10**9
        return slot

    first = new_slot()
    for i in range(setup.slots):
        cohort.place(i, first if i == 0 else new_slot() if fresh else copy.deepcopy(first))
    cohort.begin_block()
    return cohort, batches


def saesweep(setup: Setup) -> tuple[Callable[[], Advance], int]:
    """The cohort as a sweep runs it."""
    from saesweep.cohort.kernels import kernel_choice

    choice, _ = kernel_choice(setup.d_in, setup.d_sae, device=setup.device)
    NOTES["kernels"] = choice.to_json()

    def build() -> Advance:
        cohort, batches = our_cohort(setup, choice)
        steps_done = 0

        def advance(n: int) -> None:
            nonlocal steps_done
            for _ in range(n):
                cohort.train_step(batches[steps_done % len(batches)])
                steps_done += 1

        return advance

    return build, setup.slots


def saelens(setup: Setup) -> tuple[Callable[[], Advance], int]:
    """SAELens' `SAETrainer.fit`, one SAE: N of them in sequence cost N times as much."""
    from sae_lens.training.sae_trainer import SAETrainer

    def build() -> Advance:
        trainer = SAETrainer(
            cfg=saelens_cfg(setup), sae=saelens_sae(setup, setup.weights(BATCHES[0])), data_provider=forever(BATCHES)
        )
        trainer.n_forward_passes_since_fired[setup.dead_F()] = 1e9
        return fit_more(trainer)

    return build, 1


def saelens_multi(setup: Setup) -> tuple[Callable[[], Advance], int]:
    """SAELens' `MultiSAETrainer.fit` with all slots."""
    from sae_lens.training.multi_sae_trainer import MultiSAETrainer

    def build() -> Advance:
        weights = setup.weights(BATCHES[0])
        names = [f"sae{i}" for i in range(setup.slots)]
        trainer = MultiSAETrainer(
            cfg=saelens_cfg(setup),
            saes={name: saelens_sae(setup, weights) for name in names},
            hook_names=dict.fromkeys(names, "hook"),
            data_provider=forever([{"hook": x} for x in BATCHES]),
        )
        for one in trainer.trainers.values():
            one.n_forward_passes_since_fired[setup.dead_F()] = 1e9
        return fit_more(trainer)

    return build, setup.slots


def dictionary_learning(setup: Setup) -> tuple[Callable[[], Advance], int]:
    """dictionary_learning's trainer of the architecture, one SAE, as its `trainSAE` loop calls it."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.gdm import GatedSAETrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
    from dictionary_learning.trainers.top_k import TopKTrainer

    def build() -> Advance:
        common: dict[str, Any] = {
            "steps": 10**6,
            "activation_dim": setup.d_in,
            "dict_size": setup.d_sae,
            "layer": 0,
            "lm_name": "none",
            "device": setup.device,
            "lr": LR,
        }
        makers: dict[str, Callable[[], Any]] = {
            "topk": lambda: TopKTrainer(**common, k=setup.k),
            "batchtopk": lambda: BatchTopKTrainer(**common, k=setup.k),
            "matryoshka_batchtopk": lambda: MatryoshkaBatchTopKTrainer(
                **common, k=setup.k, group_fractions=[1 / 16, 3 / 16, 12 / 16]
            ),
            "standard": lambda: StandardTrainerAprilUpdate(**common, l1_penalty=L1),
            "jumprelu": lambda: JumpReluTrainer(**common),
            "gated": lambda: GatedSAETrainer(**common, l1_penalty=L1),
        }
        trainer = makers[setup.architecture]()
        weights = setup.weights(BATCHES[0])
        # Where it has a linear encoder, the phase is the same as the others'; its cost hardly depends on it.
        encoder = getattr(trainer.ae, "encoder", None)
        if isinstance(encoder, torch.nn.Linear) and encoder.bias is not None:
            encoder.weight.data.copy_(weights["W_enc"].t())
            encoder.bias.data.copy_(weights["bias"])
        if hasattr(trainer, "num_tokens_since_fired"):
            trainer.num_tokens_since_fired[setup.dead_F()] = 10**12
        steps_done = 0

        def advance(n: int) -> None:
            nonlocal steps_done
            for _ in range(n):
                # Step 0 would start with a geometric median, which is no part of a usual step.
                trainer.update(steps_done + 1, BATCHES[steps_done % len(BATCHES)])
                steps_done += 1

        return advance

    return build, 1


def sparsify(setup: Setup) -> tuple[Callable[[], Advance], int]:
    """All slots as seeds of one module in the `Trainer.fit` of sparsify, on a model that only hands out the activations."""
    from datasets import Dataset
    from sparsify import SparseCoderConfig, TrainConfig, Trainer

    class Quiet(Trainer):
        def save(self) -> None:
            """Write nothing: `fit` saves at its end, and here it ends after every turn."""

    class Module(torch.nn.Module):
        """The MLP: takes what is read, and returns what is to be reconstructed."""

        def __init__(self) -> None:
            super().__init__()
            self.target = TARGETS[0]

        def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
            return self.target.view_as(x_BTD)

    class Model(torch.nn.Module):
        """Batch after batch, whatever the tokens."""

        device = torch.device(setup.device)
        dummy_inputs: dict[str, Any] = {"tokens": torch.zeros(SEQUENCES, BATCH_TOKENS // SEQUENCES, dtype=torch.long)}

        def __init__(self) -> None:
            super().__init__()
            self.mlp, self.served = Module(), 0

        @property
        def base_model(self) -> torch.nn.Module:
            return self

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            i = self.served % len(BATCHES)
            self.served += 1
            self.mlp.target = TARGETS[i]
            found: torch.Tensor = self.mlp(BATCHES[i].view(*tokens.shape, -1))
            return found

    def build() -> Advance:
        row = [0] * (BATCH_TOKENS // SEQUENCES)
        rows = Dataset.from_dict({"input_ids": [row] * SEQUENCES}).with_format("torch")
        coder = SparseCoderConfig(num_latents=setup.d_sae, k=setup.k, transcode=True)
        cfg = TrainConfig(
            coder,
            batch_size=SEQUENCES,
            hookpoints=["mlp"],
            init_seeds=list(range(setup.slots)),
            optimizer="adam",
            lr=LR,
            log_to_wandb=False,
        )
        trainer = Quiet(cfg, rows, Model())
        weights = setup.weights(BATCHES[0])
        for one in trainer.saes.values():
            one.encoder.weight.data.copy_(weights["W_enc"].t())
            one.W_dec.data.copy_(weights["W_dec"])

        def advance(n: int) -> None:
            # `fit` begins where it ended, and goes to the end of its rows.
            done = trainer.global_step
            trainer.dataset = rows.select([0] * SEQUENCES * (done + n))
            trainer.fit()

        return advance

    return build, setup.slots


def floor(setup: Setup) -> tuple[Callable[[], Advance], int]:
    """What no exact fp32 step can avoid: the products of all pairs that are dense, by the best library, and Adam's bytes."""
    products = {"gated": 8}.get(setup.architecture, 5)
    if setup.phase == "sparse" or setup.architecture in ("topk", "batchtopk", "matryoshka_batchtopk"):
        products = 1

    def build() -> Advance:
        x_BD, W_FD = BATCHES[0], setup.weights(BATCHES[0])["W_dec"]
        out_BF = x_BD.new_empty(BATCH_TOKENS, setup.d_sae)
        zeros_F = x_BD.new_zeros(setup.d_sae)
        # Adam reads weight, gradient and two moments and writes weight and moments: 28 bytes per parameter.
        n_copied = 28 * 2 * W_FD.numel() // 8
        source, target = x_BD.new_zeros(n_copied), x_BD.new_zeros(n_copied)

        def once(by_name: bool) -> float:
            start = time.perf_counter()
            if by_name:
                torch.ops.mkldnn._linear_pointwise(x_BD, W_FD, zeros_F, "none", [], "")
            else:
                torch.mm(x_BD, W_FD.t(), out=out_BF)
            synchronise(setup)
            return time.perf_counter() - start

        def advance(n: int) -> None:
            for _ in range(n):
                gemm = min(once(False), once(setup.device == "cpu"))
                start = time.perf_counter()
                target.copy_(source)
                synchronise(setup)
                REPORTED.append(products * gemm + time.perf_counter() - start)

        return advance

    return build, 1


def named_weights(setup: Setup, weights: dict[str, torch.Tensor], names: list[str]) -> dict[str, torch.Tensor]:
    """The weights under an architecture's parameter names; those that are not named keep their initial values."""
    found = {"W_enc": weights["W_enc"], "W_dec": weights["W_dec"]}
    found |= {name: weights["bias"] for name in ("b_enc", "b_gate", "b_mag") if name in names}
    return found


def saelens_sae(setup: Setup, weights: dict[str, torch.Tensor]) -> Any:
    """Return a SAELens training SAE with the setup's weights."""
    from sae_lens.registry import get_sae_training_class

    sae_class, cfg_class = get_sae_training_class(setup.architecture)
    sae = sae_class(cfg_class(**setup.sae_fields, device=setup.device))
    parameters = dict(sae.named_parameters())
    for name, value in named_weights(setup, weights, list(parameters)).items():
        parameters[name].data.copy_(value)
    return sae


def saelens_cfg(setup: Setup) -> Any:
    """Return a SAELens trainer configuration; `fit_more` moves its end."""
    from sae_lens.config import SAETrainerConfig

    return SAETrainerConfig(
        total_training_samples=BATCH_TOKENS,
        train_batch_size_samples=BATCH_TOKENS,
        lr=LR,
        lr_end=LR / 10,
        device=setup.device,
        autocast=setup.autocast,
    )


def fit_more(trainer: Any) -> Advance:
    """Drive a SAELens trainer by its own `fit`, some steps at a time."""
    target = 0

    def advance(n: int) -> None:
        nonlocal target
        target += n * BATCH_TOKENS
        trainer.cfg.total_training_samples = target
        trainer.fit()

    return advance


def forever(items: list[Any]) -> Any:
    """Yield the items in turn, for ever."""
    while True:
        yield from items


def synchronise(setup: Setup) -> None:
    """Wait for what a GPU has still to do."""
    if setup.device != "cpu":
        torch.cuda.synchronize()


SUBJECTS = {f.__name__: f for f in (saesweep, saelens, saelens_multi, dictionary_learning, sparsify, floor)}
