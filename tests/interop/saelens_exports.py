"""Exports of sweeps, used in SAELens as a user uses them: model and hook from the files alone, nothing overwritten.

    python tests/interop/saelens_exports.py --make FOLDER                                  # saesweep's environment
    PYTHONPATH=. path/to/saelens-env/bin/python tests/interop/saelens_exports.py --check FOLDER

`--make` trains small SAEs with `AutoModelForCausalLM`, `AutoModel`, `TransformerBridge` and `HookedTransformer`: on a model in a local
folder, and on one that both environments find in a Hub cache under an id that TransformerLens lists. `--check` reads each `best/`:
`SAE.load_from_disk`, `load_model` with the metadata's class, name and arguments, `ActivationsStore.from_sae`, `run_evals`. What that
gives is compared with saesweep's own metrics on the tokens that the store gave.
"""

# Shape suffix legend:  N = contexts, T = positions

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from two_sides import make_or_check

HUB_ID = "gpt2"
"""Listed by TransformerLens, so that `HookedTransformer` loads it; what the cache holds under it is a small random GPT-2."""
CONTEXT, CONTEXTS = 32, 16
BOUND = 1e-5
SAES = {
    "abstopk": {"architecture": "abstopk", "d_sae": 256, "k": 12},
    "multi_k": {"architecture": "multi_k", "d_sae": 256, "ks": [3, 6, 12]},
    "matching_pursuit": {"architecture": "matching_pursuit", "d_sae": 256, "max_iterations": 12},
    "aligned": {"architecture": "topk", "d_sae": 256, "k": 12, "aligned": True},
}
"""By the first part of a case's name; all others are batchtopk."""
CASES = {
    # name -> (where the model is, the run's class, the run's hook, the class that SAELens is to load)
    "causal-folder": ("folder", "AutoModelForCausalLM", "model.layers.2", "AutoModelForCausalLM"),
    "body-folder": ("folder", "AutoModel", "layers.2", "AutoModelForCausalLM"),
    "input-folder": ("folder", "AutoModelForCausalLM", "model.layers.2:input", "AutoModelForCausalLM"),
    "mlp-folder": ("folder", "AutoModelForCausalLM", "model.layers.1.mlp", "AutoModelForCausalLM"),
    "bridge-folder": ("folder", "TransformerBridge", "blocks.2.hook_resid_post", "AutoModelForCausalLM"),
    "bridge-pre-folder": ("folder", "TransformerBridge", "blocks.2.hook_resid_pre", "AutoModelForCausalLM"),
    "hooked-folder": ("folder", "HookedTransformer", "blocks.1.hook_mlp_out", "AutoModelForCausalLM"),
    "causal-hub": ("hub", "AutoModelForCausalLM", "transformer.h.1", "AutoModelForCausalLM"),
    "bridge-hub": ("hub", "TransformerBridge", "blocks.1.hook_resid_post", "HookedTransformer"),
    "hooked-hub": ("hub", "HookedTransformer", "blocks.1.hook_resid_pre", "HookedTransformer"),
    "abstopk-folder": ("folder", "AutoModelForCausalLM", "model.layers.2", "AutoModelForCausalLM"),
    "matching_pursuit-folder": ("folder", "AutoModelForCausalLM", "model.layers.2", "AutoModelForCausalLM"),
    "multi_k-folder": ("folder", "AutoModelForCausalLM", "model.layers.2", "AutoModelForCausalLM"),
    "aligned-folder": ("folder", "AutoModelForCausalLM", "model.layers.2", "AutoModelForCausalLM"),
    "hook_z-hub": ("hub", "TransformerBridge", "blocks.1.attn.hook_z", "HookedTransformer"),
    "o_proj-input-hub": ("hub", "AutoModelForCausalLM", "transformer.h.1.attn.c_proj:input", "HookedTransformer"),
}
METRICS = {
    "ce_loss_without_sae": ("model_performance_preservation", "ce_loss_without_sae"),
    "ce_loss_with_sae": ("model_performance_preservation", "ce_loss_with_sae"),
    "ce_loss_with_ablation": ("model_performance_preservation", "ce_loss_with_ablation"),
    "l0": ("sparsity", "l0"),
    "explained_variance": ("reconstruction_quality", "explained_variance"),
}


