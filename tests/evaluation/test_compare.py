"""Published SAEs measured side by side, through `evaluate_saes` and `saesweep eval`."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saesweep.cli import main
from saesweep.errors import UserError
from saesweep.evaluation import Comparison, evaluate_saes
from saesweep.experiment import dump_yaml
from saesweep.saes import ExportedSAE, save_sae_folder
from saesweep.saes.folding import SAELENS_VERSION
from tests.models.tiny import HIDDEN, WORDS, save_llama

CONTEXT = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(" ".join(words.choices(WORDS, k=40)) for _ in range(200)))
    return path


def sae_folder(
    folder: Path, metadata: dict[str, Any], *, quality: float = 1.0, d_in: int = HIDDEN, **topk: Any
) -> Path:
    """An SAE with one latent per signed direction: with quality 1 it reconstructs perfectly. With `k`, a topk."""
    eye = torch.eye(d_in)
    tensors = {
        "W_enc": torch.cat([eye, -eye], dim=1),
        "W_dec": quality * torch.cat([eye, -eye]),
        "b_enc": torch.zeros(2 * d_in),
        "b_dec": torch.zeros(d_in),
    }
    cfg = {
        "architecture": "topk" if topk else "standard",
        "d_in": d_in,
        "d_sae": 2 * d_in,
        "dtype": "float32",
        "device": "cpu",
        "metadata": {"sae_lens_version": SAELENS_VERSION, **metadata},
        **topk,
    }
    save_sae_folder(folder, ExportedSAE(cfg["architecture"], cfg, tensors), sparsity_F=None)
    return folder


@pytest.fixture
def metadata(model: Path, text: Path) -> dict[str, Any]:
    return {
        "model_name": str(model),
        "model_class_name": "AutoModelForCausalLM",
        "hook_name": "model.layers.1",
        "dataset_path": str(text),
        "context_size": CONTEXT,
        "exclude_special_tokens": True,
    }


SMALL = ("evaluation.select_tokens=1600", "evaluation.test_tokens=160", "base.device=cpu")


def measure(*sources: Path | str, **kwargs: Any) -> Comparison:
    return evaluate_saes(sources, overrides=[*SMALL, *kwargs.pop("overrides", ())], **kwargs)


def test_a_perfect_and_a_worse_sae(tmp_path: Path, metadata: dict[str, Any]) -> None:
    found = measure(sae_folder(tmp_path / "a", metadata), sae_folder(tmp_path / "b", metadata, quality=0.5))
    perfect, worse = (sae.metrics for sae in found.saes)
    assert perfect["mse"] == pytest.approx(0, abs=1e-9)
    assert perfect["delta_ce"] == pytest.approx(0, abs=1e-6)
    assert perfect["ce_loss_score"] == pytest.approx(1, abs=1e-5)
    assert perfect["l0"] == pytest.approx(HIDDEN)
    assert perfect["silent_fraction"] == 0
    assert worse["l2_ratio"] == pytest.approx(0.5, abs=1e-5)
    assert worse["kl_div"] > 5 * worse["kl_div_stderr"] > 0
    assert worse["delta_ce_minus_first"] == pytest.approx(worse["delta_ce"] - perfect["delta_ce"], abs=1e-9)
    assert worse["explained_variance_stderr"] > 0
    assert found.saes[0].hook == "model.layers.1"
    assert [note.split(":")[0] for note in found.notes] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert all("may have seen them" in note for note in found.notes)


def test_only_saes_of_the_same_text_may_have_seen_it(tmp_path: Path, metadata: dict[str, Any]) -> None:
    other = tmp_path / "other.txt"
    other.write_text(Path(metadata["dataset_path"]).read_text())
    same = sae_folder(tmp_path / "same", metadata)
    stranger = sae_folder(tmp_path / "stranger", {**metadata, "dataset_path": "some/corpus"})
    unknown = sae_folder(tmp_path / "unknown", {k: v for k, v in metadata.items() if k != "dataset_path"})
    notes = measure(same, stranger, unknown).notes
    assert [note.split(":")[0] for note in notes] == [str(same), str(unknown)]
    assert "do not say what it was trained on" in notes[1]
    assert measure(same, stranger, overrides=[f"base.dataset_path={other}"]).notes == ()


def test_tokens_that_the_own_run_held_out_were_not_seen(tmp_path: Path, metadata: dict[str, Any]) -> None:
    folder = sae_folder(tmp_path / "a", metadata)
    own = {
        "name": "own",
        "base": {**metadata, "sae": {"architecture": "standard", "d_sae": 64}},
        "evaluation": {"select_tokens": 320, "test_tokens": 320},
    }
    (folder / "experiment.yaml").write_text(dump_yaml(own))
    cpu = ["base.device=cpu"]
    assert evaluate_saes([folder], overrides=cpu).notes == (f"model and dataset as in {folder / 'experiment.yaml'}",)
    # More tokens than were held out, or another split, reach into what was trained on.
    for override in ("evaluation.select_tokens=800", "base.seed=7"):
        notes = evaluate_saes([folder], overrides=[*cpu, override]).notes
        assert "may have seen them" in notes[1]


def test_only_the_part_that_is_read_must_exist(tmp_path: Path, metadata: dict[str, Any]) -> None:
    short = tmp_path / "short.txt"
    short.write_text(" ".join(WORDS[i % len(WORDS)] for i in range(900)))  # one document, no default test part
    folder = sae_folder(tmp_path / "a", {**metadata, "dataset_path": str(short)})
    overrides = ["evaluation.select_tokens=800", "base.device=cpu"]
    assert 700 <= evaluate_saes([folder], overrides=overrides).tokens <= 800
    with pytest.raises(UserError, match=r"select_tokens: .* ends after 1 documents .* before 2000 tokens"):
        evaluate_saes([folder], overrides=["evaluation.select_tokens=2000", "base.device=cpu"])
    with pytest.raises(UserError, match="test_tokens"):
        evaluate_saes([folder], overrides=overrides, part="test")


def test_mean_ablation_is_a_stricter_reference_than_zeros(tmp_path: Path, metadata: dict[str, Any]) -> None:
    folder = sae_folder(tmp_path / "a", metadata, quality=0.5)
    zero, mean = (measure(folder, ablation=kind).saes[0].metrics for kind in ("zero", "mean"))
    assert zero["delta_ce"] == mean["delta_ce"]
    assert zero["ce_loss_with_ablation"] != mean["ce_loss_with_ablation"]


def test_a_transformer_lens_name_finds_the_module(tmp_path: Path, metadata: dict[str, Any]) -> None:
    plain = sae_folder(tmp_path / "a", metadata, quality=0.5)
    renamed = sae_folder(tmp_path / "b", {**metadata, "hook_name": "blocks.1.hook_resid_post"}, quality=0.5)
    found = measure(plain, renamed)
    assert [sae.hook for sae in found.saes] == ["model.layers.1", "model.layers.1"]
    assert found.saes[0].metrics["mse"] == found.saes[1].metrics["mse"]
    assert measure(renamed).saes[0].hook == "model.layers.1"


def test_saes_of_several_hooks_share_the_tokens(tmp_path: Path, metadata: dict[str, Any]) -> None:
    first = sae_folder(tmp_path / "a", metadata, quality=0.5)
    other = sae_folder(tmp_path / "b", {**metadata, "hook_name": "model.layers.0"}, quality=0.5)
    found = measure(first, other)
    assert [sae.hook for sae in found.saes] == ["model.layers.1", "model.layers.0"]
    clean = {sae.metrics["ce_loss_without_sae"] for sae in found.saes}
    assert len(clean) == 1
    assert measure(first, other, hook="model.layers.0").saes[0].hook == "model.layers.0"


def test_the_experiment_decides_over_metadata(tmp_path: Path, metadata: dict[str, Any]) -> None:
    bare = sae_folder(tmp_path / "a", {})
    with pytest.raises(UserError, match="name no model"):
        measure(bare)
    experiment = {
        "name": "reference",
        "base": {**metadata, "sae": {"architecture": "standard", "d_sae": 64}},
        "evaluation": {"select_tokens": 320, "test_tokens": 160},
    }
    found = evaluate_saes([bare], experiment=experiment, overrides=["base.device=cpu"])
    assert found.saes[0].hook == "model.layers.1"
    assert 240 <= found.tokens <= 320  # without the BOS of each context
    assert evaluate_saes([bare], experiment=experiment, overrides=["base.device=cpu"], part="test").tokens <= 160


def test_a_gemma_scope_file_is_a_row(tmp_path: Path, metadata: dict[str, Any]) -> None:
    eye = np.eye(HIDDEN, dtype=np.float32)
    np.savez(
        tmp_path / "params.npz",
        W_enc=np.concatenate([eye, -eye], 1),
        W_dec=np.concatenate([eye, -eye]),
        b_enc=np.zeros(2 * HIDDEN, np.float32),
        b_dec=np.zeros(HIDDEN, np.float32),
        threshold=np.zeros(2 * HIDDEN, np.float32),
    )
    found = measure(sae_folder(tmp_path / "a", metadata), tmp_path / "params.npz")
    assert found.saes[1].architecture == "jumprelu"
    assert found.saes[1].metrics["mse"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("hook", ["layers.1", "layers.1.mlp"])
def test_a_sparsify_folder_says_model_text_and_hook(hook: str, tmp_path: Path, metadata: dict[str, Any]) -> None:
    eye = torch.eye(HIDDEN)
    folder = tmp_path / "run" / hook
    folder.mkdir(parents=True)
    tensors = {"encoder.weight": torch.cat([eye, -eye]), "W_dec": torch.cat([eye, -eye])}
    tensors |= {"encoder.bias": torch.zeros(2 * HIDDEN), "b_dec": torch.zeros(HIDDEN)}
    save_file(tensors, folder / "sae.safetensors")
    cfg = {"d_in": HIDDEN, "num_latents": 2 * HIDDEN, "k": HIDDEN, "normalize_decoder": True}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    run = {"model": metadata["model_name"], "dataset": metadata["dataset_path"], "ctx_len": CONTEXT}
    (tmp_path / "run" / "config.json").write_text(json.dumps(run))
    (found,) = measure(folder).saes
    assert (found.architecture, found.hook) == ("topk", f"model.{hook}")
    assert found.metrics["mse"] == pytest.approx(0, abs=1e-9)


def test_metadata_do_not_permit_code_to_run(metadata: dict[str, Any], tmp_path: Path) -> None:
    asked = {"model_from_pretrained_kwargs": {"trust_remote_code": True}, "allow_code_execution": True}
    with pytest.raises(UserError, match="allow_code_execution"):
        measure(sae_folder(tmp_path / "a", {**metadata, "saesweep": asked}))


def test_a_wrong_width_is_a_clear_message(tmp_path: Path, metadata: dict[str, Any]) -> None:
    narrow = sae_folder(tmp_path / "a", metadata, d_in=8)
    with pytest.raises(UserError, match=r"8 wide, but 'model\.layers\.1' of this model is 32 wide"):
        measure(narrow)


def test_synthetic_activations_have_no_language_model_metrics(tmp_path: Path) -> None:
    folder = sae_folder(tmp_path / "a", {"dataset_path": "builtin:synthetic", "hook_name": "synthetic"}, quality=0.9)
    metrics = measure(folder).saes[0].metrics
    assert "delta_ce" not in metrics
    assert metrics["l2_ratio"] == pytest.approx(0.9, abs=1e-5)
    assert math.isfinite(metrics["mse_stderr"])


def test_the_command(tmp_path: Path, metadata: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(sae_folder(tmp_path / name, metadata, quality=q)) for name, q in (("a", 1.0), ("b", 0.5))]
    small = [argument for override in SMALL for argument in ("--set", override)]
    assert main(["eval", *folders, "--tokens", "800", *small[2:]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["SAE", "type", "d_sae"]
    assert [line.split()[0] for line in lines[2:4]] == folders
    assert "±" in lines[3]
    assert "zero ablation" in lines[4]
    assert main(["eval", *folders, *small, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [sae["source"] for sae in data["saes"]] == folders
    assert data["saes"][1]["metrics"]["kl_div"] > 0


def test_the_command_measures_at_several_k(
    tmp_path: Path, metadata: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    own = sae_folder(tmp_path / "a", metadata, k=8, rescale_acts_by_decoder_norm=False)
    small = [argument for override in SMALL for argument in ("--set", override)]
    assert main(["eval", str(own), *small, "--k", "4, 16", "--json"]) == 0
    found = {sae["source"]: sae["metrics"] for sae in json.loads(capsys.readouterr().out)["saes"]}
    assert {name: metrics["l0"] for name, metrics in found.items()} == {f"{own} (k 4)": 4.0, f"{own} (k 16)": 16.0}
    assert found[f"{own} (k 16)"]["mse"] < found[f"{own} (k 4)"]["mse"]
    assert main(["eval", str(own), *small, "--k", "4;16"]) == 2
    assert "--k: '4;16' is no list of numbers of latents such as 8,16,32" in capsys.readouterr().err


def test_the_command_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
