"""Sweeps over a tiny language model: several hooks in one forward pass, encoders, the model running ahead."""

import json
import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

import saesweep
from saesweep.evaluation import evaluate_saes
from saesweep.experiment import load_experiment
from saesweep.experiment.saelens_cfg import METADATA_FIELDS
from saesweep.models.huggingface import HuggingFaceModel
from tests.models.tiny import HIDDEN, WORDS, save_bert, save_llama
from tests.sweep.studies import snapshot

HOOKS = ["model.layers.0", "model.layers.1.mlp", "model.layers.1.mlp.down_proj:input"]


@pytest.fixture
def lm_tree(tmp_path: Path) -> dict[str, Any]:
    """Four small TopK trials on a random Llama of three layers."""
    (tmp_path / "model").mkdir()
    rng = random.Random(0)
    text = tmp_path / "text.txt"
    text.write_text("\n".join(" ".join(rng.choices(WORDS, k=60)) for _ in range(300)))
    return {
        "name": "tiny-lm",
        "base": {
            "model_name": str(save_llama(tmp_path / "model")),
            "hook_name": HOOKS[0],
            "dataset_path": str(text),
            "streaming": False,
            "context_size": 16,
            "training_tokens": 4096,
            "train_batch_size_tokens": 128,
            "buffer_tokens": 1024,
            "store_batch_size_prompts": 8,
            "lr": 3e-3,
            "device": "cpu",
            "sae": {"architecture": "topk", "d_sae": 64, "k": 4},
        },
        "space": {"sae.k": {"choice": [2, 4, 8, 16]}},
        "evaluation": {"select_tokens": 512, "test_tokens": 512},
        "search": {"sampler": "grid", "rungs": []},
        "cohort": {"size": 8, "checkpoint_seconds": 0},
    }


def test_three_hooks_share_one_forward_pass_and_are_ranked(
    lm_tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[tuple[int, tuple[str, ...]]] = []
    activations = HuggingFaceModel.activations

    def counted(self: HuggingFaceModel, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        if self.device.type == "cpu":  # not the preflight's, which has no storage
            passes.append((len(tokens_NT), tuple(hooks)))
        return activations(self, tokens_NT, hooks)

    monkeypatch.setattr(HuggingFaceModel, "activations", counted)
    lm_tree["space"] = {"hook_name": {"choice": HOOKS}}
    lm_tree["objective"] = {"minimize": "delta_ce"}
    result = saesweep.run(lm_tree, run_dir=tmp_path / "three")
    of_three = list(passes)
    assert {hooks for _, hooks in of_three} == {tuple(HOOKS)}  # each pass reads all of them
    assert {row.hook for row in result.rows} == set(HOOKS)
    assert result.rows[0].rank == 1
    assert all(row.rank is not None for row in result.rows)  # ties within the noise share a rank
    assert len({row.metrics["delta_ce"] for row in result.rows}) == 3
    assert all(row.status == "complete" and row.metrics["delta_ce"] == row.metrics["delta_ce"] for row in result.rows)

    passes.clear()
    lm_tree["space"] = {"hook_name": {"choice": HOOKS[:1]}}
    saesweep.run(lm_tree, run_dir=tmp_path / "one")
    assert len(passes) == len(of_three)  # three hooks cost what one costs


def without_effect(folder: str) -> None:
    """Let the attention of the second layer give zeros."""
    weights = load_file(Path(folder) / "model.safetensors")
    weights["model.layers.1.self_attn.o_proj.weight"].zero_()
    save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})


def test_a_hook_without_effect_ends_its_own_trial_only(lm_tree: dict[str, Any], tmp_path: Path) -> None:
    without_effect(lm_tree["base"]["model_name"])
    lm_tree["space"] = {"hook_name": {"choice": ["model.layers.1.self_attn", "model.layers.0"]}}
    lm_tree["objective"] = {"maximize": "ce_loss_score"}
    result = saesweep.run(lm_tree, run_dir=tmp_path / "score")
    by_hook = {row.hook: row for row in result.rows}
    assert by_hook["model.layers.0"].status == "complete"
    assert by_hook["model.layers.0"].metrics["ce_loss_score"] > 0
    failed = by_hook["model.layers.1.self_attn"]
    assert failed.status == "failed"
    assert "ce_loss_score" in failed.reason
    assert "do not change the model's predictions" in failed.reason
    assert result.exit_code == 0

    del lm_tree["objective"]  # L0 and delta_ce have values everywhere
    lm_tree["base"]["sae"]["normalize_activations"] = "expected_average_only_in"  # a norm of 0, which nothing scales
    result = saesweep.run(lm_tree, run_dir=tmp_path / "default")
    assert {row.status for row in result.rows} == {"complete"}
    (row,) = (row for row in result.rows if row.hook == "model.layers.1.self_attn")
    assert row.metrics["delta_ce"] == 0
    for metric in ("ce_loss_score", "explained_variance", "explained_variance_no_sinks", "cosine_similarity"):
        assert math.isnan(row.metrics[metric])


