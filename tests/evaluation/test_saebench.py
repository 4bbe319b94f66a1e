"""SAEs handed to SAEBench: what arrives there, with modules in its place that have the signatures of sae-bench 0.6.0."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from saesweep.cli import main
from saesweep.evaluation.saebench import EVALUATIONS
from saesweep.saes import ExportedSAE, save_sae_folder
from saesweep.saes.folding import SAELENS_VERSION

_SETTINGS = "model_name: str, random_seed: int, llm_batch_size: int, llm_dtype: str"
_RUN = "config, selected_saes, device, output_path, force_rerun=False"
_CACHED = f"{_RUN}, clean_up_activations=False, save_activations=True, artifacts_path='artifacts'"
_CORE = (
    "selected_saes, n_eval_reconstruction_batches, n_eval_sparsity_variance_batches, eval_batch_size_prompts=8, "
    "compute_featurewise_density_statistics=False, compute_featurewise_weight_based_metrics=False, "
    "exclude_special_tokens_from_reconstruction=False, dataset='Skylion007/openwebtext', context_size=128, "
    "output_folder='eval_results', verbose=True, dtype='float32', device='cuda', force_rerun=False"
)
BENCH = {
    # module: (its configuration's name and fields, its entry's name and arguments)
    "absorption": ("AbsorptionEvalConfig", _SETTINGS, "run_eval", _RUN),
    "sparse_probing": ("SparseProbingEvalConfig", _SETTINGS, "run_eval", _CACHED),
    "sparse_probing_sae_probes": (
        "SparseProbingSaeProbesEvalConfig",
        "model_name: str, random_seed: int",
        "run_eval",
        _RUN,
    ),
    "scr_and_tpp": ("ScrAndTppEvalConfig", f"{_SETTINGS}, perform_scr: bool", "run_eval", _CACHED),
    "ravel": ("RAVELEvalConfig", _SETTINGS, "run_eval", f"{_RUN}, artifacts_path='artifacts'"),
    "core": ("CoreEvalConfig", "", "multiple_evals", _CORE),
}
"""From `sae_bench/evals/*/main.py` and `eval_config.py`."""
STUB = """
import json, os
from sae_lens import SAE
class {config}:
    def __init__(self, *, {fields}):
        self.__dict__.update({{k: v for k, v in locals().items() if k != "self"}})
def {entry}({arguments}):
    said = dict(locals())
    folder = said.pop("output_path", None) or said.pop("output_folder")
    config = said.pop("config", None)
    if hasattr(config, "perform_scr"):
        folder = os.path.join(folder, "scr" if config.perform_scr else "tpp")
    os.makedirs(folder, exist_ok=True)
    for name, sae in said.pop("selected_saes"):
        assert isinstance(sae, SAE)
        with open(os.path.join(folder, f"{{name}}_custom_sae_eval_results.json"), "w") as file:
            metrics = {{"sae": vars(sae), "config": None if config is None else vars(config), "said": said}}
            json.dump({{"eval_result_metrics": metrics}}, file)
