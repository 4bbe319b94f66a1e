"""Densities that are published come from the exported form on held-out tokens: they sum to the L0 measured there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import saesweep


def published(folder: Path) -> tuple[float, dict[str, Any]]:
    """Return the L0 that `sparsity.safetensors` of a folder sums to, and its provenance."""
    log10_F = load_file(folder / "sparsity.safetensors")["sparsity"]
    return float((10 ** log10_F.double()).sum()), json.loads((folder / "provenance.json").read_text())


def test_densities_of_every_export_sum_to_its_measured_l0(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["evaluation"] = {"select_tokens": 2048, "test_tokens": 4096}
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    l0, provenance = published(tmp_path / "run" / "best")
    assert l0 == pytest.approx(provenance["test_metrics"]["l0"], rel=1e-5)
    assert provenance["densities"] == {"part": "test", "tokens": 4096}
    complete = [row for row in result.rows if row.status == "complete"]
    assert {row.architecture for row in complete} >= {"topk", "standard"}
    for row in complete:
        folder = tmp_path / "run" / "trials" / f"{row.number:04d}" / "sae"
        l0, provenance = published(folder)
        assert l0 == pytest.approx(row.metrics["l0"], rel=1e-5)
        assert l0 == pytest.approx(json.loads((folder / "cfg.json").read_text())["metadata"]["l0"], rel=1e-5)
        assert provenance["densities"] == {"part": "select", "tokens": 2048}


def test_a_dense_beginning_of_training_is_no_density(tree: dict[str, Any], tmp_path: Path) -> None:
    """The window of 2,000 steps is longer than the run, which begins with every latent on half the tokens."""
    del tree["by_architecture"]
    tree["space"] = {}
    tree["base"]["sae"] |= {"architecture": "standard", "l1_coefficient": 5.0}
    tree["base"] |= {"save_final_checkpoint": True}
    tree["search"] = {}
    saesweep.run(tree, run_dir=tmp_path / "run")
    (snapshot,) = (tmp_path / "run").glob("trials/0000/snapshots/final_*")
    in_training = float((10 ** load_file(snapshot / "sparsity.safetensors")["sparsity"].double()).sum())
    l0, provenance = published(tmp_path / "run" / "best")
    assert l0 == pytest.approx(provenance["test_metrics"]["l0"], rel=1e-5)
    assert in_training > 1.2 * l0


def test_densities_of_replicates_and_matched_winners_are_their_own(tree: dict[str, Any], tmp_path: Path) -> None:
    del tree["by_architecture"]
    tree["space"] = {"sae.architecture": {"choice": ["topk", "batchtopk"]}}
    tree["objective"] = {"maximize": "explained_variance", "matched": {"l0": [4, 8]}}
    tree["search"] = {"sampler": "grid", "pruner": "none", "replicates": 2}
    saesweep.run(tree, run_dir=tmp_path / "run")
    folders = [*(tmp_path / "run" / "matched").iterdir(), tmp_path / "run" / "best"]
    assert len(folders) == 3
    for folder in folders:
        l0, provenance = published(folder)
        assert provenance["densities"]["part"] == "test"
        # The file is the first replicate's, the metrics are the mean of both.
        spread = provenance.get("test_spread", provenance.get("matched", {}).get("test_spread"))["l0"]
        assert abs(l0 - provenance["test_metrics"]["l0"]) <= spread / 2**0.5 + 1e-4
    own = published(tmp_path / "run" / "trials" / "0000" / "sae-replicate-1")[1]
    l0 = published(tmp_path / "run" / "trials" / "0000" / "sae-replicate-1")[0]
    assert l0 == pytest.approx(own["select_metrics"]["l0"], rel=1e-5)


def test_the_counter_weighs_tokens_not_batches() -> None:
    from saesweep.evaluation import FiringCounter

    counter = FiringCounter()
    with pytest.raises(ValueError, match="no tokens"):
        counter.densities("test")
    counter.update(torch.tensor([[1.0, 0.0, 0.0]]))
    counter.update(torch.tensor([[0.0, 2.0, 0.0], [3.0, -1.0, 0.0], [1.0, 0.0, 0.0]]))
    found = counter.densities("test")
    assert found.share_F.tolist() == [0.75, 0.5, 0.0]
    assert found.described() == {"part": "test", "tokens": 4}
