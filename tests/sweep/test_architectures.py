"""Architectures that autograd trains, through the whole product: swept, exported, measured, read again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import saesweep
from saesweep.errors import UserError
from saesweep.evaluation import evaluate_saes
from saesweep.saes import open_sae
from tests.sweep.studies import llama_sweep

EXPORTED = {"topk": "topk", "multi_k": "topk", "abstopk": "abstopk", "matching_pursuit": "matching_pursuit"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    sae = {"architecture": "topk", "d_sae": 64, "k": 8, "normalize_activations": "expected_average_only_in"}
    folder = tmp_path_factory.mktemp("architectures")
    return {
        **llama_sweep(folder, "architectures", hook_name="model.layers.1", save_final_checkpoint=True, sae=sae),
        "space": {"sae.architecture": {"choice": list(EXPORTED)}},
        "by_architecture": {
            "multi_k": {"sae.ks": [2, 4, 8]},
            "matching_pursuit": {"sae.max_iterations": 8},
        },
        "objective": {"minimize": "mse"},
    }


@pytest.fixture(scope="module")
def whole(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[saesweep.Result, Path]:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return saesweep.run(tree, run_dir=run_dir), run_dir


def test_each_is_exported_as_saelens_knows_it_and_learns(whole: tuple[saesweep.Result, Path]) -> None:
    result, run_dir = whole
    assert {row.architecture for row in result.rows} == set(EXPORTED)
    for row in result.rows:
        assert row.status == "complete"
        sae = open_sae(run_dir / "trials" / f"{row.number:04d}" / "sae")
        assert (sae.architecture, sae.metadata["training_architecture"]) == (
            EXPORTED[row.architecture],
            row.architecture,
        )
        assert row.metrics["l0"] <= 8
        assert row.metrics["explained_variance"] > 0.3
        if row.architecture == "abstopk":
            assert row.metrics["l0"] == 8  # negative latents count
            assert bool((sae.encode(torch.randn(64, sae.d_in)) < 0).any())


def test_one_multi_k_sae_is_measured_at_every_k(whole: tuple[saesweep.Result, Path]) -> None:
    result, run_dir = whole
    (row,) = (row for row in result.rows if row.architecture == "multi_k")
    folder = run_dir / "trials" / f"{row.number:04d}" / "sae"
    found = evaluate_saes([folder], ks=[2, 4, 8])
    assert [sae.source for sae in found.saes] == [f"{folder} (k {k})" for k in (2, 4, 8)]
    assert [sae.metrics["l0"] <= k for sae, k in zip(found.saes, (2, 4, 8), strict=True)] == [True] * 3
    errors = [sae.metrics["mse"] for sae in found.saes]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(row.metrics["mse"], rel=1e-5)
    with pytest.raises(UserError, match="cannot be measured at k 65: k must be a whole number from 1 to d_sae"):
        evaluate_saes([folder], ks=[65])
    (pursuit,) = (row for row in result.rows if row.architecture == "matching_pursuit")
    with pytest.raises(UserError, match="matching_pursuit does not select k latents per token"):
        evaluate_saes([run_dir / "trials" / f"{pursuit.number:04d}" / "sae"], ks=[4])


def test_a_snapshot_says_topk_where_saelens_has_no_multi_k(whole: tuple[saesweep.Result, Path]) -> None:
    result, run_dir = whole
    said = {}
    for row in result.rows:
        (snapshot,) = (run_dir / "trials" / f"{row.number:04d}" / "snapshots").iterdir()
        said[row.architecture] = json.loads((snapshot / "cfg.json").read_text())["architecture"]
    assert said == {name: name if name != "multi_k" else "topk" for name in EXPORTED}
