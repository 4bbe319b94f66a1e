"""Sweeps over transcoders and SAEs of the same target: two hooks in one forward pass, spliced at the second."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import saesweep
from saesweep.errors import ExperimentError, UserError
from saesweep.evaluation import evaluate_saes
from saesweep.experiment import load_experiment
from saesweep.saes import open_sae
from tests.sweep.studies import llama_sweep, stopping_at

READ, TARGET = "model.layers.1.post_attention_layernorm", "model.layers.1.mlp"
KINDS = ["topk", "topk_transcoder", "topk_skip_transcoder"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An SAE, a transcoder and a skip transcoder around the MLP of a random Llama."""
    sae = {"architecture": "topk", "d_sae": 64, "k": 4, "normalize_activations": "expected_average_only_in"}
    folder = tmp_path_factory.mktemp("transcoders")
    return {
        **llama_sweep(folder, "transcoders", hook_name=READ, hook_name_out=TARGET, sae=sae),
        "space": {"sae.architecture": {"choice": KINDS}},
        "objective": {"minimize": "delta_ce"},
    }


@pytest.fixture(scope="module")
def whole(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[saesweep.Result, Path]:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return saesweep.run(tree, run_dir=run_dir), run_dir


def test_an_sae_and_its_transcoders_are_judged_by_the_same_activations(
    tree: dict[str, Any], whole: tuple[saesweep.Result, Path]
) -> None:
    result, run_dir = whole
    assert load_experiment(tree).hook_names() == (TARGET, READ)
    assert {row.hook for row in result.rows} == {TARGET}
    rows = {row.architecture: row for row in result.rows}
    assert set(rows) == set(KINDS)
    assert all(row.status == "complete" for row in result.rows)
    # A random MLP is nearly linear in its input: a linear map besides the latents helps more than anything.
    ev = {name: row.metrics["explained_variance"] for name, row in rows.items()}
    assert ev["topk_skip_transcoder"] > ev["topk_transcoder"] + 0.05
    assert all(0 < value < 1 for value in ev.values())
    for name, row in rows.items():
        cfg = json.loads((run_dir / "trials" / f"{row.number:04d}" / "sae" / "cfg.json").read_text())
        metadata = cfg["metadata"]
        if name == "topk":
            assert (cfg["architecture"], metadata["hook_name"]) == ("topk", TARGET)
            assert "hook_name_out" not in metadata
        else:
            kind = "jumprelu_skip_transcoder" if "skip" in name else "jumprelu_transcoder"
            assert (cfg["architecture"], metadata["hook_name"], metadata["hook_name_out"]) == (kind, READ, TARGET)
            assert metadata["training_architecture"] == name


def test_what_splicing_costs_is_measured_with_the_transcoder_in_place_of_the_mlp(
    tree: dict[str, Any], whole: tuple[saesweep.Result, Path]
) -> None:
    result, run_dir = whole
    row = next(row for row in result.rows if row.architecture == "topk_transcoder")
    sae = open_sae(run_dir / "trials" / f"{row.number:04d}" / "sae")
    model = AutoModelForCausalLM.from_pretrained(tree["base"]["model_name"])
    from saesweep.activations import open_source

    experiment = load_experiment(tree)
    source = open_source(experiment.base_run(), experiment.spec.evaluation, (TARGET, READ))
    tokens_NT = source.select.tokens_NT
    assert tokens_NT is not None
    layer = model.model.layers[1]
    with torch.no_grad():
        clean = model(tokens_NT, labels=tokens_NT).loss
        # The MLP reads what the norm gives.
        handle = layer.mlp.register_forward_hook(lambda _module, args, _output: sae(args[0]))
        spliced = model(tokens_NT, labels=tokens_NT).loss
        handle.remove()
    assert row.metrics["delta_ce"] == pytest.approx(float(spliced - clean), abs=2e-5)
    source.close()


def test_eval_measures_an_exported_transcoder_at_both_of_its_hooks(whole: tuple[saesweep.Result, Path]) -> None:
    result, run_dir = whole
    folders = [run_dir / "trials" / f"{row.number:04d}" / "sae" for row in result.rows]
    found = evaluate_saes(folders)
    for row, measured in zip(result.rows, found.saes, strict=True):
        assert measured.hook == TARGET
        for metric in ("explained_variance", "delta_ce", "l0"):
            assert measured.metrics[metric] == pytest.approx(row.metrics[metric], rel=1e-4, abs=1e-5)
    with pytest.raises(UserError, match="a transcoder, which has two hooks"):
        evaluate_saes([folders[[row.architecture for row in result.rows].index("topk_transcoder")]], hook=TARGET)


def test_an_interrupted_run_ends_as_an_undisturbed_one(
    tree: dict[str, Any], whole: tuple[saesweep.Result, Path], tmp_path: Path
) -> None:
    assert saesweep.run(tree, run_dir=tmp_path / "run", listeners=[stopping_at(2)]).status == "interrupted"
    again = saesweep.run(tree, run_dir=tmp_path / "run")
    assert [row.metrics for row in again.rows] == [row.metrics for row in whole[0].rows]


def test_training_continues_from_a_transcoder(
    tree: dict[str, Any], whole: tuple[saesweep.Result, Path], tmp_path: Path
) -> None:
    result, run_dir = whole
    row = next(row for row in result.rows if row.architecture == "topk_skip_transcoder")
    base = {
        **tree["base"],
        "from_pretrained_path": str(run_dir / "trials" / f"{row.number:04d}" / "sae"),
        "sae": {**tree["base"]["sae"], "architecture": "topk_skip_transcoder"},
        "training_tokens": 256,
        "lr": 1e-7,
    }
    again = saesweep.run({**tree, "base": base, "space": {}}, run_dir=tmp_path / "run")
    assert again.rows[0].metrics["explained_variance"] == pytest.approx(row.metrics["explained_variance"], abs=5e-3)


MISTAKES = {
    "no second hook": (
        {"hook_name_out": None, "sae": {"architecture": "topk_transcoder", "d_sae": 64, "k": 4}},
        "missing; topk_transcoder reconstructs the activations of this hook from those of hook_name",
    ),
    "no transcoder": (
        {"sae": {"architecture": "topk", "d_sae": 64, "k": 4}},
        "only transcoders reconstruct another hook, and the experiment has topk; leave it out, or choose one of ",
    ),
    "twice the same hook": (
        {"hook_name_out": READ, "sae": {"architecture": "topk_transcoder", "d_sae": 64, "k": 4}},
        "is hook_name itself",
    ),
    "a bias to subtract": (
        {"sae": {"architecture": "topk_transcoder", "d_sae": 64, "k": 4, "apply_b_dec_to_input": True}},
        "a transcoder's decoder bias belongs to its output",
    ),
    "per-token normalisation": (
        {
            "sae": {
                "architecture": "standard_transcoder",
                "d_sae": 64,
                "normalize_activations": "layer_norm",
            }
        },
        "which says nothing about the output of a transcoder",
    ),
    "one head": (
        {"hook_head_index": 0, "sae": {"architecture": "topk_transcoder", "d_sae": 64, "k": 4}},
        "a transcoder reads and reconstructs whole activations",
    ),
    "snapshots": (
        {"n_checkpoints": 2, "sae": {"architecture": "topk_transcoder", "d_sae": 64, "k": 4}},
        "snapshots are in SAELens' training form, which it does not have for transcoders",
    ),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_located(tree: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        load_experiment({**tree, "space": {}, "base": {**tree["base"], **change}})
    assert message in str(error.value)


def test_an_sae_beside_transcoders_has_no_hook_of_its_own(tree: dict[str, Any]) -> None:
    with pytest.raises(ExperimentError, match=r"an SAE beside transcoders trains on base\.hook_name_out"):
        load_experiment({**tree, "by_architecture": {"topk": {"hook_name": READ}}})
    with pytest.raises(ExperimentError, match=r"space\.hook_name: topk beside transcoders would ignore it"):
        load_experiment({**tree, "space": {**tree["space"], "hook_name": {"choice": [READ, "model.layers.1:input"]}}})


def test_a_null_target_is_no_target(tree: dict[str, Any]) -> None:
    base = {**tree["base"], "hook_name_out": None}
    space = {"sae.architecture": {"choice": ["topk", "batchtopk"]}}
    experiment = load_experiment(
        {**tree, "base": base, "space": space, "by_architecture": {"topk": {"hook_name": TARGET}}}
    )
    assert set(experiment.hook_names()) == {READ, TARGET}


def test_hooks_may_differ_by_architecture_and_be_searched(tree: dict[str, Any]) -> None:
    other = "model.layers.1:input"
    own = load_experiment({**tree, "by_architecture": {"topk_skip_transcoder": {"hook_name": other}}})
    assert own.hook_names() == (TARGET, READ, other)
    searched = load_experiment(
        {**tree, "space": {"sae.architecture": {"choice": KINDS[1:]}, "hook_name": {"choice": [other, READ]}}}
    )
    assert searched.hook_names() == (other, READ, TARGET)


def test_a_hook_that_the_model_lacks_is_named(tree: dict[str, Any], tmp_path: Path) -> None:
    wrong = {**tree, "base": {**tree["base"], "hook_name_out": "model.layers.1.mpl"}}
    with pytest.raises(UserError, match=r"no hook 'model.layers.1.mpl'; nearest: model.layers.1.mlp"):
        saesweep.run(wrong, run_dir=tmp_path / "run")


def test_synthetic_activations_have_one_hook(tree: dict[str, Any]) -> None:
    base = {
        "model_name": None,
        "dataset_path": "builtin:synthetic",
        "sae": {"architecture": "topk_transcoder", "d_in": 32, "d_sae": 64, "k": 4},
    }
    with pytest.raises(ExperimentError, match="needs a language model"):
        load_experiment({"name": "none", "base": base, "space": {}})
