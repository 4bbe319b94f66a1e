"""Half precision that overflows: the cause is named, in a sweep and in `eval`."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import saesweep
from saesweep.cli import main
from saesweep.evaluation import evaluate_saes
from saesweep.evaluation.overflow import overflow_of
from saesweep.saes import ExportedSAE
from tests.models.tiny import WORDS, save_llama

D_IN, D_SAE = 4, 8
HOOK = "model.layers.1"


class Part:
    """A held-out part of given rows."""

    def __init__(self, x_ND: torch.Tensor) -> None:
        self.x_ND = x_ND

    def batches(self, hook: str, max_tokens: int | None = None) -> Any:
        yield from torch.split(self.x_ND, 3)


def exported(dtype: torch.dtype, **scale: float) -> ExportedSAE:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "W_enc": torch.rand(D_IN, D_SAE, generator=generator) + 0.5,
        "b_enc": torch.zeros(D_SAE),
        "W_dec": torch.rand(D_SAE, D_IN, generator=generator) + 0.5,
        "b_dec": torch.zeros(D_IN),
    }
    tensors = {name: tensor * scale.get(name, 1.0) for name, tensor in tensors.items()}
    cfg = {
        "architecture": "standard",
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "metadata": {},
    }
    return ExportedSAE("standard", cfg, tensors).to(dtype=dtype)


X_ND = torch.rand(10, D_IN, generator=torch.Generator().manual_seed(1)) + 0.5


@pytest.mark.parametrize(
    ("dtype", "scale", "x_ND", "said"),
    [
        (
            torch.float16,
            {"W_dec": 1e5},
            X_ND,
            "values of its W_dec became infinite in it; base.sae.dtype should be float32, or",
        ),
        (torch.float16, {}, X_ND * 1e5, f"holds numbers up to 65,504, and activations at {HOOK} reach 1."),
        (torch.float16, {"W_enc": 1e3, "W_dec": 1e-3}, X_ND * 1e2, f"latents at {HOOK} reach "),
        (torch.float16, {"W_dec": 1e4}, X_ND * 10, f"reconstructions at {HOOK} reach "),
        (
            torch.bfloat16,
            {"W_dec": 3e38},
            X_ND,
            "bfloat16, which holds numbers up to 3.38953e+38, and values of its W_dec",
        ),
    ],
)
def test_the_cause_is_named(dtype: torch.dtype, scale: dict[str, float], x_ND: torch.Tensor, said: str) -> None:
    found = overflow_of(exported(dtype, **scale), Part(x_ND), HOOK)  # type: ignore[arg-type]
    assert found is not None
    assert said in found


@pytest.mark.parametrize(
    ("dtype", "scale", "x_ND"),
    [
        (torch.float16, {}, X_ND),
        (torch.bfloat16, {}, X_ND * 1e5),
        (torch.float32, {"W_dec": 1e38}, X_ND * 1e5),
        (torch.float16, {}, X_ND * float("nan")),
        (torch.bfloat16, {"W_enc": 1e30}, X_ND * 1e30),
    ],
)
def test_the_type_is_not_blamed_for_what_it_did_not_do(
    dtype: torch.dtype, scale: dict[str, float], x_ND: torch.Tensor
) -> None:
    """Nothing overflows; or float32 holds the numbers no better."""
    assert overflow_of(exported(dtype, **scale), Part(x_ND), HOOK) is None  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sweep over a Llama whose residual stream is far beyond float16."""
    root = tmp_path_factory.mktemp("overflow")
    (root / "model").mkdir()
    weights = save_llama(root / "model") / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.embed_tokens.weight"] *= 1e6
    save_file(tensors, weights, metadata={"format": "pt"})
    rng = random.Random(0)
    (root / "text.txt").write_text("\n".join(" ".join(rng.choices(WORDS, k=60)) for _ in range(120)))
    return {
        "name": "overflow",
        "base": {
            "model_name": str(root / "model"),
            "hook_name": HOOK,
            "dataset_path": str(root / "text.txt"),
            "context_size": 16,
            "training_tokens": 1024,
            "train_batch_size_tokens": 128,
            "buffer_tokens": 512,
            "n_batches_for_norm_estimate": 2,
            "device": "cpu",
            "sae": {"architecture": "topk", "d_sae": 64, "k": 4, "normalize_activations": "expected_average_only_in"},
        },
        "space": {},
        "evaluation": {"select_tokens": 256, "test_tokens": 256},
    }


def test_a_trial_fails_with_the_cause(tree: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(json.dumps(tree))
    code = main(["run", str(file), "--set", "base.sae.dtype=float16", "--run-dir", str(tmp_path / "run")])
    out = "".join(capsys.readouterr())
    assert code == 1, out
    assert "the exported SAE is float16, which holds numbers up to 65,504, and" in out
    assert "base.sae.dtype should be float32" in out


def test_eval_says_why_metrics_are_missing(tree: dict[str, Any], tmp_path: Path) -> None:
    run = saesweep.run(tree, run_dir=tmp_path / "run")
    assert run.best_dir is not None
    folder = run.best_dir
    cfg = json.loads((folder / "cfg.json").read_text())
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "cfg.json").write_text(json.dumps({**cfg, "dtype": "float16"}))
    # Its decoder fits into float16; the activations that it gets do not.
    tensors = {name: (t.clamp(-6e4, 6e4)).half() for name, t in load_file(folder / "sae_weights.safetensors").items()}
    save_file(tensors, tmp_path / "half" / "sae_weights.safetensors")
    found = evaluate_saes([tmp_path / "half"], experiment=tree)
    (note,) = [note for note in found.notes if "NaN or infinite" in note]
    assert f"activations at {HOOK} reach" in note
    assert not any("NaN or infinite" in note for note in evaluate_saes([folder], experiment=tree).notes)
