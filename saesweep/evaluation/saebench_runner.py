"""Runs SAEBench 0.6 on exported SAEs; a script for the Python that SAEBench is installed in, where saesweep need not be.

`saesweep eval --saebench` starts it with a request in JSON; by hand: `python saebench_runner.py request.json`. It knows nothing
of saesweep: the SAEs are folders that SAELens loads, and everything else is SAEBench's own.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

NOT_INSTALLED = 3
"""Exit code where SAEBench or SAELens cannot be imported."""
_SEED = 42
_OTHER_BATCH_SIZE = 32
"""Texts in a forward pass of a model that SAEBench has no number for."""


def main(request_file: str) -> int:
    """Run the evaluations of a request one after the other; results are files of SAEBench's in its output folder."""
    with open(request_file, encoding="utf-8") as file:
        request: dict[str, Any] = json.load(file)
    try:
        import torch
        from sae_bench.sae_bench_utils import activation_collection
        from sae_lens import SAE
    except ImportError as error:
        print(f"{sys.executable}: {error}", file=sys.stderr)
        return NOT_INSTALLED
    # SAEBench knows its models by the last part of their Hub ids.
    model: str = request["model_name"]
    short = model.rsplit("/", 1)[-1]
    known = short in activation_collection.LLM_NAME_TO_BATCH_SIZE
    device = request["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    other_type = "float32" if device == "cpu" else "bfloat16"
    dtype = activation_collection.LLM_NAME_TO_DTYPE.get(short, other_type)
    settings = {
        "model_name": short if known else model,
        "random_seed": _SEED,
        "llm_batch_size": activation_collection.LLM_NAME_TO_BATCH_SIZE.get(short, _OTHER_BATCH_SIZE),
        "llm_dtype": dtype,
    }
    saes = []
    for name, folder in request["saes"].items():
        sae = SAE.load_from_disk(folder, device=device)
        try:
            sae.fold_W_dec_norm()  # as SAEBench does with the SAEs of SAELens' table
        except NotImplementedError:
            print(f"{name}: decoder norms are not folded, its architecture has no such form", file=sys.stderr)
        saes.append((name, sae.to(dtype=getattr(torch, dtype))))
    os.chdir(request["output"])  # where SAEBench keeps its artifacts, too
    for evaluation in request["evaluations"]:
        print(f"SAEBench: {evaluation} of {len(saes)} SAE(s) on {settings['model_name']}", file=sys.stderr)
        os.makedirs(evaluation, exist_ok=True)
        _run(evaluation, saes, settings, device)
    return 0


def _run(evaluation: str, saes: list[tuple[str, Any]], settings: dict[str, Any], device: str) -> None:
    """Run one evaluation with the settings of SAEBench's own scripts."""
    if evaluation == "core":
        from sae_bench.evals.core import main as core

        core.multiple_evals(
            selected_saes=saes,
            n_eval_reconstruction_batches=200,
            n_eval_sparsity_variance_batches=2000,
            eval_batch_size_prompts=16,
            compute_featurewise_density_statistics=True,
            compute_featurewise_weight_based_metrics=True,
            exclude_special_tokens_from_reconstruction=True,
            dataset="Skylion007/openwebtext",
            context_size=128,
            output_folder="core",
            verbose=True,
            dtype=settings["llm_dtype"],
            device=device,
        )
    elif evaluation == "sparse_probing":
        from sae_bench.evals.sparse_probing import main as sparse_probing

        sparse_probing.run_eval(sparse_probing.SparseProbingEvalConfig(**settings), saes, device, evaluation)
    elif evaluation == "sparse_probing_sae_probes":
        from sae_bench.evals.sparse_probing_sae_probes import main as sae_probes

        own = {key: settings[key] for key in ("model_name", "random_seed")}
        sae_probes.run_eval(sae_probes.SparseProbingSaeProbesEvalConfig(**own), saes, device, evaluation)
    elif evaluation == "absorption":
        from sae_bench.evals.absorption import main as absorption

        absorption.run_eval(absorption.AbsorptionEvalConfig(**settings), saes, device, evaluation)
    elif evaluation in ("scr", "tpp"):
        from sae_bench.evals.scr_and_tpp import main as scr_and_tpp

        config = scr_and_tpp.ScrAndTppEvalConfig(**settings, perform_scr=evaluation == "scr")
        scr_and_tpp.run_eval(config, saes, device, ".")  # it adds scr or tpp itself
    elif evaluation == "ravel":
        from sae_bench.evals.ravel import main as ravel

        # A quarter of the batch, as in SAEBench's script.
        quarter = {**settings, "llm_batch_size": max(1, settings["llm_batch_size"] // 4)}
        ravel.run_eval(ravel.RAVELEvalConfig(**quarter), saes, device, evaluation)
    else:
        raise ValueError(f"unknown evaluation {evaluation!r}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