def use_cache(folder: Path) -> None:
    """Look for Hub models in `folder` alone; before any library of Hugging Face is imported."""
    os.environ |= {"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}


def make(folder: Path) -> None:
    """Write the models and train one SAE for every case."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

    import saesweep
    from saesweep.builtin import model_path

    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_path()), AutoTokenizer.from_pretrained(model_path())
    for part in (model, tokenizer):
        part.save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=64,
        n_layer=3,
        n_head=4,
        n_positions=64,
        n_ctx=64,  # the Hub's GPT-2 says it twice, and TransformerLens reads this one
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.1,
    )
    snapshot = folder / "hub" / f"models--{HUB_ID}" / "snapshots" / "made"
    for part in (GPT2LMHeadModel(config), tokenizer):
        part.save_pretrained(snapshot)
    (snapshot.parent.parent / "refs").mkdir(parents=True)
    (snapshot.parent.parent / "refs" / "main").write_text("made")
    for case, (place, class_name, hook, _) in CASES.items():
        tree = {
            "name": case,
            "base": {
                "model_name": HUB_ID if place == "hub" else str(folder / "model"),
                "model_class_name": class_name,
                "hook_name": hook,
                "dataset_path": "builtin:python-docs",
                "context_size": CONTEXT,
                "training_tokens": 20_000,
                "train_batch_size_tokens": 512,
                "lr": 3e-3,
                "device": "cpu",
                "sae": SAES.get(case.split("-")[0], {"architecture": "batchtopk", "d_sae": 256, "k": 12}),
            },
            "space": {},
            "objective": {"maximize": "explained_variance"},
            "evaluation": {"select_tokens": 1024, "test_tokens": 1024},
        }
        saesweep.run(tree, run_dir=folder / "runs" / case)


def check(folder: Path) -> int:
    """Compare every case; return the number of misses."""
    import torch
    from datasets import Dataset
    from sae_lens import SAE, ActivationsStore
    from sae_lens.evals import EvalConfig, run_evals
    from sae_lens.load_model import load_model
    from sae_lens.training.activation_scaler import ActivationScaler
    from transformers import AutoTokenizer

    from saesweep.builtin import model_path
    from saesweep.builtin.text import documents
    from saesweep.saes import load_sae_folder

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    tokenizer = AutoTokenizer.from_pretrained(model_path())
    text = "\n".join(documents()[:40])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: CONTEXTS * (CONTEXT - 1)]
    body_NT = torch.tensor(ids).reshape(CONTEXTS, CONTEXT - 1)
    tokens_NT = torch.cat([torch.full((CONTEXTS, 1), tokenizer.bos_token_id), body_NT], dim=1)
    special = tuple(tokenizer.all_special_ids)  # run_evals leaves these out unless it is told not to
    misses = 0
    for case, (_, _, _, expected_class) in CASES.items():
        best = folder / "runs" / case / "best"
        sae = SAE.load_from_disk(best)
        metadata = sae.cfg.metadata
        model = load_model(
            metadata.model_class_name,
            metadata.model_name,
            device="cpu",
            model_from_pretrained_kwargs=metadata.model_from_pretrained_kwargs,
        )
        store = ActivationsStore.from_sae(
            model, sae, Dataset.from_dict({"input_ids": tokens_NT.tolist()}), streaming=False
        )
        config = EvalConfig(
            batch_size_prompts=CONTEXTS,
            n_eval_reconstruction_batches=1,
            n_eval_sparsity_variance_batches=1,
            compute_ce_loss=True,
            compute_l2_norms=True,
            compute_sparsity_metrics=True,
            compute_variance_metrics=True,
        )
        found, _ = run_evals(sae, store, model, ActivationScaler(), eval_config=config)
        ours = measured_here(json.loads((best / "cfg.json").read_text()), load_sae_folder(best), tokens_NT, special)
        gaps = {
            name: abs(ours[name] - found[group][key]) / max(abs(found[group][key]), 1e-3)
            for name, (group, key) in METRICS.items()
        }
        is_right = metadata.model_class_name == expected_class and all(gap <= BOUND for gap in gaps.values())
        misses += not is_right
        shown = "  ".join(f"{name} {gap:.0e}" for name, gap in gaps.items())
        print(f"{'ok  ' if is_right else 'MISS'}  {case}: {metadata.model_class_name} {metadata.hook_name}  {shown}")
    print(f"{len(CASES)} exports through load_model, ActivationsStore.from_sae and run_evals, {misses} misses")
    return misses


def measured_here(cfg: dict[str, Any], sae: Any, tokens_NT: Any, special: tuple[int, ...]) -> dict[str, float]:
    """Return saesweep's metrics on the same tokens, at the hook of the transformers model that the run names."""
    import torch
    from transformers import AutoModelForCausalLM

    from saesweep.activations.held_out import HeldOutActivations
    from saesweep.activations.rows import RowFilter
    from saesweep.evaluation.evaluate import HeldOutEvaluator
    from saesweep.models.huggingface import HuggingFaceModel

    hook = cfg["metadata"]["saesweep"]["hook_names"]["hugging_face"]
    if cfg["metadata"]["saesweep"]["model_class_name"] == "AutoModel":
        hook = f"model.{hook}"
    network = AutoModelForCausalLM.from_pretrained(cfg["metadata"]["model_name"], dtype=torch.float32)
    model = HuggingFaceModel(network.eval(), None)
    part = HeldOutActivations(
        model=model,
        hooks=[hook],
        head_index=None,
        tokens_NT=tokens_NT,
        rows=RowFilter(context_size=CONTEXT, excluded=special),
        forward_contexts=CONTEXTS,
        batch_tokens=1024,
        device=torch.device("cpu"),
    )
    found = HeldOutEvaluator(part, model, contexts_per_forward=CONTEXTS).measure([sae], hook, with_model=True)
    return dict(found[0])


def main() -> int:
    """Make or check."""

    def with_cache(step: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def run(folder: Path) -> Any:
            use_cache(folder.absolute())
            return step(folder.absolute())

        return run

    return make_or_check(__doc__, make=with_cache(make), check=with_cache(check))


if __name__ == "__main__":
    sys.exit(main())