"""
SAELENS = """
import json, os
class SAE:
    @classmethod
    def load_from_disk(cls, path, device="cpu", dtype=None):
        sae = cls()
        sae.folder, sae.device, sae.folded, sae.dtype = os.path.basename(path), device, False, "of the file"
        with open(os.path.join(path, "cfg.json")) as file:
            sae.cfg = json.load(file)
        assert os.path.exists(os.path.join(path, "sae_weights.safetensors"))
        return sae
    def fold_W_dec_norm(self):
        self.folded = True
    def to(self, dtype):
        self.dtype = dtype
        return self
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the modules where the interpreter finds them; work in a folder of its own."""
    place = tmp_path / "site"
    for name, (config, fields, entry, arguments) in BENCH.items():
        folder = place / "sae_bench" / "evals" / name
        folder.mkdir(parents=True)
        source = STUB.format(config=config, fields=fields or "nothing=None", entry=entry, arguments=arguments)
        (folder / "main.py").write_text(source)
    utils = place / "sae_bench" / "sae_bench_utils"
    utils.mkdir()
    tables = "LLM_NAME_TO_BATCH_SIZE = {'gemma-2-2b': 32}\nLLM_NAME_TO_DTYPE = {'gemma-2-2b': 'bfloat16'}\n"
    (utils / "activation_collection.py").write_text(tables)
    (place / "sae_lens.py").write_text(SAELENS)
    torch_stub = (
        "class cuda:\n    is_available = staticmethod(lambda: False)\nfloat32, bfloat16 = 'float32', 'bfloat16'\n"
    )
    (place / "torch.py").write_text(torch_stub)  # 3 seconds less
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.chdir(tmp_path)
    return place


GEMMA = {"model_name": "google/gemma-2-2b", "hook_name": "blocks.12.hook_resid_post"}


def sae_folder(folder: Path, **metadata: Any) -> str:
    cfg = {
        "architecture": "topk",
        "d_in": 4,
        "d_sae": 8,
        "k": 2,
        "dtype": "float32",
        "device": "cpu",
        "metadata": {"sae_lens_version": SAELENS_VERSION, **GEMMA, **metadata},
    }
    generator = torch.Generator().manual_seed(len(folder.name))
    shapes = {"W_enc": (4, 8), "W_dec": (8, 4), "b_enc": (8,), "b_dec": (4,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_sae_folder(folder, ExportedSAE("topk", cfg, tensors), sparsity_F=None)
    return folder.name


def test_every_evaluation_gets_the_saes(bench: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saes = [sae_folder(tmp_path / "one"), sae_folder(tmp_path / "other")]
    command = ["eval", *saes, "--saebench", ",".join(EVALUATIONS), "--saebench-python", sys.executable, "--json"]
    assert main(command) == 0
    out, err = capfd.readouterr()
    results = json.loads(out)
    assert [(row["source"], row["evaluation"]) for row in results] == [
        (sae, name) for sae in saes for name in EVALUATIONS
    ]
    assert "SAEBench: core of 2 SAE(s) on gemma-2-2b" in err
    for row in results:
        sae, config, said = (row["metrics"][key] for key in ("sae", "config", "said"))
        assert Path(row["file"]).is_relative_to(tmp_path / "eval_results")
        assert sae["cfg"]["metadata"]["hook_name"] == "blocks.12.hook_resid_post"
        assert sae["folder"].startswith(row["source"])
        assert (sae["dtype"], sae["folded"]) == ("bfloat16", True)
        assert said["device"] == "cpu"
        if row["evaluation"] == "core":
            assert (said["dtype"], said["eval_batch_size_prompts"]) == ("bfloat16", 16)
        else:
            assert config["model_name"] == "gemma-2-2b"
            assert config.get("perform_scr") == {"scr": True, "tpp": False}.get(row["evaluation"])
            assert config.get("llm_batch_size", 32) == (8 if row["evaluation"] == "ravel" else 32)


def test_another_model(bench: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sae = sae_folder(tmp_path / "sae", model_name="builtin:tiny-lm")
    command = ["eval", sae, "--saebench", "absorption", "--saebench-python", sys.executable]
    assert main(command) == 2
    assert "SAEBench loads a model by a name that TransformerLens knows" in capfd.readouterr().err
    assert main([*command, "--model", "EleutherAI/pythia-14m", "--device", "cuda:1", "--saebench-output", "out"]) == 0
    assert "sae: absorption -> " in capfd.readouterr().out
    (file,) = (tmp_path / "out" / "absorption").glob("*.json")
    metrics = json.loads(file.read_text())["eval_result_metrics"]
    own = {"model_name": "EleutherAI/pythia-14m", "random_seed": 42, "llm_batch_size": 32, "llm_dtype": "bfloat16"}
    assert metrics["config"] == own
    assert metrics["said"]["device"] == "cuda:1"


@pytest.mark.parametrize(
    ("metadata", "options", "said"),
    [
        ({}, ["--saebench"], "--saebench: SAEBench is not installed here"),
        ({}, ["--saebench"], "python -m venv saebench && saebench/bin/pip install 'sae-bench>=0.6,<0.7'"),
        ({}, ["--saebench", "cor"], "no evaluation 'cor'; did you mean 'core'"),
        ({}, ["--saebench", ","], "--saebench: names no evaluation; there are core"),
        ({}, ["--saebench", "core", "--saebench-python", "./none"], "--saebench-python: ./none: No such file"),
        ({}, ["--saebench", "core", "--saebench-python", "false"], "SAEBench ended with exit code 1"),
        ({}, ["--saebench", "core", "--tokens", "1k"], "--tokens: has no effect with --saebench"),
        ({}, ["--saebench", "core", "--set", "base.lr=1"], "--set: has no effect with --saebench"),
        ({}, ["--saebench-output", "out"], "--saebench-output: goes with --saebench, which is not given"),
        (
            {"hook_name": "model.layers.2"},
            ["--saebench", "core", "--saebench-python", "true"],
            "sae: belongs to model.layers.2, for which TransformerLens has no name",
        ),
        ({}, ["--saebench", "core", "--saebench-python", "true"], "SAEBench has written no"),
    ],
)
def test_what_cannot_be_handed_on(
    metadata: dict[str, Any],
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sae_bench", None)
    assert main(["eval", sae_folder(tmp_path / "sae", **metadata), *options]) == 2
    assert said in capfd.readouterr().err


def test_where_it_is_not_installed(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (bench / "sae_lens.py").write_text("raise ImportError('no sae_lens')")
    command = ["eval", sae_folder(tmp_path / "sae"), "--saebench", "core", "--saebench-python", sys.executable]
    assert main(command) == 2
    err = capfd.readouterr().err
    assert "no sae_lens" in err
    assert "cannot import SAEBench (above); python -m venv saebench" in err
