"""The sources of activations that curves are recorded on, with the settings tried on each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.curves.grid import ARCHITECTURES, Grid
from benchmarks.curves.recorder import SHARES

_SHARED = "${env:SAESWEEP_SHARED:-../shared}"
_BY_ARCHITECTURE = {
    "jumprelu": {"preset": "anthropic-jan-2025", "sae.jumprelu_ste_to_input": True},
    "standard": {"sae.l1_warm_up_steps": "5%"},
    "gated": {"sae.l1_warm_up_steps": "5%"},
}


@dataclass(frozen=True)
class Source:
    """One source, and what is tried on it."""

    name: str
    stream: dict[str, Any]
    """Fields of `base` that say where activations come from."""
    d_in: int
    d_sae: int
    steps: int
    grid: Grid
    batch_tokens: int = 512
    select_tokens: int = 4096
    ce_tokens: int | None = None
    ce_shares: tuple[float, ...] = SHARES

    def tree(self) -> dict[str, Any]:
        """Return the experiment file as data; `seed` is added for every pass."""
        evaluation: dict[str, Any] = {"select_tokens": self.select_tokens, "test_tokens": 1024}
        if self.ce_tokens is not None:
            evaluation["ce_tokens"] = self.ce_tokens
        tokens = self.steps * self.batch_tokens
        return {
            "name": f"curves_{self.name}",
            "base": {
                **self.stream,
                "training_tokens": tokens,
                "train_batch_size_tokens": self.batch_tokens,
                "lr": 1e-3,
                "lr_warm_up_steps": "5%",
                "lr_decay_steps": "20%",
                "feature_sampling_window": "100%",  # so that the firing counts are those of the whole run
                "sae": {
                    "architecture": "topk",
                    "k": 4,  # every trial states its own
                    "d_in": self.d_in,
                    "d_sae": self.d_sae,
                    "normalize_activations": "expected_average_only_in",
                },
            },
            "by_architecture": _BY_ARCHITECTURE,
            "space": {"sae.architecture": {"choice": list(ARCHITECTURES)}},
            "objective": {"minimize": "mse"},
            "evaluation": evaluation,
            "search": {"trials": 1, "pruner": "none"},
            "cohort": {"size": 1},
        }


_CE_SHARES = (5, 10, 15, 20, 30, 40, 50, 60, 80, 100)


def _stories(layer: int) -> Source:
    ks = (4, 8, 16, 32)
    return Source(
        f"stories260k_l{layer}",
        {
            "model_name": f"{_SHARED}/models/stories260K",
            "model_class_name": "AutoModelForCausalLM",
            "dataset_path": f"{_SHARED}/text/stories_sampled.txt",
            "hook_name": f"model.layers.{layer}",
            "context_size": 128,
            "exclude_special_tokens": True,
        },
        d_in=64,
        d_sae=512,
        steps=350,
        batch_tokens=256,
        select_tokens=2048,
        ce_tokens=1024,
        ce_shares=_CE_SHARES,
        grid=Grid(
            lrs=dict.fromkeys(ARCHITECTURES, (1.5e-3, 4e-3, 1e-2, 2.5e-2)),
            settings={
                "topk": ks,
                "batchtopk": ks,
                "standard": (0.15, 0.5, 1.5, 4),
                "gated": (0.15, 0.5, 1.5, 4),
                "jumprelu": (0.015, 0.06, 0.25, 1),
            },
            targets=(8, 16, 32),
        ),
    )


SOURCES = {
    source.name: source
    for source in (
        Source(
            "tiny_lm",
            {
                "model_name": "builtin:tiny-lm",
                "model_class_name": "AutoModelForCausalLM",
                "dataset_path": "builtin:python-docs",
                "hook_name": "model.layers.2",
                "context_size": 128,
                "exclude_special_tokens": True,
            },
            d_in=128,
            d_sae=512,
            steps=400,
            batch_tokens=256,
            select_tokens=2048,
            ce_tokens=1024,
            ce_shares=_CE_SHARES,
            grid=Grid(
                lrs=dict.fromkeys(ARCHITECTURES, (1e-3, 2.5e-3, 6.3e-3, 1.6e-2)),
                settings={
                    "topk": (8, 16, 32, 64),
                    "batchtopk": (8, 16, 32, 64),
                    "standard": (0.25, 0.6, 1.5, 3.5),
                    "gated": (0.3, 0.8, 2, 5),
                    "jumprelu": (0.03, 0.1, 0.3, 1),
                },
                targets=(8, 16, 32),
            ),
        ),
        Source(
            "synthetic_32",
            {"model_name": None, "dataset_path": "builtin:synthetic"},
            d_in=32,
            d_sae=64,
            steps=400,
            grid=Grid(
                lrs=dict.fromkeys(ARCHITECTURES, (2.5e-3, 7e-3, 2e-2, 5e-2)),
                settings={
                    "topk": (2, 4, 8, 16),
                    "batchtopk": (2, 4, 8, 16),
                    "standard": (0.4, 1, 2, 3),
                    "gated": (0.4, 1.2, 2.5, 4),
                    "jumprelu": (0.05, 0.15, 0.45, 1.2),
                },
                targets=(4, 8, 16),
            ),
        ),
        _stories(1),
        _stories(3),
        Source(
            "synthetic_64",
            {
                "model_name": None,
                "dataset_path": "builtin:synthetic",
                "synthetic": {"num_features": 512, "firing_probability": {"mean_active": 12, "exponent": 0.5}},
            },
            d_in=64,
            d_sae=256,
            steps=350,
            batch_tokens=256,
            select_tokens=2048,
            grid=Grid(
                lrs=dict.fromkeys(ARCHITECTURES, (2e-3, 5e-3, 1.2e-2, 3e-2)),
                settings={
                    "topk": (4, 8, 16, 32),
                    "batchtopk": (4, 8, 16, 32),
                    "standard": (0.3, 0.8, 1.6, 2.8),
                    "gated": (0.4, 1.2, 2.5, 4),
                    "jumprelu": (0.04, 0.13, 0.4, 1.1),
                },
                targets=(8, 16, 32),
            ),
        ),
        Source(
            "smollm2_l12",
            {
                "model_name": "${env:SMOLLM2:-smollm2}",
                "model_class_name": "AutoModelForCausalLM",
                "model_from_pretrained_kwargs": {"dtype": "float32"},
                "dataset_path": f"{_SHARED}/text/wikitext2_valid.txt",
                "hook_name": "model.layers.12",
                "context_size": 256,
                "exclude_special_tokens": True,
                "max_activation_norm_multiple": 10,  # the first position is an attention sink
            },
            d_in=576,
            d_sae=1152,
            steps=250,
            batch_tokens=256,
            select_tokens=1024,
            ce_tokens=256,
            ce_shares=(100,),
            grid=Grid(
                lrs=dict.fromkeys(ARCHITECTURES, (1e-3, 2.5e-3, 6e-3)),
                settings={
                    "topk": (8, 16, 32, 64),
                    "batchtopk": (8, 16, 32, 64),
                    "standard": (0.5, 2, 6, 16),
                    "gated": (0.8, 3, 8, 20),
                    "jumprelu": (0.1, 0.35, 1.1, 3),
                },
                targets=(16, 32, 64),
                steered_seeds=(),
                short_seeds=(),
            ),
        ),
    )
}
