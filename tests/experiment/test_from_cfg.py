"""`from_cfg`: files as SAELens 6.54 and 5 write them, and our own exports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saesweep import hub
from saesweep.errors import Problem, UserError
from saesweep.experiment import dump_yaml, load_experiment
from saesweep.experiment.fields import WITHOUT_EFFECT
from saesweep.experiment.from_cfg import read_cfg

One = Callable[..., Problem]

DETAILS = {
    "decoder_init_norm": 0.1,
    "k": 4,
    "use_sparse_activations": False,
    "aux_loss_coefficient": 0.5,
    "rescale_acts_by_decoder_norm": True,
    "topk_threshold_lr": 0.01,
}
# As printed by SAELens 6.54.12 for a BatchTopK run, cut to what matters here.
RUNNER: dict[str, Any] = {
    "sae": {
        "d_in": 8,
        "d_sae": 16,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "expected_average_only_in",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12", "training_architecture": "batchtopk"},
        **DETAILS,
        "architecture": "batchtopk",
    },
    "model_name": "gelu-2l",
    "model_class_name": "HookedTransformer",
    "hook_name": "blocks.1.hook_mlp_out",
    "hook_eval": "NOT_IN_USE",
    "dataset_path": "some/data",
    "dataset_trust_remote_code": True,
    "is_dataset_tokenized": True,
    "context_size": 64,
    "n_batches_in_buffer": 64,
    "training_tokens": 3_000_000,
    "seqpos_slice": [None],
    "device": "cuda",
    "llm_device": "cuda",
    "act_store_device": "cuda",
    "prefetch_llm_batches": 2,
    "compile_sae": True,
    "lr": 0.0007,
    "lr_scheduler_name": "constant",
    "lr_end": 0.00007,
    "lr_warm_up_steps": 100,
    "logger": {"log_to_wandb": True, "wandb_project": "mine", "run_name": None},
    "checkpoint_path": "checkpoints/0d74ba43",
    "output_path": "output",
    "model_from_pretrained_kwargs": {"center_writing_weights": False},
    "sae_lens_version": "6.54.12",
    "sae_lens_training_version": "6.54.12",
}
# The `cfg.json` of a finished BatchTopK run: architecture jumprelu, training details in the metadata.
EXPORTED: dict[str, Any] = {
    "device": "cpu",
    "normalize_activations": "none",
    "reshape_activations": "none",
    "dtype": "float32",
    "d_sae": 16,
    "apply_b_dec_to_input": True,
    "metadata": {
        "sae_lens_version": "6.54.12",
        "training_architecture": "batchtopk",
        "training_architecture_details": DETAILS,
        "dataset_path": "some/data",
        "hook_name": "blocks.1.hook_mlp_out",
        "model_name": "gelu-2l",
        "model_class_name": "HookedTransformer",
        "hook_head_index": None,
        "context_size": 64,
        "seqpos_slice": [None],
        "prepend_bos": False,
        "l0": 4.0,
    },
    "d_in": 8,
    "architecture": "jumprelu",
}
V5: dict[str, Any] = {
    "architecture": "standard",
    "d_in": 512,
    "d_sae": 4096,
    "expansion_factor": 8,
    "activation_fn_str": "relu",
    "dtype": "torch.float32",
    "model_name": "pythia-70m",
    "hook_point": "blocks.3.hook_resid_post",
    "hook_point_layer": 3,
    "dataset_path": "some/data",
    "context_size": 128,
    "l1_coefficient": 5.0,
    "lp_norm": 1.0,
    "l1_warm_up_steps": 1500,
    "lr": 5e-5,
    "training_tokens": 1_000_000,
    "train_batch_size_tokens": 4096,
    "mse_loss_normalization": "dense_batch",
    "use_ghost_grads": False,
    "sae_lens_version": "3.2.0",
}


def put(folder: Path, name: str, data: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def load(source: Path, **own: Any) -> Any:
    return load_experiment({"name": "t", "base": {"from_cfg": str(source), **own}})


def test_runner_cfg(tmp_path: Path) -> None:
    experiment = load(put(tmp_path, "runner_cfg.json", RUNNER))
    run = experiment.resolve({})
    assert (run.lr, run.context_size, run.training_tokens, run.hook_name) == (
        7e-4,
        64,
        3_000_000,
        "blocks.1.hook_mlp_out",
    )
    assert run.model_class_name == "TransformerBridge"
    assert run.model_from_pretrained_kwargs is None
    assert run.is_dataset_tokenized is None
    assert run.device == "auto"
    assert run.logger.wandb_project == "mine"
    sae = run.sae.model_dump()
    assert (sae["architecture"], sae["k"], sae["aux_loss_coefficient"]) == ("batchtopk", 4, 0.5)
    assert sae["normalize_activations"] == "expected_average_only_in"
    assert "from_cfg" not in experiment.tree["base"]


def test_fields_of_saelens_without_effect_are_left_out_without_a_word(tmp_path: Path) -> None:
    logger = {"wandb_project": "mine", "log_to_wandb": False, "eval_every_n_wandb_logs": 10}
    logger |= {"log_activations_store_to_wandb": True, "log_optimizer_state_to_wandb": True}
    cfg = {**RUNNER, "dead_feature_threshold": 1e-6, "n_eval_batches": 3, "verbose": False, "logger": logger}
    experiment = load(put(tmp_path, "runner_cfg.json", cfg))
    assert experiment.tree["base"]["logger"] == {"wandb_project": "mine"}
    assert experiment.resolve({}) == load(put(tmp_path, "runner_cfg.json", RUNNER)).resolve({})
    named = "".join(w for w in experiment.warnings if "not carried over" in w)
    assert not any(name in named for name in ("wandb", "dead_feature", "n_eval", "verbose", "sae."))


def test_another_rate_of_the_exported_threshold_is_named_as_lost(tmp_path: Path) -> None:
    cfg = {**RUNNER, "sae": {**RUNNER["sae"], "topk_threshold_lr": 0.1, "use_sparse_activations": True}}
    experiment = load(put(tmp_path, "runner_cfg.json", cfg))
    assert experiment.resolve({}) == load(put(tmp_path, "runner_cfg.json", RUNNER)).resolve({})
    lost = next(w for w in experiment.warnings if "not carried over" in w)
    assert "sae.topk_threshold_lr" in lost
    assert "use_sparse_activations" not in lost


@pytest.mark.parametrize("path", WITHOUT_EFFECT)
def test_fields_without_effect_are_refused_with_what_to_do_instead(
    path: str, tree: dict[str, Any], only_problem: One
) -> None:
    block, _, key = path.rpartition(".")
    message = f"{key!r} has no effect here: {WITHOUT_EFFECT[path]}"
    for changed, place in (
        (with_value(tree, {"base": {block: {key: 1}} if block else {key: 1}}), f"base.{path}"),
        (with_value(tree, {"by_architecture": {"topk": {path: 1}}}), f"by_architecture.topk.{path}"),
        (with_value(tree, {"space": {path: {"choice": [1, 2]}}}), f"space.{path}"),
    ):
        problem = only_problem(changed)
        assert (problem.path, problem.message) == (place, message)


def with_value(tree: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment with further keys in its sections."""
    merged = dict(tree)
    for key, value in change.items():
        merged[key] = with_value(tree.get(key) or {}, value) if isinstance(value, dict) else value
    return merged


