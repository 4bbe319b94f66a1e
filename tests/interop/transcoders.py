"""Transcoders in other tools: SAELens reads the exports of a sweep, and sparsify's module trains along the same trajectory.

    python tests/interop/transcoders.py --make FOLDER                                  # saesweep's environment
    PYTHONPATH=. path/to/saelens-env/bin/python tests/interop/transcoders.py --check FOLDER

`--make` trains one transcoder of every kind around the MLP of the built-in model, and writes latents and reconstructions of some
activations. `--check` reads each folder with `SAE.load_from_disk` and compares them; and, where `sparsify` is installed (the package
eai-sparsify), trains its `SparseCoder` beside our cohort, with and without a skip connection: same weights, same batches, Adam and
clipping. Prints the largest difference of each and exits with 1 above the bound.
"""

# Shape suffix legend:  B = tokens in a batch, D = d_in = d_out, F = d_sae

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from two_sides import make_or_check

READ, TARGET = "model.layers.2.post_attention_layernorm", "model.layers.2.mlp"
BOUND = 1e-5
EXPECTED = "expected.safetensors"
D, F, BATCH, STEPS, K = 24, 160, 128, 200, 6


def make(folder: Path) -> None:
    """Train one transcoder of every kind, and write what it does to some activations."""
    import saesweep
    from saesweep.saes import open_sae
    from saesweep.specs.architectures import architectures, spec_class

    names = [name for name in architectures() if spec_class(name).is_transcoder]
    base = {
        "model_name": "builtin:tiny-lm",
        "hook_name": READ,
        "hook_name_out": TARGET,
        "dataset_path": "builtin:python-docs",
        "training_tokens": 100_000,
        "train_batch_size_tokens": 512,
        "context_size": 64,
        "lr": 2e-3,
        "device": "cpu",
        "sae": {
            "d_sae": 256,
            "k": 8,
            "l1_coefficient": 1.0,
            "l0_coefficient": 0.1,
            "matryoshka_widths": [64, 128],
            "normalize_activations": "expected_average_only_in",
        },
    }
    tree = {
        "name": "transcoders",
        "base": base,
        "space": {"sae.architecture": {"choice": names}},
        "objective": {"maximize": "explained_variance"},
        "evaluation": {"select_tokens": 4096, "test_tokens": 4096},
        "search": {"sampler": "grid", "pruner": "none"},
    }
    result = saesweep.run(tree, run_dir=folder / "run", display="plain")
    found: dict[str, Tensor] = {}
    places = {}
    x_BD = 2 * torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    for row in result.rows:
        places[row.architecture] = f"run/trials/{row.number:04d}/sae"
        sae = open_sae(folder / places[row.architecture])
        found |= {f"{row.architecture} latents": sae.encode(x_BD), f"{row.architecture} reconstruction": sae(x_BD)}
    save_file({"x": x_BD, **{name: tensor.contiguous() for name, tensor in found.items()}}, folder / EXPECTED)
    (folder / "places.json").write_text(json.dumps(places))


def check_exports(folder: Path) -> int:
    """Return how many exports SAELens reads otherwise."""
    from sae_lens import SAE

    expected = load_file(folder / EXPECTED)
    misses = 0
    for name, place in json.loads((folder / "places.json").read_text()).items():
        sae = SAE.load_from_disk(str(folder / place))
        with torch.no_grad():
            found = {"latents": sae.encode(expected["x"]), "reconstruction": sae(expected["x"])}
        worst = max(
            float((tensor - expected[f"{name} {what}"]).abs().max() / expected[f"{name} {what}"].abs().max())
            for what, tensor in found.items()
        )
        metadata = sae.cfg.metadata
        is_right = worst <= BOUND and (metadata.hook_name, metadata.hook_name_out) == (READ, TARGET)
        misses += not is_right
        active = float((found["latents"] != 0).sum(1).float().mean())
        print(
            f"{'ok  ' if is_right else 'MISS'} {name:<38}{type(sae).__name__:<24}L0 {active:6.1f}  difference {worst:.1e}  "
            f"{metadata.hook_name} -> {metadata.hook_name_out}"
        )
    return misses


