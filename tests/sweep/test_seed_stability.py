"""A sweep with replicates says how many latents its seeds share, and how alike the decoder directions of each SAE are."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment

import saesweep
from saesweep.display.saved import read_leaderboard
from saesweep.errors import ExperimentError
from saesweep.evaluation import evaluate_saes
from saesweep.experiment import load_experiment
from saesweep.report.data import read_run
from saesweep.report.page import report_page
from saesweep.saes import load_sae_folder
from tests.sweep.studies import small_sweep


def tree_of(**search: Any) -> dict[str, Any]:
    """Return three sparsities of a small dictionary for 24 true features, two seeds each."""
    tree = small_sweep()
    tree["base"] |= {"synthetic": {"num_features": 24, "firing_probability": {"mean_active": 3}}}
    tree["base"] |= {"training_tokens": 40_960, "lr": 1e-2}
    tree["base"]["sae"] = {"architecture": "topk", "d_in": 32, "d_sae": 24, "k": 3}
    tree["space"] = {"sae.k": {"choice": [2, 3, 6]}}
    tree["objective"] = {"maximize": "explained_variance", "subject_to": {"l0": {"max": 4}}}
    tree["search"] = {"sampler": "grid", "pruner": "none", "replicates": 2, **search}
    tree["cohort"] = {"size": 6}
    tree.pop("by_architecture", None)
    return tree


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[saesweep.Result, Path]:
    folder = tmp_path_factory.mktemp("replicates") / "run"
    return saesweep.run(tree_of(), run_dir=folder), folder


def test_it_is_what_the_exports_of_a_trial_say(run: tuple[saesweep.Result, Path]) -> None:
    result, folder = run
    assert len(result.rows) == 3
    for row in result.rows:
        saes, live = [], []
        for name in ("sae", "sae-replicate-1"):
            place = folder / "trials" / f"{row.number:04d}" / name
            live.append(load_file(place / "sparsity.safetensors")["sparsity"] > -9)
            saes.append(load_sae_folder(place).tensors)
        assert not torch.equal(saes[0]["W_dec"], saes[1]["W_dec"])
        matches = []
        for rows in ([sae["W_dec"] for sae in saes], [sae["W_enc"].T for sae in saes]):
            a, b = (
                torch.nn.functional.normalize(own[fires].double(), dim=1).numpy()
                for own, fires in zip(rows, live, strict=True)
            )
            cosine = a @ b.T
            chosen = zip(*linear_sum_assignment(np.where(cosine > 0.7, cosine, 0), maximize=True), strict=True)
            matches.append({pair for pair in chosen if cosine[pair] > 0.7})
        share = sum(1 / float(own.sum()) for own in live) / 2
        assert row.metrics["seed_stability"] == pytest.approx(share * len(matches[0]))
        assert row.metrics["seed_stability_both"] == pytest.approx(share * len(matches[0] & matches[1]))
        assert row.metrics["seed_stability"] > 0.1  # the features are there to be found
        cosines = []
        for sae in saes:
            unit_FD = torch.nn.functional.normalize(sae["W_dec"].double(), dim=1)
            gram_FF = (unit_FD @ unit_FD.T).abs()
            cosines.append(float(gram_FF.triu(1).sum()) / (24 * 23 / 2))
        assert row.metrics["decoder_cosine"] == pytest.approx(sum(cosines) / 2, rel=1e-5)
        assert "decoder_cosine" in row.spread


def test_it_is_shown_where_results_are_shown(run: tuple[saesweep.Result, Path]) -> None:
    result, folder = run
    assert {"seed_stability", "decoder_cosine"} <= set(result.metrics)
    assert 0 <= result.test_metrics["seed_stability"] <= 1
    assert {"seed_stability", "seed_stability_both", "decoder_cosine"} <= set(result.to_dataframe().columns)
    board = read_leaderboard(folder)
    assert [row.metrics for row in board.rows] == [row.metrics for row in result.rows]
    page = report_page(read_run(folder), features_link=None)
    assert "seed stability" in page
    assert "decoder cosine" in page
    provenance = json.loads((folder / "best" / "provenance.json").read_text())
    assert math.isfinite(provenance["test_metrics"]["seed_stability"])
    # One SAE has no seeds; its decoder has directions.
    of_best = evaluate_saes([folder / "best"]).saes[0].metrics
    assert "seed_stability" not in of_best
    assert 0 < of_best["decoder_cosine"] < 1


def test_it_can_be_the_objective_and_a_limit(tmp_path: Path) -> None:
    tree = tree_of(pruner="rung", rungs=["50%"], min_rung_steps=5)
    tree["objective"] = {"maximize": "seed_stability", "subject_to": {"decoder_cosine": {"max": 1}}}
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    best = next(row for row in result.rows if row.number == result.best)
    assert best.metrics["seed_stability"] == max(row.metrics["seed_stability"] for row in result.rows)
    # What lies beside an SAE trains it alone, where nothing is to be compared.
    assert load_experiment(tmp_path / "run" / "best" / "experiment.yaml").spec.objective is None


@pytest.mark.parametrize(
    ("search", "base", "said"),
    [
        ({}, {}, "search.replicates is 1; set it to 2 or more"),
        ({"replicates": 2}, {"from_pretrained_path": "sae"}, "all of them begin with the same weights"),
    ],
)
def test_an_objective_over_seeds_needs_seeds(search: dict[str, Any], base: dict[str, Any], said: str) -> None:
    tree = tree_of()
    tree["search"] = {"sampler": "grid", **search}
    tree["base"] |= base
    tree["objective"] = {"maximize": "seed_stability"}
    with pytest.raises(ExperimentError, match=said):
        load_experiment(tree)


def test_without_replicates_there_is_none(tmp_path: Path) -> None:
    tree = tree_of()
    del tree["search"]["replicates"]
    tree["space"] = {}
    tree["search"].pop("sampler")
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert "seed_stability" not in result.rows[0].metrics
    assert "seed_stability" not in result.metrics
    assert result.rows[0].metrics["decoder_cosine"] > 0
