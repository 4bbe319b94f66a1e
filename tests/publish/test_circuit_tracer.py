"""`saesweep export --format circuit-tracer`: names, shapes and types of its files, and which transcoders make no set.

What circuit-tracer's own code makes of them: tests/interop/circuit_tracer_sets.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from saesweep.cli import main
from saesweep.saes import ExportedSAE, save_sae_folder

D, F = 8, 20
SHAPES = {"W_enc": (D, F), "W_dec": (F, D), "b_enc": (F,), "b_dec": (D,), "W_skip": (D, D), "threshold": (F,)}
OF_ARCHITECTURE = {
    "transcoder": ("W_enc", "W_dec", "b_enc", "b_dec"),
    "skip_transcoder": ("W_enc", "W_dec", "b_enc", "b_dec", "W_skip"),
    "jumprelu_transcoder": ("W_enc", "W_dec", "b_enc", "b_dec", "threshold"),
    "jumprelu_skip_transcoder": tuple(SHAPES),
}
BLOCK = "model.layers.{}"
READ, WRITTEN = f"{BLOCK}.post_attention_layernorm", f"{BLOCK}.mlp"


def make(
    folder: Path,
    layer: int,
    architecture: str = "jumprelu_skip_transcoder",
    hooks: tuple[str, str] = (READ, WRITTEN),
    model: str = "builtin:tiny-lm",
    dtype: str = "float32",
    **cfg: Any,
) -> ExportedSAE:
    generator = torch.Generator().manual_seed(layer)
    names = OF_ARCHITECTURE.get(architecture, ("W_enc", "W_dec", "b_enc", "b_dec"))
    tensors = {
        name: torch.randn(SHAPES[name], generator=generator).to(
            torch.float32 if name == "threshold" else getattr(torch, dtype)
        )
        for name in names
    }
    fields: dict[str, Any] = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": F,
        **({"d_out": D} if "transcoder" in architecture else {}),
        "dtype": dtype,
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "model_name": model,
            "hook_name": hooks[0].format(layer),
            "hook_name_out": hooks[1].format(layer),
        },
    }
    sae = ExportedSAE(architecture, fields | cfg, tensors)
    save_sae_folder(folder, sae, sparsity_F=None)
    return sae


def plain_forward(tensors: dict[str, torch.Tensor], x_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the latents and the reconstruction, as circuit-tracer defines them."""
    hidden_NF = torch.nn.functional.linear(x_ND, tensors["W_enc"], tensors["b_enc"])
    threshold = tensors.get("activation_function.threshold")
    acts_NF = torch.relu(hidden_NF) if threshold is None else hidden_NF * (hidden_NF > threshold)
    recon_ND = acts_NF @ tensors["W_dec"] + tensors["b_dec"]
    return acts_NF, recon_ND + x_ND @ tensors["W_skip"].T if "W_skip" in tensors else recon_ND


def export(target: Path, *sources: Path, more: tuple[str, ...] = ()) -> int:
    return main(["export", *map(str, sources), "--format", "circuit-tracer", "--to", str(target), *more])


@pytest.mark.parametrize("architecture", OF_ARCHITECTURE)
def test_a_set_computes_what_its_transcoders_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], architecture: str
) -> None:
    folders = [tmp_path / name for name in ("b", "c", "a", "d")]  # the layer counts, and not the name
    saes = [make(folder, layer, architecture) for layer, folder in enumerate(folders)]
    assert export(tmp_path / "set", *reversed(folders)) == 0
    assert "wrote 4 transcoders of 20 latents" in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "set").iterdir()) == [
        "config.yaml",
        *(f"layer_{n}.safetensors" for n in range(4)),
    ]
    assert yaml.safe_load((tmp_path / "set" / "config.yaml").read_text()) == {
        "model_name": "builtin:tiny-lm",
        "model_kind": "transcoder_set",
        "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "mlp.hook_out",
    }
    x_ND = torch.randn(30, D, generator=torch.Generator().manual_seed(9))
    for layer, sae in enumerate(saes):
        tensors = load_file(tmp_path / "set" / f"layer_{layer}.safetensors")
        expected = {"W_enc": (F, D), "W_dec": (F, D), "b_enc": (F,), "b_dec": (D,)}
        expected |= {"W_skip": (D, D)} if "skip" in architecture else {}
        expected |= {"activation_function.threshold": (F,)} if "jumprelu" in architecture else {}
        assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected
        acts_NF, recon_ND = plain_forward(tensors, x_ND)
        torch.testing.assert_close(acts_NF, sae.encode(x_ND))  # thresholds below 0 are among them
        torch.testing.assert_close(recon_ND, sae.forward(x_ND))


def test_weights_keep_their_type_and_runs_give_their_best(tmp_path: Path) -> None:
    for layer in range(4):
        make(tmp_path / f"run{layer}" / "best", layer, dtype="bfloat16")
    assert export(tmp_path / "set", *(tmp_path / f"run{layer}" for layer in range(4))) == 0
    types = {name: tensor.dtype for name, tensor in load_file(tmp_path / "set" / "layer_3.safetensors").items()}
    assert types.pop("activation_function.threshold") == torch.float32
    assert set(types.values()) == {torch.bfloat16}