def batches(dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Return what is read and what is to be reconstructed, a function of it that no linear map gives."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(80, D, generator=generator, dtype=torch.float64)
    hidden, out = (torch.randn(D, 2 * D, generator=generator, dtype=torch.float64) for _ in range(2))
    found = []
    for _ in range(STEPS):
        active = torch.rand(BATCH, 80, generator=generator, dtype=torch.float64) > 0.95
        x = (active * torch.rand(BATCH, 80, generator=generator, dtype=torch.float64)) @ features
        found.append((x.to(dtype), ((x @ hidden).relu() @ out.t() / D).to(dtype)))
    return found


def ours(architecture: str, engine: Any, data: list[tuple[Tensor, Tensor]]) -> tuple[list[float], dict[str, Tensor]]:
    """Return the loss of every step, and the weights at the start."""
    from saesweep.cohort import Cohort, Slot
    from saesweep.saes import Normalizer
    from saesweep.specs import BaseRun

    sae = {"architecture": architecture, "d_in": D, "d_out": D, "d_sae": F, "dtype": "float64", "k": K}
    run = BaseRun.model_validate(
        {
            "dataset_path": "x",
            "hook_name": "x",
            "hook_name_out": "y",
            "training_tokens": STEPS * BATCH,
            "train_batch_size_tokens": BATCH,
            "dead_feature_window": 10 * STEPS,
            "lr": 3e-3,
            "sae": {**sae, "rescale_acts_by_decoder_norm": False, "aux_loss_coefficient": 0.0},
        }
    )
    normalizers = {(hook, "none"): Normalizer(mode="none") for hook in ("x", "y")}
    cohort = Cohort(1, normalizers=normalizers, device="cpu", engine=engine)
    slot = Slot(trial=0, run=run, joined_at_tokens=0, init_seed=5, device="cpu")
    start = {name: tensor.clone() for name, tensor in slot.params.items()}
    cohort.place(0, slot)
    losses = []
    for x_BD, y_BD in data:
        cohort.begin_block()
        cohort.train_step({"x": x_BD, "y": y_BD})
        losses.append(slot.mean_losses()["overall_loss"])
    return losses, start


def theirs(start: dict[str, Tensor], data: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Return the loss of every step of sparsify's module, in the units of ours."""
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    config = SparseCoderConfig(num_latents=F, k=K, transcode=True, skip_connection="W_skip" in start)
    coder = SparseCoder(D, config, dtype=torch.float64)
    coder.encoder.weight.data = start["W_enc"].t().clone()
    coder.encoder.bias.data = start["b_enc"].clone()
    coder.W_dec.data, coder.b_dec.data = start["W_dec"].clone(), start["b_dec"].clone()
    optimizer = torch.optim.Adam(coder.parameters(), lr=3e-3)
    losses = []
    for x_BD, y_BD in data:
        out = coder(x_BD, y_BD)
        # Their loss is a share of the batch's variance; clipping and Adam see ours.
        loss = out.fvu * (y_BD - y_BD.mean(0)).pow(2).sum() / BATCH
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(coder.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def check_trajectories() -> int:
    """Return how many trajectories are not sparsify's; none where it is not installed."""
    from saesweep.cohort import ReferenceEngine
    from saesweep.cohort.kernels import SparseEngine

    try:
        import sparsify  # noqa: F401
    except ImportError:
        print("skip: sparsify is not installed here (pip install --no-deps eai-sparsify)")
        return 0
    misses, data = 0, batches(torch.float64)
    for architecture in ("topk_transcoder", "topk_skip_transcoder"):
        for name, engine in (("reference", ReferenceEngine()), ("sparse", SparseEngine())):
            mine, start = ours(architecture, engine, data)
            other = theirs(start, data)
            worst = max(abs(a - b) / abs(b) for a, b in zip(mine, other, strict=True))
            misses += not worst <= 1e-8
            print(
                f"{'ok  ' if worst <= 1e-8 else 'MISS'} sparsify {architecture:<24}{name:<10}{STEPS} steps  worst loss "
                f"difference {worst:.1e}  (loss {other[0]:.3f} -> {other[-1]:.3f})"
            )
    return misses


def main() -> int:
    """Make or check."""
    return make_or_check(__doc__, make=make, check=lambda folder: check_exports(folder) + check_trajectories())


if __name__ == "__main__":
    sys.exit(main())