def test_what_is_not_carried_over_is_named(tmp_path: Path) -> None:
    warnings = load(put(tmp_path, "runner_cfg.json", {**RUNNER, "brand_new": 1})).warnings
    lost = next(w for w in warnings if "not carried over" in w)
    for name in ("device", "compile_sae", "logger.log_to_wandb", "brand_new"):
        assert name in lost
    for name in ("hook_eval", "output_path", "sae_lens_version", "metadata", "run_name"):
        assert name not in lost
    assert any("HookedTransformer is TransformerBridge" in w for w in warnings)


def test_the_file_wins_over_the_configuration(tmp_path: Path) -> None:
    source = put(tmp_path, "runner_cfg.json", RUNNER)
    run = load(source, lr=1e-3, lr_scheduler_name="cosineannealing", sae={"k": 3, "expansion_factor": 4}).resolve({})
    assert (run.lr, run.lr_end, run.sae.d_sae, run.sae.expansion_factor) == (1e-3, None, None, 4)
    assert (run.sae.model_dump()["k"], run.sae.d_in) == (3, 8)


def test_another_architecture_leaves_its_fields_behind(tmp_path: Path) -> None:
    run = load(put(tmp_path, "runner_cfg.json", RUNNER), sae={"architecture": "standard"}).resolve({})
    assert run.sae.architecture == "standard"
    assert run.sae.normalize_activations == "expected_average_only_in"


def test_a_folder_prefers_the_runner_configuration(tmp_path: Path) -> None:
    put(tmp_path, "cfg.json", EXPORTED)
    put(tmp_path, "runner_cfg.json", RUNNER)
    assert load(tmp_path).resolve({}).lr == 7e-4


