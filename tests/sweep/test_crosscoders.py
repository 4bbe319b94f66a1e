"""Sweeps over crosscoders and SAEs of one of their hooks: several hooks in one forward pass, spliced together."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import saesweep
from saesweep.activations import open_source
from saesweep.activations.cache.writer import write_cache
from saesweep.errors import ExperimentError, UserError
from saesweep.evaluation import evaluate_saes
from saesweep.experiment import load_experiment
from saesweep.experiment.experiment import with_widths
from saesweep.publish.card import model_card, read_entry
from saesweep.publish.push import name_of
from saesweep.report.write_features import write_features
from saesweep.saes import architecture_for, open_sae
from saesweep.specs.architectures import spec_class
from saesweep.worker.sizing import shared_bytes, slot_bytes
from tests.documentation import ROOT, blocks
from tests.sweep.studies import llama_sweep, stopping_at

HOOKS = ["model.layers.0", "model.layers.2:input"]
TOGETHER = "model.layers.0 + model.layers.2:input"
SINGLE = spec_class("topk")(d_sae=64, k=4)
KINDS = ["topk", "topk_crosscoder", "batchtopk_crosscoder", "standard_crosscoder"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An SAE of one hook and crosscoders of two, on a random Llama."""
    sae = {"d_sae": 64, "k": 4, "l1_coefficient": 0.5, "normalize_activations": "expected_average_only_in"}
    folder = tmp_path_factory.mktemp("crosscoders")
    return {
        **llama_sweep(folder, "crosscoders", hook_name=HOOKS, sae=sae, training_tokens=6400),
        "by_architecture": {"topk": {"hook_name": HOOKS[0]}},
        "space": {"sae.architecture": {"choice": KINDS}},
        "objective": {"minimize": "delta_ce"},
    }


@pytest.fixture(scope="module")
def alone(tree: dict[str, Any]) -> dict[str, Any]:
    """The topk crosscoder by itself."""
    base = {**tree["base"], "sae": {**tree["base"]["sae"], "architecture": "topk_crosscoder"}}
    del base["sae"]["l1_coefficient"]
    return {**tree, "by_architecture": {}, "space": {}, "base": base}