def test_a_hook_without_effect_alone_is_named_as_the_cause(lm_tree: dict[str, Any], tmp_path: Path) -> None:
    without_effect(lm_tree["base"]["model_name"])
    lm_tree["base"]["hook_name"], lm_tree["space"] = "model.layers.1.self_attn", {}
    result = saesweep.run(lm_tree, run_dir=tmp_path / "default")
    assert result.exit_code == 1
    assert any("the activations of its hook do not vary" in note for note in result.notes)
    (measured,) = evaluate_saes([tmp_path / "default" / "best"]).saes
    assert measured.metrics["delta_ce"] == 0
    assert math.isnan(measured.metrics["ce_loss_score"])
    lm_tree["objective"] = {"maximize": "explained_variance"}
    result = saesweep.run(lm_tree, run_dir=tmp_path / "variance")
    assert "the activations of model.layers.1.self_attn do not vary" in result.rows[0].reason
    lm_tree["base"]["sae"]["normalize_activations"] = "expected_average_only_in"
    with pytest.raises(
        saesweep.UserError, match=r"mean norm of the activations at model\.layers\.1\.self_attn, which is 0"
    ):
        saesweep.run(lm_tree, run_dir=tmp_path / "norm")


def test_the_last_position_alone_is_ranked_by_the_divergence(lm_tree: dict[str, Any], tmp_path: Path) -> None:
    lm_tree["base"] |= {"seqpos_slice": [-1, None], "context_size": 4, "training_tokens": 1024}
    lm_tree["space"] = {"sae.k": {"choice": [2, 8]}}
    lm_tree["evaluation"] = {"select_tokens": 64, "test_tokens": 64}
    result = saesweep.run(lm_tree, run_dir=tmp_path / "last")
    assert {row.status for row in result.rows} == {"complete"}
    for row in result.rows:
        assert row.metrics["kl_div"] > 0
        assert math.isnan(row.metrics["delta_ce"])


@pytest.mark.parametrize(
    ("hook", "transformer_lens", "written", "reshaped"),
    [
        ("model.layers.1.mlp", "blocks.1.hook_mlp_out", ("AutoModelForCausalLM", "model.layers.1.mlp"), "none"),
        ("model.layers.1:input", "blocks.1.hook_resid_pre", ("AutoModelForCausalLM", "model.layers.0"), "none"),
        (
            "model.layers.1.self_attn.o_proj:input",
            "blocks.1.attn.hook_z",
            ("HookedTransformer", "blocks.1.attn.hook_z"),
            "hook_z",
        ),
    ],
)
def test_files_name_a_pair_that_saelens_loads_and_the_hook_in_both_libraries(
    hook: str,
    transformer_lens: str,
    written: tuple[str, str],
    reshaped: str,
    lm_tree: dict[str, Any],
    tmp_path: Path,
) -> None:
    lm_tree["base"] |= {"hook_name": hook, "sequence_separator_token": None, "max_activation_norm_multiple": 20.0}
    lm_tree["base"]["sae"]["normalize_activations"] = "expected_average_only_in"
    lm_tree["space"] = {}
    saesweep.run(lm_tree, run_dir=tmp_path / "run")
    best = tmp_path / "run" / "best"
    cfg = json.loads((best / "cfg.json").read_text())
    runner = json.loads((best / "runner_cfg.json").read_text())
    for document in (cfg["metadata"], runner):
        assert (document["model_class_name"], document["hook_name"]) == written
    assert cfg["metadata"]["saesweep"]["hook_names"] == {"hugging_face": hook, "transformer_lens": transformer_lens}
    assert cfg["reshape_activations"] == reshaped

    # cfg.json alone, without the files beside it, is the start of the same run.
    (tmp_path / "alone").mkdir()
    for name in ("cfg.json", "sae_weights.safetensors"):
        shutil.copy(best / name, tmp_path / "alone" / name)
    again = load_experiment({"name": "again", "base": {"from_cfg": str(tmp_path / "alone")}}).base_run()
    first = load_experiment(best / "experiment.yaml").base_run()
    for name in (*METADATA_FIELDS, "max_activation_norm_multiple"):
        assert getattr(again, name) == getattr(first, name), name
    ours, theirs = (run.sae.resolve_widths(HIDDEN) for run in (again, first))
    assert ours.model_dump(exclude={"reshape_activations"}) == theirs.model_dump(exclude={"reshape_activations"})


def test_an_encoder_is_swept_without_cross_entropy(lm_tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    lm_tree["base"] |= {
        "model_name": str(save_bert(tmp_path / "bert")),
        "model_class_name": "AutoModel",
        "hook_name": "encoder.layer.1",
    }
    result = saesweep.run(lm_tree, run_dir=tmp_path / "run")
    assert len(result.rows) == 4
    assert all(row.status == "complete" for row in result.rows)
    assert all("delta_ce" not in row.metrics and row.metrics["explained_variance"] < 1 for row in result.rows)
    assert saesweep.load_sae_folder(tmp_path / "run" / "best").d_in == HIDDEN


def test_cross_entropy_of_an_encoder_is_refused(lm_tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    lm_tree["base"] |= {
        "model_name": str(save_bert(tmp_path / "bert")),
        "model_class_name": "AutoModel",
        "hook_name": "encoder.layer.1",
    }
    lm_tree["objective"] = {"minimize": "delta_ce"}
    with pytest.raises(saesweep.UserError, match="delta_ce"):
        saesweep.run(lm_tree, run_dir=tmp_path / "run")


def test_running_ahead_changes_nothing_in_a_sweep(lm_tree: dict[str, Any], tmp_path: Path) -> None:
    saesweep.run(lm_tree, run_dir=tmp_path / "plain")
    lm_tree["base"]["prefetch_llm_batches"] = True
    saesweep.run(lm_tree, run_dir=tmp_path / "ahead")
    plain, ahead = snapshot(tmp_path / "plain"), snapshot(tmp_path / "ahead")
    for part in ("weights", "logs"):
        assert plain[part] == ahead[part]
    assert [row["metrics"] for row in plain["rows"]] == [row["metrics"] for row in ahead["rows"]]
