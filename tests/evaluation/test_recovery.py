"""Scores of recovered features: the true dictionary scores 1, and SAELens computes the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import saesweep
from saesweep.activations import SyntheticFeatures
from saesweep.activations.synthetic import SyntheticHeldOut
from saesweep.errors import ExperimentError
from saesweep.evaluation import HeldOutEvaluator, RecoveryMetrics
from saesweep.experiment import load_experiment
from saesweep.saes import ExportedSAE
from saesweep.specs.synthetic import SyntheticSpec
from tests.sweep.studies import small_sweep

NAMES = ("mmcs", "mcc", "precision", "recall", "f1", "uniqueness")


def sae_with(decoder_FD: torch.Tensor, encoder_DF: torch.Tensor, threshold: float) -> ExportedSAE:
    d_sae, d_in = decoder_FD.shape
    cfg = {"architecture": "jumprelu", "d_in": d_in, "d_sae": d_sae, "dtype": "float32", "metadata": {}}
    tensors = {
        "W_dec": decoder_FD,
        "W_enc": encoder_DF,
        "b_enc": torch.zeros(d_sae),
        "b_dec": torch.zeros(d_in),
        "threshold": torch.full((d_sae,), threshold),
    }
    return ExportedSAE("jumprelu", cfg, tensors)


def part_of(features: SyntheticFeatures) -> SyntheticHeldOut:
    return SyntheticHeldOut(
        features=features, part="select", n_tokens=3000, batch_tokens=512, seed=0, device=torch.device("cpu")
    )


def test_the_true_dictionary_scores_1_and_a_random_one_low() -> None:
    # As many features as dimensions: the inverse of the dictionary reads every activation exactly.
    features = SyntheticFeatures(24, seed=0, spec=SyntheticSpec.model_validate({"num_features": 24}))
    true_FD = features.features_FD
    perfect = sae_with(true_FD, torch.linalg.inv(true_FD.double()).float(), 1e-3)
    random_FD = torch.randn(24, 24, generator=torch.Generator().manual_seed(1))
    random = sae_with(random_FD, random_FD.T.clone(), 1.0)
    best, worst = HeldOutEvaluator(part_of(features), None).measure([perfect, random], "x", with_model=False)
    assert [best[name] for name in NAMES] == pytest.approx([1.0] * 6, abs=2e-3)
    assert best["explained_variance"] == pytest.approx(1.0, abs=1e-4)
    assert worst["mmcs"] < 0.6
    assert worst["f1"] < 0.5
    assert worst["uniqueness"] < 1


def small_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    decoder_FD = torch.randn(6, 4, generator=generator)
    true_GD = torch.randn(9, 4, generator=generator)
    acts_NF = torch.randn(50, 6, generator=generator).relu()
    acts_NF[:, 5] = 0  # a dead latent
    true_NG = torch.randn(50, 9, generator=generator).relu()
    return decoder_FD, true_GD, acts_NF, true_NG


def test_numbers_are_those_of_saelens() -> None:
    """Recorded from `sae_lens.synthetic.evals` 6.54.12 on the same tensors; it has no mmcs."""
    decoder_FD, true_GD, acts_NF, true_NG = small_case()
    metrics = RecoveryMetrics(decoder_FD, true_GD)
    for start in range(0, 50, 17):
        metrics.update(acts_NF[start : start + 17], true_NG[start : start + 17])
    found = metrics.compute()
    assert found.pop("mmcs") == pytest.approx(0.5991547703742981, abs=1e-6)
    assert found == pytest.approx(
        {
            "mcc": 0.7736260890960693,
            "uniqueness": 0.6666666666666666,
            "precision": 0.40487217903137207,
            "recall": 0.4189213514328003,
            "f1": 0.4086301326751709,
        },
        abs=1e-6,
    )


def test_definitions_by_hand() -> None:
    """Two latents on two features: one exact, one that also fires where its feature does not."""
    eye = torch.eye(2)
    metrics = RecoveryMetrics(torch.stack([eye[0], -eye[1]]), eye)
    metrics.update(
        torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([[2.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    )
    found = metrics.compute()
    # The second row points the other way: a match for mcc, precision and recall, none for mmcs.
    assert found["mmcs"] == pytest.approx(0.5)
    assert found["mcc"] == pytest.approx(1.0)
    assert (found["precision"], found["recall"]) == (pytest.approx((1 + 2 / 3) / 2), pytest.approx(1.0))
    assert found["f1"] == pytest.approx((1 + 0.8) / 2)


def test_a_sweep_ranks_by_recovered_features(tmp_path: Path) -> None:
    tree: dict[str, Any] = small_sweep()
    tree["base"] |= {
        "training_tokens": 5120,
        "synthetic": {"num_features": 48, "firing_probability": {"mean_active": 4}},
    }
    tree["objective"] = {"maximize": "f1", "subject_to": {"mmcs": {"min": 0.1}}}
    tree["search"] = {"trials": 3, "stratify": "sae.architecture"}
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    scores = [row.metrics["f1"] for row in result.rows]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[0] <= 1
    assert set(NAMES) <= set(result.test_metrics)
    assert json.loads((tmp_path / "run" / "leaderboard.json").read_text())["metrics"][:2] == ["f1", "mmcs"]


def test_no_other_source_has_true_features() -> None:
    tree = small_sweep()
    tree["base"] |= {
        "dataset_path": "builtin:python-docs",
        "model_name": "builtin:tiny-lm",
        "hook_name": "model.layers.2",
    }
    tree["objective"] = {"maximize": "f1"}
    with pytest.raises(ExperimentError, match=r"objective.maximize: f1 compares with true features, which only"):
        load_experiment(tree)
