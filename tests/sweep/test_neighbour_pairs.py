"""Sweeps over batches of neighbouring tokens, with and without the loss that compares them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.nn.functional import normalize

import saesweep
from saesweep.activations import open_source
from saesweep.experiment import load_experiment
from saesweep.saes import open_sae
from tests.models.tiny import WORDS
from tests.sweep.studies import llama_sweep, stopping_at

HOOK, FIRST, STRONG = "model.layers.1", 16, 20.0


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Matryoshka SAEs without and with the temporal loss, and a topk beside them, on a random Llama."""
    sae = {
        "d_sae": 64,
        "k": 6,
        "matryoshka_widths": [FIRST],
        "normalize_activations": "expected_average_only_in",
    }
    folder = tmp_path_factory.mktemp("pairs")
    tree = llama_sweep(folder, "pairs", hook_name=HOOK, neighbour_pairs=True, sae=sae)
    # Texts of three words each: neighbours have something in common.
    rng = random.Random(1)
    texts = [" ".join(rng.choices(rng.sample(WORDS, 3), k=60)) for _ in range(300)]
    Path(tree["base"]["dataset_path"]).write_text("\n".join(texts))
    return {
        **tree,
        "space": {
            "sae.architecture": {"choice": ["topk", "matryoshka_batchtopk"]},
            "sae.temporal_coefficient": {"choice": [0, STRONG]},
        },
        "objective": {"maximize": "explained_variance"},
    }


@pytest.fixture(scope="module")
def whole(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[saesweep.Result, Path]:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return saesweep.run(tree, run_dir=run_dir), run_dir


def test_the_loss_distinguishes_neighbours_from_others_by_the_first_latents(
    tree: dict[str, Any], whole: tuple[saesweep.Result, Path]
) -> None:
    result, run_dir = whole
    assert [row.status for row in result.rows] == ["complete"] * 3  # a topk has no coefficient to search
    experiment = load_experiment(tree)
    source = open_source(experiment.base_run(), experiment.spec.evaluation, (HOOK,))
    batch_BD = source.stream.next_batch()[HOOK]
    source.close()
    alike = {}
    for row in result.rows:
        folder = run_dir / "trials" / f"{row.number:04d}"
        losses = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        coefficient = row.params.get("sae.temporal_coefficient", 0)
        assert any("temporal_loss" in str(line) for line in losses) == (coefficient > 0)
        sae = open_sae(folder / "sae")
        acts_BF = sae.encode(batch_BD)[:, :FIRST]
        alike[row.architecture, coefficient] = contrast(acts_BF)
    assert alike["matryoshka_batchtopk", STRONG] > alike["matryoshka_batchtopk", 0] + 0.02


def contrast(acts_BF: Tensor) -> float:
    """Return how much more alike a token's latents are to its neighbour's than to those of the other tokens: cosines."""
    unit_BF = normalize(acts_BF, dim=1)
    cosine_PP = unit_BF[0::2] @ unit_BF[1::2].t()
    n = cosine_PP.shape[0]
    of_neighbours = cosine_PP.diagonal().sum()
    return float(of_neighbours / n - (cosine_PP.sum() - of_neighbours) / (n * n - n))


def test_an_interrupted_run_ends_as_an_undisturbed_one(
    tree: dict[str, Any], whole: tuple[saesweep.Result, Path], tmp_path: Path
) -> None:
    assert saesweep.run(tree, run_dir=tmp_path / "run", listeners=[stopping_at(2)]).status == "interrupted"
    again = saesweep.run(tree, run_dir=tmp_path / "run")
    assert [row.metrics for row in again.rows] == [row.metrics for row in whole[0].rows]


def test_pairs_and_single_tokens_are_two_streams(tree: dict[str, Any], tmp_path: Path) -> None:
    base = {name: value for name, value in tree["base"].items() if name != "neighbour_pairs"}
    base["sae"] = {name: value for name, value in base["sae"].items() if name != "matryoshka_widths"}
    other = {
        **tree,
        "base": {**base, "training_tokens": 2560},
        "space": {"sae.architecture": {"choice": ["topk"]}, "neighbour_pairs": {"choice": [False, True]}},
    }
    result = saesweep.run(other, run_dir=tmp_path / "run")
    singles, pairs = (row.metrics["explained_variance"] for row in sorted(result.rows, key=lambda row: row.number))
    assert singles != pairs
    assert abs(singles - pairs) < 0.1