def test_exported_cfg_alone(tmp_path: Path) -> None:
    put(tmp_path, "cfg.json", EXPORTED)
    experiment = load(tmp_path)
    run = experiment.resolve({})
    assert (run.sae.architecture, run.sae.model_dump()["k"], run.prepend_bos) == ("batchtopk", 4, False)
    assert (run.hook_name, run.context_size) == ("blocks.1.hook_mlp_out", 64)
    assert any("does not say lr" in w for w in experiment.warnings)
    assert any("export folds it into the weights" in w for w in experiment.warnings)


def test_folder_of_one_sae_of_several(tmp_path: Path) -> None:
    shared = {k: v for k, v in RUNNER.items() if k not in ("sae", "hook_name")}
    saes = {"a": RUNNER["sae"], "b": {**RUNNER["sae"], "k": 7}}
    put(tmp_path, "runner_cfg.json", {**shared, "saes": saes, "hook_names": {"a": "h.a", "b": "h.b"}})
    put(tmp_path / "b", "cfg.json", EXPORTED)
    run = load(tmp_path / "b").resolve({})
    assert (run.hook_name, run.sae.model_dump()["k"], run.lr) == ("h.b", 7, 7e-4)


def test_parent_of_several_saes(tmp_path: Path, only_problem: One) -> None:
    put(tmp_path, "runner_cfg.json", {"saes": {}, "lr": 1})
    assert "name the folder of one of them" in only_problem({"name": "t", "base": {"from_cfg": str(tmp_path)}}).message


def test_version_5_keeps_its_training_fields(tmp_path: Path) -> None:
    experiment = load(put(tmp_path, "cfg.json", V5))
    run = experiment.resolve({})
    assert (run.lr, run.hook_name, run.sae.d_sae, run.sae.expansion_factor) == (
        5e-5,
        "blocks.3.hook_resid_post",
        4096,
        None,
    )
    sae = run.sae.model_dump(mode="json")
    assert (sae["architecture"], sae["l1_coefficient"], sae["l1_warm_up_steps"]) == ("standard", 5.0, 1500)
    assert (sae["dtype"], run.model_class_name) == ("float32", "TransformerBridge")
    assert "mse_loss_normalization: 'dense_batch' of SAELens 5 divided the squared error" in str(experiment.warnings)
    for name in ("hook_point_layer", "use_ghost_grads"):  # said elsewhere, and off
        assert name not in str(experiment.warnings)


def test_version_5_says_which_head_and_how_the_decoder_began(tmp_path: Path) -> None:
    heads = {**V5, "hook_point": "blocks.3.attn.hook_z", "hook_point_head_index": 2}
    assert load(put(tmp_path, "a.json", heads)).resolve({}).hook_head_index == 2
    for number, (start, norm) in enumerate(
        [
            ({"decoder_heuristic_init": True, "decoder_heuristic_init_norm": 0.25}, 0.25),
            ({"decoder_heuristic_init": False, "normalize_sae_decoder": False}, None),
            ({"decoder_heuristic_init": False, "normalize_sae_decoder": True}, 1.0),
            ({}, 0.1),
        ]
    ):
        run = load(put(tmp_path, f"{number}.json", {**V5, **start})).resolve({})
        assert run.sae.decoder_init_norm == norm, start


@pytest.mark.parametrize(
    ("field", "off", "on"),
    [
        ("use_ghost_grads", False, True),
        ("noise_scale", 0.0, 0.1),
        ("mse_loss_normalization", None, "dense_batch"),
        ("normalize_sae_decoder", False, True),
        ("scale_sparsity_penalty_by_decoder_norm", True, False),
        ("b_dec_init_method", "zeros", "geometric_median"),
        ("init_encoder_as_decoder_transpose", True, False),
        ("decoder_orthogonal_init", False, True),
        ("finetuning_method", None, "scale"),
    ],
)
def test_version_5_says_only_what_changed_training(tmp_path: Path, field: str, off: Any, on: Any) -> None:
    plain = {**V5, "mse_loss_normalization": None}
    assert field not in str(load(put(tmp_path, "off.json", {**plain, field: off})).warnings)
    said = [w for w in load(put(tmp_path, "on.json", {**plain, field: on})).warnings if field in w]
    assert len(said) == 1
    assert f"{field}: {on!r} of SAELens 5 " in said[0]