@pytest.fixture(scope="module")
def whole(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[saesweep.Result, Path]:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return saesweep.run(tree, run_dir=run_dir), run_dir


def sae_of(whole: tuple[saesweep.Result, Path], architecture: str) -> tuple[Any, Path]:
    result, run_dir = whole
    row = next(row for row in result.rows if row.architecture == architecture)
    return row, run_dir / "trials" / f"{row.number:04d}" / "sae"


def test_one_forward_pass_serves_an_sae_and_crosscoders(
    tree: dict[str, Any], whole: tuple[saesweep.Result, Path]
) -> None:
    result, _ = whole
    assert load_experiment(tree).hook_names() == (HOOKS[0], TOGETHER)
    assert {row.architecture: row.hook for row in result.rows} == {
        "topk": HOOKS[0],
        **dict.fromkeys(KINDS[1:], TOGETHER),
    }
    assert all(row.status == "complete" for row in result.rows)
    for name in KINDS[1:]:
        row, folder = sae_of(whole, name)
        cfg = json.loads((folder / "cfg.json").read_text())
        kind = "jumprelu_crosscoder" if name.startswith("batch") else name
        assert (cfg["architecture"], cfg["n_layers"], cfg["d_in"]) == (
            kind,
            2,
            2 * open_sae(sae_of(whole, "topk")[1]).d_in,
        )
        assert cfg["metadata"]["hook_name"] == HOOKS
        assert all(0.2 < row.metrics[f"explained_variance@{hook}"] < 1 for hook in HOOKS), row.metrics
    assert not any("@" in name for name in sae_of(whole, "topk")[0].metrics)


def test_what_splicing_costs_is_measured_with_both_reconstructions_of_clean_activations(
    tree: dict[str, Any], whole: tuple[saesweep.Result, Path]
) -> None:
    row, folder = sae_of(whole, "batchtopk_crosscoder")
    sae = open_sae(folder)
    model = AutoModelForCausalLM.from_pretrained(tree["base"]["model_name"])
    experiment = load_experiment(tree)
    source = open_source(experiment.base_run(), experiment.spec.evaluation, (TOGETHER,))
    tokens_NT = source.select.tokens_NT
    assert tokens_NT is not None
    layers, seen = model.model.layers, {}
    with torch.no_grad():
        handles = [
            layers[0].register_forward_hook(lambda _module, _args, output: seen.update(first=output)),
            layers[2].register_forward_pre_hook(lambda _module, args: seen.update(second=args[0])),
        ]
        clean = model(tokens_NT, labels=tokens_NT).loss
        for handle in handles:
            handle.remove()
        recon = sae(torch.cat([seen["first"], seen["second"]], dim=-1))
        first, second = recon.chunk(2, dim=-1)
        layers[0].register_forward_hook(lambda _module, _args, _output: first)
        layers[2].register_forward_pre_hook(lambda _module, args: (second, *args[1:]))
        spliced = model(tokens_NT, labels=tokens_NT).loss
    assert row.metrics["delta_ce"] == pytest.approx(float(spliced - clean), abs=2e-5)
    x = torch.cat(list(source.select.batches(TOGETHER)))
    for hook, own, recon in zip(HOOKS, x.chunk(2, dim=1), sae(x).chunk(2, dim=1), strict=True):
        expected = 1 - float((own - recon).square().sum() / (own - own.mean(0)).square().sum())
        assert row.metrics[f"explained_variance@{hook}"] == pytest.approx(expected, abs=1e-5)
    source.close()


def test_eval_and_features_read_an_exported_crosscoder_at_all_its_hooks(
    whole: tuple[saesweep.Result, Path], tmp_path: Path
) -> None:
    row, folder = sae_of(whole, "topk_crosscoder")
    measured = evaluate_saes([folder]).saes[0]
    assert measured.hook == TOGETHER
    for metric in ("explained_variance", f"explained_variance@{HOOKS[1]}", "delta_ce", "l0"):
        assert measured.metrics[metric] == pytest.approx(row.metrics[metric], rel=1e-4, abs=1e-5)
    with pytest.raises(UserError, match=r"reads 2 hooks together, and 'model\.layers\.0' is one"):
        evaluate_saes([folder], hook=HOOKS[0])
    with pytest.raises(UserError, match=r"reads one hook, and .* is 2"):
        evaluate_saes([sae_of(whole, "topk")[1]], experiment=folder / "experiment.yaml", hook=TOGETHER)
    assert write_features([folder], to=tmp_path / "features.html").page.stat().st_size > 10_000
    with pytest.raises(UserError, match="is a crosscoder, and Neuronpedia's uploads are of one hook"):
        write_features([folder], to=tmp_path / "features.html", neuronpedia=tmp_path / "batches")


def test_memory_is_planned_for_the_width_of_all_hooks(alone: dict[str, Any]) -> None:
    run = with_widths(load_experiment(alone).base_run(), {TOGETHER: 64})
    single = with_widths(run.model_copy(update={"hook_name": HOOKS[0], "sae": SINGLE}), {HOOKS[0]: 32})
    assert run.sae.d_in == 64
    made = architecture_for(run.sae).init(torch.Generator()).values()
    assert slot_bytes(run) == 12 * sum(weight.numel() for weight in made)
    window = 4 * run.window_tokens * 32  # bytes of one hook's rows
    gradients = [4 * each.sae.n_parameters() for each in (run, single)]
    difference = shared_bytes([run], 1, 0) - shared_bytes([single], 1, 0)
    assert difference == window + gradients[0] - gradients[1]


@pytest.mark.parametrize("name", KINDS[1:])
def test_the_documented_snippet_computes_an_exported_crosscoder(whole: tuple[saesweep.Result, Path], name: str) -> None:
    folder = sae_of(whole, name)[1]
    (snippet,) = (block for block in blocks(ROOT / "docs" / "crosscoders.md", "python") if block.is_file)
    plain: dict[str, Any] = {}
    exec(snippet.text, plain)
    cfg, weights = plain["load"](folder)
    sae = open_sae(folder)
    x_BD = 3 * torch.randn(50, sae.d_in, generator=torch.Generator().manual_seed(0))
    latents = plain["encode"](cfg, weights, x_BD.view(50, cfg["n_layers"], -1))
    torch.testing.assert_close(latents, sae.encode(x_BD), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain["decode"](weights, latents).flatten(1), sae(x_BD), rtol=1e-5, atol=1e-5)
    assert len(cfg["layer_scales"]) == 2
    torch.testing.assert_close(sae.decoder_shares().sum(1), torch.ones(sae.d_sae))


def test_a_published_crosscoder_is_not_said_to_load_in_saelens(whole: tuple[saesweep.Result, Path]) -> None:
    folder = sae_of(whole, "topk_crosscoder")[1]
    name = name_of(open_sae(folder), "best")
    assert name == "model.layers.0-model.layers.2-input/best"
    card = model_card("a/b", [read_entry(name, open_sae(folder), folder)])
    assert f"| `{TOGETHER}` |" in card
    assert "sae_lens" not in card
    assert 'pull("a/b/model.layers.0-model.layers.2-input/best"' in card


def test_an_interrupted_run_ends_as_an_undisturbed_one(
    tree: dict[str, Any], whole: tuple[saesweep.Result, Path], tmp_path: Path
) -> None:
    assert saesweep.run(tree, run_dir=tmp_path / "run", listeners=[stopping_at(2)]).status == "interrupted"
    again = saesweep.run(tree, run_dir=tmp_path / "run")
    assert [row.metrics for row in again.rows] == [row.metrics for row in whole[0].rows]


def test_from_a_cache_as_from_the_model_and_beside_a_reference(
    alone: dict[str, Any], whole: tuple[saesweep.Result, Path], tmp_path: Path
) -> None:
    experiment = load_experiment(alone)
    run = experiment.base_run()
    write_cache(run, experiment.spec.evaluation, (TOGETHER,), tmp_path / "cache", tokens=run.training_tokens)
    row, folder = sae_of(whole, "topk_crosscoder")
    base = {**alone["base"], "use_cached_activations": True, "cached_activations_path": str(tmp_path / "cache")}
    cached = {**alone, "base": base, "evaluation": {**alone["evaluation"], "references": [str(folder)]}}
    again = saesweep.run(cached, run_dir=tmp_path / "run")
    assert again.rows[0].metrics == row.metrics
    explained = again.references[0].metrics["explained_variance"]
    assert explained == pytest.approx(row.metrics["explained_variance"], rel=1e-5)


def test_training_continues_from_a_crosscoder(
    alone: dict[str, Any], whole: tuple[saesweep.Result, Path], tmp_path: Path
) -> None:
    row, folder = sae_of(whole, "topk_crosscoder")
    base = {**alone["base"], "from_pretrained_path": str(folder), "training_tokens": 256, "lr": 1e-7}
    again = saesweep.run({**alone, "base": base}, run_dir=tmp_path / "run")
    assert again.rows[0].metrics["explained_variance"] == pytest.approx(row.metrics["explained_variance"], abs=5e-3)


@pytest.mark.parametrize("file", ["", "cfg.json", "runner_cfg.json"])
def test_from_cfg_reads_an_exported_crosscoder(whole: tuple[saesweep.Result, Path], file: str) -> None:
    folder = sae_of(whole, "batchtopk_crosscoder")[1]
    found = load_experiment({"name": "again", "base": {"from_cfg": str(folder / file)}, "space": {}})
    run = found.base_run()
    assert (run.sae.architecture, run.hook_name) == ("batchtopk_crosscoder", TOGETHER)


def test_lists_of_hooks_are_searched(alone: dict[str, Any]) -> None:
    other = ["model.layers.1", "model.layers.2"]
    searched = load_experiment({**alone, "space": {"hook_name": {"choice": [HOOKS, other]}}})
    assert searched.hook_names() == (TOGETHER, "model.layers.1 + model.layers.2")
    by_condition = {
        "sae.architecture": {"choice": ["topk", "topk_crosscoder"]},
        "hook_name": [
            {"choice": other, "when": {"sae.architecture": "topk"}},
            {"choice": [other], "when": {"sae.architecture": "topk_crosscoder"}},
        ],
    }
    assert load_experiment({**alone, "space": by_condition}).hook_names() == (*other, "model.layers.1 + model.layers.2")


MISTAKES = {
    "an SAE": (
        {"sae": {"architecture": "topk", "d_sae": 64}},
        "base.hook_name: topk reads one hook; to try each, write under space",
    ),
    "one hook": (
        {"hook_name": HOOKS[0]},
        "base.hook_name: topk_crosscoder reads several hooks together; name them as a list",
    ),
    "twice": ({"hook_name": [HOOKS[0], HOOKS[0]]}, "base.hook_name: names a hook twice"),
    "target": ({"hook_name_out": HOOKS[0]}, "base.hook_name_out: topk_crosscoder reconstructs what it reads"),
    "head": ({"hook_head_index": 0}, "base.hook_head_index: a crosscoder reads whole activations"),
    "snapshots": ({"n_checkpoints": 2}, "base.n_checkpoints: snapshots are in SAELens' training form"),
    "count": ({"sae": {"n_layers": 3}}, "base.sae.n_layers: 3, but hook_name names 2 hooks"),
    "bias": (
        {"sae": {"apply_b_dec_to_input": True}},
        "base.sae.apply_b_dec_to_input: true is not possible: a crosscoder's",
    ),
    "whitening": (
        {"sae": {"normalize_activations": "covariance_whitening"}},
        "would mix the layers that a crosscoder reads",
    ),
    "by token": ({"sae": {"normalize_activations": "layer_norm"}}, "would mix the layers that a crosscoder reads"),
    "synthetic": (
        {"model_name": None, "dataset_path": "builtin:synthetic"},
        "base.sae.architecture: topk_crosscoder needs a language model",
    ),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_located(alone: dict[str, Any], change: dict[str, Any], message: str) -> None:
    base = {**alone["base"], **change, "sae": {**alone["base"]["sae"], **change.get("sae", {})}}
    with pytest.raises(ExperimentError) as error:
        load_experiment({**alone, "base": base})
    assert message in str(error.value)


def test_hooks_of_different_widths_are_refused(alone: dict[str, Any], tmp_path: Path) -> None:
    base = {**alone["base"], "hook_name": ["model.layers.0", "model.layers.0.mlp.gate_proj"]}
    with pytest.raises(
        UserError, match=r"must be of one width: model\.layers\.0 is \d+, model\.layers\.0\.mlp\.gate_proj is"
    ):
        saesweep.run({**alone, "base": base}, run_dir=tmp_path / "run")


def test_the_shipped_experiment_runs(tmp_path: Path) -> None:
    short = ["base.training_tokens=10k", "base.sae.d_sae=64", "objective.matched.l0=[4, 6, 8]", "base.context_size=32"]
    short += ["evaluation.select_tokens=1k", "evaluation.test_tokens=1k", "evaluation.ce_tokens=1k"]
    short += ["base.train_batch_size_tokens=128", "base.buffer_tokens=2k"]
    file = ROOT / "experiments" / "crosscoders.yaml"
    result = saesweep.run(file, run_dir=tmp_path / "run", overrides=short)
    assert [row.status for row in result.rows] == ["complete"] * 12
    for row in result.rows:
        at_hooks = {name for name in row.metrics if name.startswith("explained_variance@")}
        expected = {f"explained_variance@model.layers.{layer}" for layer in range(3)}
        assert at_hooks == (expected if "crosscoder" in row.architecture else set())
    assert {entry.target_l0 for entry in result.matched} == {4, 6, 8}