HOOKS = [
    ("llama", "model.layers.{}.mlp:input", "model.layers.{}.mlp", "mlp.hook_in", "mlp.hook_out"),
    (
        "llama",
        "model.layers.{}.post_attention_layernorm:input",
        "model.layers.{}.mlp",
        "hook_resid_mid",
        "mlp.hook_out",
    ),
    ("llama", "blocks.{}.hook_resid_mid", "blocks.{}.hook_mlp_out", "hook_resid_mid", "hook_mlp_out"),
    (
        "gemma2",
        "model.layers.{}.pre_feedforward_layernorm",
        "model.layers.{}.post_feedforward_layernorm",
        "mlp.hook_in",
        "hook_mlp_out",
    ),
    ("gpt2", "transformer.h.{}.ln_2", "transformer.h.{}.mlp", "mlp.hook_in", "mlp.hook_out"),
    (None, "model.layers.{}.mlp:input", "model.layers.{}.mlp", "mlp.hook_in", "mlp.hook_out"),
]


def save_config(folder: Path, model_type: str | None) -> str:
    if model_type is None:
        return "nobody/has-this"
    folder.mkdir()
    (folder / "config.json").write_text(f'{{"model_type": "{model_type}", "num_hidden_layers": 2}}')
    return str(folder)


@pytest.mark.parametrize(("model_type", "read", "written", "point_in", "point_out"), HOOKS)
def test_hooks_by_the_names_of_both_libraries(
    tmp_path: Path, model_type: str | None, read: str, written: str, point_in: str, point_out: str
) -> None:
    model = save_config(tmp_path / "model", model_type)
    folders = [tmp_path / str(layer) for layer in range(2)]
    for layer, folder in enumerate(folders):
        make(folder, layer, hooks=(read, written), model=model)
    assert export(tmp_path / "set", *folders) == 0
    config = yaml.safe_load((tmp_path / "set" / "config.yaml").read_text())
    assert (config["feature_input_hook"], config["feature_output_hook"]) == (point_in, point_out)


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"layer": 0}, "of layer 0, as is"),
        ({"layer": 1, "architecture": "jumprelu_transcoder"}, "has_skip False, but True in"),
        (
            {"layer": 1, "hooks": ("model.layers.{}.mlp:input", "model.layers.{}.mlp"), "model": "another"},
            "model_name another, but",
        ),
        ({"layer": 1, "hooks": (READ, BLOCK)}, "reconstructs model.layers.1, which is not known"),
        (
            {"layer": 1, "hooks": ("model.layers.{}.self_attn", WRITTEN)},
            "reads model.layers.1.self_attn, which is not known",
        ),
        ({"layer": 1, "hooks": (READ, "model.layers.2.mlp")}, "reads layer 1 and reconstructs layer 2"),
        ({"layer": 1, "architecture": "standard"}, "standard is no transcoder"),
        ({"layer": 1, "normalize_activations": "layer_norm"}, "no normalize_activations: layer_norm"),
        ({"layer": 1}, "no transcoder of layer 2, 3; circuit-tracer takes one for each layer"),
        ({"layer": 3}, "no transcoder of layer 1, 2; circuit-tracer takes one for each layer"),
    ],
)
def test_what_makes_no_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], second: dict[str, Any], says: str
) -> None:
    make(tmp_path / "first", 0)
    make(tmp_path / "second", **second)
    assert export(tmp_path / "set", tmp_path / "first", tmp_path / "second") == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_a_norm_is_not_taken_for_the_mlp_of_an_unknown_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Gemma 2 a module of that name is behind the attention."""
    make(tmp_path / "first", 0, model="nobody/has-this")
    assert export(tmp_path / "set", tmp_path / "first") == 2
    error = capsys.readouterr().err
    assert "the model's configuration is not on this machine" in error
    assert "model.layers.0.mlp:input" in error


def test_never_overwrites_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / str(layer) for layer in range(4)]
    for layer, folder in enumerate(folders):
        make(folder, layer)
    assert export(tmp_path / "set", *folders) == 0
    assert export(tmp_path / "set", *folders) == 2
    assert "holds a set of transcoders already" in capsys.readouterr().err
    assert export(tmp_path / "set", *folders, more=("--force",)) == 0
    assert export(folders[0], *folders, more=("--force",)) == 2  # an SAE is not a set
    assert "holds files that are not of a set of transcoders (cfg.json)" in capsys.readouterr().err


def test_one_sae_is_copied_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "first", 0)
    assert main(["export", str(tmp_path / "first"), str(tmp_path / "first"), "--to", str(tmp_path / "to")]) == 2
    assert "several make a set with --format circuit-tracer" in capsys.readouterr().err
    assert export(tmp_path / "set", tmp_path / "first", more=("--trial", "3")) == 2
    assert "RUN/trials/0007/sae" in capsys.readouterr().err