def test_version_5_topk_and_jumprelu(tmp_path: Path) -> None:
    topk = {**V5, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 32}}
    sae = load(put(tmp_path, "a.json", topk)).resolve({}).sae.model_dump()
    assert (sae["architecture"], sae["k"], sae["rescale_acts_by_decoder_norm"]) == ("topk", 32, False)
    jumprelu = {**V5, "architecture": "jumprelu", "jumprelu_bandwidth": 0.001}
    sae = load(put(tmp_path, "b.json", jumprelu)).resolve({}).sae.model_dump()
    assert (sae["architecture"], sae["l0_coefficient"], sae["jumprelu_bandwidth"]) == ("jumprelu", 5.0, 0.001)


def test_our_own_export_is_exact(tmp_path: Path, tree: dict[str, Any]) -> None:
    tree["base"].update(lr_warm_up_steps="3%", buffer_tokens="40k")
    put(tmp_path, "cfg.json", EXPORTED)
    put(tmp_path, "runner_cfg.json", RUNNER)
    (tmp_path / "experiment.yaml").write_text(dump_yaml(tree), encoding="utf-8")
    experiment = load(tmp_path)
    assert experiment.tree["base"] == tree["base"]
    assert experiment.warnings == ()


def test_an_export_of_the_synthetic_source(tmp_path: Path) -> None:
    run = {
        **RUNNER,
        "model_name": "none",
        "dataset_path": "builtin:synthetic",
        "model_class_name": "AutoModelForCausalLM",
    }
    assert load(put(tmp_path, "runner_cfg.json", run)).resolve({}).model_name is None


def test_mistakes_of_the_configuration_are_shown_at_from_cfg(
    tmp_path: Path, write: Callable[[str], Path], only_problem: One
) -> None:
    source = put(tmp_path, "runner_cfg.json", {**RUNNER, "seqpos_slice": [9, 3]})
    problem = only_problem(write(f"name: t\nbase:\n  from_cfg: {source}\n"))
    assert (problem.line, problem.path) == (3, "base.from_cfg")
    assert "sets seqpos_slice, which is not possible here" in problem.message


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "not valid JSON"), ("[1]", "got a list"), ('{"a": 1}', "no configuration of an SAE")],
)
def test_files_that_are_no_configuration(tmp_path: Path, only_problem: One, content: str, says: str) -> None:
    path = tmp_path / "cfg.json"
    path.write_text(content)
    assert says in only_problem({"name": "t", "base": {"from_cfg": str(path)}}).message


def test_nothing_there(tmp_path: Path, only_problem: One) -> None:
    problem = only_problem({"name": "t", "base": {"from_cfg": str(tmp_path / "nowhere")}})
    assert "neither a folder nor a file" in problem.message
    problem = only_problem({"name": "t", "base": {"from_cfg": str(tmp_path)}})
    assert "neither runner_cfg.json nor cfg.json" in problem.message
    assert "takes a folder" in only_problem({"name": "t", "base": {"from_cfg": 5}}).message


class TestHub:
    """Hub ids, with the download replaced: tests make no network call."""

    def test_folder_of_a_repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        asked: list[tuple[str, str]] = []

        def download(repo: str, name: str, **_kwargs: Any) -> str:
            asked.append((repo, name))
            return str(put(tmp_path, "runner_cfg.json", RUNNER))

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        monkeypatch.setattr(hub, "_answers", lambda _endpoint: True)
        run = load_experiment({"name": "t", "base": {"from_cfg": "user/repo/a/b"}}).resolve({})
        assert asked == [("user/repo", "a/b/runner_cfg.json")]
        assert run.lr == 7e-4

    def test_without_a_network(self, monkeypatch: pytest.MonkeyPatch, only_problem: One) -> None:
        import huggingface_hub
        from huggingface_hub.errors import LocalEntryNotFoundError

        def download(*_args: Any, **_kwargs: Any) -> str:
            raise LocalEntryNotFoundError("offline")

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        monkeypatch.setattr(hub, "_answers", lambda _endpoint: False)
        problem = only_problem({"name": "t", "base": {"from_cfg": "user/repo/a", "sae": {"k": 3}}})
        assert "the Hub could not be reached" in problem.message


def test_a_folder_of_another_tool_says_what_to_do_instead(tmp_path: Path) -> None:
    (tmp_path / "cfg.json").write_text('{"d_in": 8, "k": 4, "normalize_decoder": true}')
    (tmp_path / "sae.safetensors").touch()
    with pytest.raises(UserError, match=r"is an SAE of sparsify, .* from_pretrained_path"):
        read_cfg(str(tmp_path))
