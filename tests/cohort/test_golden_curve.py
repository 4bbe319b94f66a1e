"""Learning curves of every architecture, compared with those in the repository: training means today what it meant before.

    python tests/cohort/test_golden_curve.py        # writes them anew, after a change that is meant to change them

Another processor rounds otherwise, which 120 steps in float32 let grow to about 1e-4.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saesweep.cohort import Cohort, GradientEngine, ReferenceEngine, Slot
from saesweep.cohort.kernels import SparseEngine
from saesweep.saes import Normalizer
from saesweep.specs import BaseRun

FILE = Path(__file__).with_name("golden_curve.json")
D_IN, D_OUT, D_SAE, BATCH, STEPS, EVERY = 32, 24, 128, 64, 120, 20
JUMPRELU = {
    "jumprelu_sparsity_loss_mode": "tanh",
    "jumprelu_bandwidth": 2.0,
    "jumprelu_init_threshold": 0.1,
    "jumprelu_ste_to_input": True,
    "pre_act_loss_coefficient": 0.01,
    "l0_coefficient": 0.3,
    "l0_warm_up_steps": 10,
}
SAES: dict[str, dict[str, Any]] = {
    "topk": {"k": 6},
    "batchtopk": {"k": 6, "k_start": 24, "k_anneal_steps": "25%"},
    "matryoshka_batchtopk": {"k": 6, "matryoshka_widths": [32, 64]},
    "standard": {"l1_coefficient": 0.5, "l1_warm_up_steps": 10},
    "gated": {"l1_coefficient": 0.5, "l1_warm_up_steps": 10},
    "jumprelu": JUMPRELU,
    "topk_skip_transcoder": {"k": 6},
    "gated_transcoder": {"l1_coefficient": 0.5, "l1_warm_up_steps": 10},
}
ENGINES: dict[str, type[GradientEngine]] = {"reference": ReferenceEngine, "sparse": SparseEngine}


def batches() -> list[dict[str, Tensor]]:
    """Sparse sums of fixed features, and what an MLP makes of them."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(100, D_IN, generator=generator)
    hidden, out = torch.randn(D_IN, 48, generator=generator), torch.randn(48, D_OUT, generator=generator)
    found = []
    for _ in range(STEPS):
        active = (torch.rand(BATCH, 100, generator=generator) > 0.95).float()
        x_BD = (active * torch.rand(BATCH, 100, generator=generator)) @ features
        found.append({"x": x_BD, "y": (x_BD @ hidden).relu() @ out / D_IN})
    return found


def curve(architecture: str, engine: GradientEngine) -> dict[str, list[float]]:
    """Return the mean of every loss term over each stretch of the run, and the L0 at the end."""
    is_transcoder = architecture.endswith("transcoder")
    run = BaseRun.model_validate(
        {
            "dataset_path": "x",
            "hook_name": "x",
            "hook_name_out": "y" if is_transcoder else None,
            "training_tokens": STEPS * BATCH,
            "train_batch_size_tokens": BATCH,
            "dead_feature_window": 10,
            "lr": 3e-3,
            "lr_warm_up_steps": 5,
            "lr_decay_steps": "20%",
            "sae": {
                "architecture": architecture,
                "d_in": D_IN,
                "d_sae": D_SAE,
                **({"d_out": D_OUT} if is_transcoder else {}),
                **SAES[architecture],
            },
        }
    )
    normalizers = {(hook, "none"): Normalizer(mode="none") for hook in ("x", "y")}
    cohort = Cohort(1, normalizers=normalizers, device="cpu", engine=engine)
    slot = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=7, device="cpu")
    cohort.place(0, slot)
    found: dict[str, list[float]] = {}
    data = batches()
    for start in range(0, STEPS, EVERY):
        cohort.begin_block()
        for batch in data[start : start + EVERY]:
            cohort.train_step(batch)
        for name, value in slot.mean_losses().items():
            found.setdefault(name, []).append(value)
    exported = cohort.export(slot)
    found["l0"] = [float((exported.encode(data[-1]["x"]) != 0).sum(1).float().mean())]
    return found


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("architecture", SAES)
def test_training_is_what_it_was(architecture: str, engine: str) -> None:
    golden = json.loads(FILE.read_text())[architecture]
    found = curve(architecture, ENGINES[engine]())
    assert found.keys() == golden.keys()
    for name, values in golden.items():
        tolerance = 0.15 if name == "l0" else max(2e-3 * max(map(abs, values)), 1e-6)
        assert found[name] == pytest.approx(values, abs=tolerance), name


def main() -> None:
    """Write the curves of the reference path."""
    found = {name: curve(name, ReferenceEngine()) for name in SAES}
    rounded = {
        name: {term: [float(f"{value:.6g}") for value in values] for term, values in terms.items()}
        for name, terms in found.items()
    }
    FILE.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
