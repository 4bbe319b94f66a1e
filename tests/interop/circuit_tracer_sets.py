"""Transcoders in circuit-tracer: its own code loads the sets of `saesweep export`, and attributes with them.

    python tests/interop/circuit_tracer_sets.py --make FOLDER                                # saesweep's environment
    path/to/circuit-tracer-env/bin/python tests/interop/circuit_tracer_sets.py --check FOLDER

`--make` trains transcoders around every MLP of the built-in model, one run for each kind, and exports each run as a set. `--check` loads
the sets by name (`load_transcoder_from_hub`, which looks into its cache first), compares latents and reconstructions of some activations,
puts each set in the place of the model's MLPs (nnsight), compares the latents of a prompt, and computes an attribution graph. Exits with 1
where something differs by more than the bound.
"""

# Shape suffix legend:  L = layers, T = tokens of the prompt, B = activations, D = width of the model, F = d_sae

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from two_sides import make_or_check

KINDS = ("standard_transcoder", "batchtopk_transcoder", "topk_skip_transcoder", "gated_skip_transcoder")
READ, TARGET = "model.layers.{}.post_attention_layernorm", "model.layers.{}.mlp"
SETS, OWNER = "sets", "me"
EXPECTED, ABOUT = "expected.safetensors", "about.json"
N_LAYERS, BOUND = 4, 1e-5
PROMPT = "the function returns a list of strings"


def experiment(kind: str) -> dict[str, Any]:
    """Return a sweep that trains one transcoder for each layer, from one pass of the model."""
    reads = [READ.format(layer) for layer in range(N_LAYERS)]
    return {
        "name": kind,
        "base": {
            "model_name": "builtin:tiny-lm",
            "hook_name": reads[0],
            "hook_name_out": TARGET.format(0),
            "dataset_path": "builtin:python-docs",
            "training_tokens": 50_000,
            "train_batch_size_tokens": 512,
            "context_size": 64,
            "lr": 2e-3,
            "device": "cpu",
            "sae": {
                "architecture": kind,
                "d_sae": 256,
                **({"k": 8} if "topk" in kind else {"l1_coefficient": 1.0}),
                "normalize_activations": "expected_average_only_in",
            },
        },
        "space": {
            "hook_name": {"choice": reads},
            "hook_name_out": [
                {"choice": [TARGET.format(layer)], "when": {"hook_name": read}} for layer, read in enumerate(reads)
            ],
        },
        "objective": {"maximize": "explained_variance"},
        "evaluation": {"select_tokens": 4096, "test_tokens": 4096},
        "search": {"sampler": "grid", "pruner": "none"},
    }


def make(folder: Path) -> None:
    """Train and export a set of each kind, and write what its transcoders do."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import saesweep
    from saesweep.builtin import model_path
    from saesweep.cli import main as saesweep_main
    from saesweep.saes import open_sae

    model = AutoModelForCausalLM.from_pretrained(model_path())
    tokenizer = AutoTokenizer.from_pretrained(model_path())
    ids = [tokenizer.bos_token_id, *tokenizer(PROMPT, add_special_tokens=False).input_ids]
    seen: list[Tensor] = []
    handles = [
        model.get_submodule(READ.format(n)).register_forward_hook(lambda _module, _args, out: seen.append(out[0]))
        for n in range(N_LAYERS)
    ]
    with torch.no_grad():
        model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()

    x_BD = 2 * torch.randn(64, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    expected = {"x": x_BD}
    for kind in KINDS:
        result = saesweep.run(experiment(kind), run_dir=folder / "runs" / kind, display="plain")
        trials = [folder / "runs" / kind / "trials" / f"{row.number:04d}" / "sae" for row in result.rows]
        target = folder / SETS / OWNER / kind
        assert saesweep_main(["export", *map(str, trials), "--format", "circuit-tracer", "--to", str(target)]) == 0
        for row, trial in zip(result.rows, trials, strict=True):
            layer, sae = int(row.hook.split(".")[2]), open_sae(trial)
            expected |= {
                f"{kind} {layer} latents": sae.encode(x_BD),
                f"{kind} {layer} reconstruction": sae.forward(x_BD),
                f"{kind} {layer} prompt": sae.encode(seen[layer]),
            }
    save_file({name: tensor.detach().contiguous() for name, tensor in expected.items()}, folder / EXPECTED)
    # The tokenizer's class has another name in the transformers that circuit-tracer takes.
    shutil.copytree(model_path(), folder / "model", dirs_exist_ok=True)
    tokenizer_config = folder / "model" / "tokenizer_config.json"
    renamed = json.loads(tokenizer_config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    tokenizer_config.write_text(json.dumps(renamed))
    (folder / ABOUT).write_text(json.dumps({"ids": ids}))


def relative(got: Tensor, want: Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    return float((got - want).abs().max() / want.abs().max())


def check(folder: Path) -> int:
    """Return how many figures differ."""
    from circuit_tracer import ReplacementModel, attribute
    from circuit_tracer.utils.hf_utils import load_transcoder_from_hub

    expected, about = load_file(folder / EXPECTED), json.loads((folder / ABOUT).read_text())
    misses = 0
    for kind in KINDS:
        transcoders, config = load_transcoder_from_hub(f"{OWNER}/{kind}", cache_dir=str(folder / SETS))
        assert (len(transcoders), transcoders.skip_connection) == (N_LAYERS, "skip" in kind)
        worst = 0.0
        with torch.no_grad():
            for layer, transcoder in enumerate(transcoders):
                found = {"latents": transcoder.encode(expected["x"]), "reconstruction": transcoder(expected["x"])}
                worst = max(worst, *(relative(t, expected[f"{kind} {layer} {what}"]) for what, t in found.items()))
        model = ReplacementModel.from_pretrained_and_transcoders(
            str(folder / "model"), transcoders, backend="nnsight", device=torch.device("cpu")
        )
        prompt = torch.tensor(about["ids"])
        _, acts_LTF = model.get_activations(prompt)
        want_LTF = torch.stack([expected[f"{kind} {layer} prompt"] for layer in range(N_LAYERS)])
        # Those of position 0, where most models have a sink, are left out there.
        in_model = relative(acts_LTF.to_dense().float()[:, 1:], want_LTF[:, 1:])
        graph = attribute(prompt, model, max_feature_nodes=64)
        is_right = max(worst, in_model) <= BOUND and len(graph.selected_features) > 0
        misses += not is_right
        print(
            f"{'ok  ' if is_right else 'MISS'} {kind:<24}{config['feature_input_hook']} -> {config['feature_output_hook']}  "
            f"difference {worst:.1e}, on a prompt {in_model:.1e}  graph of {len(graph.selected_features)} latents, "
            f"{len(graph.active_features)} active"
        )
    return misses


def main() -> int:
    """Make or check."""
    return make_or_check(__doc__, make=make, check=check)


if __name__ == "__main__":
    sys.exit(main())
