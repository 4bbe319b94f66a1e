"""Files that other tools write are read here with the same latents and reconstructions.

Two environments, from the root of the repository; the first has SAELens, dictionary_learning and sparsify (`eai-sparsify`):

    path/to/peers-env/bin/python tests/interop/peer_formats.py --make FOLDER
    .venv/bin/python tests/interop/peer_formats.py --check FOLDER

dictionary_learning's trainers and sparsify's class write their files themselves, and encode and decode for comparison. Nobody publishes
code that writes Gemma Scope 2 or Qwen Scope files, and Llama Scope's is on no registry: those files are made in the documented
layout, and SAELens' loader says what they mean.
"""

# Shape suffix legend:  B = tokens in a batch, D = d_in, F = d_sae

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from two_sides import make_or_check

D_IN, D_SAE, K, BATCH = 16, 1024, 8, 128
BOUND = 1e-5
EXPECTED = "expected.safetensors"
"""Beside each SAE: a batch x_BD, latents_BF and recon_BD by the peer."""


def batch() -> torch.Tensor:
    """Raw activations with a mean and a scale."""
    return 5 * (torch.randn(BATCH, D_IN, generator=torch.Generator().manual_seed(9)) + 0.3)


def expect(folder: Path, encode: Callable[[torch.Tensor], torch.Tensor], decode: Callable[..., torch.Tensor]) -> None:
    """Note what the peer computes."""
    x_BD = batch()
    with torch.no_grad():
        latents_BF = encode(x_BD)
        recon_BD = decode(latents_BF)
    tensors = {"x_BD": x_BD, "latents_BF": latents_BF, "recon_BD": recon_BD}
    save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, folder / EXPECTED)


def make_dictionary_learning(folder: Path) -> None:
    """Train every trainer for a few steps, with normalisation, which has to be scaled back when it saves."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.gdm import GatedSAETrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.p_anneal import PAnnealTrainer
    from dictionary_learning.trainers.standard import StandardTrainer, StandardTrainerAprilUpdate
    from dictionary_learning.trainers.top_k import TopKTrainer
    from dictionary_learning.training import trainSAE
    from dictionary_learning.utils import load_dictionary

    class Data:
        config = {"ctx_len": 128, "io": "out"}

        def __iter__(self) -> Iterator[torch.Tensor]:
            generator = torch.Generator().manual_seed(3)
            while True:
                yield 5 * (torch.randn(64, D_IN, generator=generator) + 0.3)

    common = {
        "activation_dim": D_IN,
        "dict_size": D_SAE,
        "layer": 3,
        "lm_name": "some/model",
        "device": "cpu",
        "steps": 40,
    }
    warm = {"warmup_steps": 2}
    sparse = {**warm, "sparsity_warmup_steps": 2}
    top = {**warm, "k": K, "threshold_start_step": 3}
    kinds: dict[str, tuple[type, dict[str, Any]]] = {
        "standard": (StandardTrainer, {**sparse, "resample_steps": None}),
        "april": (StandardTrainerAprilUpdate, {**sparse, "lr": 1e-2}),
        "p_anneal": (PAnnealTrainer, sparse),
        "gated": (GatedSAETrainer, sparse),
        "jumprelu": (JumpReluTrainer, {**sparse, "submodule_name": "resid_post_layer_3"}),
        "topk": (TopKTrainer, top),
        "batchtopk": (BatchTopKTrainer, top),
        "matryoshka": (MatryoshkaBatchTopKTrainer, {**top, "group_fractions": [0.25, 0.75]}),
    }
    for name, (trainer, fields) in kinds.items():
        place = folder / f"dictionary_learning-{name}"
        configs = [{"trainer": trainer, **common, **fields}]
        trainSAE(Data(), configs, 40, save_dir=str(place), normalize_activations=True, device="cpu")
        made = place / "trainer_0"
        dictionary, _ = load_dictionary(str(made), "cpu")
        expect(made, dictionary.encode, dictionary.decode)


def make_sparsify(folder: Path) -> None:
    """Save sparsify's own class, with and without unit decoder rows."""
    from sparsify.sparse_coder import SparseCoder, SparseCoderConfig

    for normalised in (True, False):
        run = folder / f"sparsify-{normalised}"
        place = run / "layers.3"
        config = SparseCoderConfig(num_latents=D_SAE, k=K, normalize_decoder=normalised)
        coder = SparseCoder(D_IN, config)
        with torch.no_grad():
            coder.encoder.bias.normal_()
            coder.b_dec.normal_()
        coder.save_to_disk(place)
        (run / "config.json").write_text(json.dumps({"model": "some/model", "dataset": "some/text", "ctx_len": 512}))

        def latents(x_BD: torch.Tensor, coder: Any = coder) -> torch.Tensor:
            top_acts, top_indices, pre_acts = coder.encode(x_BD)
            return torch.zeros_like(pre_acts).scatter_(-1, top_indices, top_acts)

        expect(place, latents, lambda _, coder=coder: coder.decode(*coder.encode(batch())[:2]))


def random_tensors(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Tensors of some scale by name."""
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) / math.sqrt(shape[-1]) for name, shape in shapes.items()}


def make_in_saelens_words(folder: Path) -> None:
    """Write the layouts that no published code writes; SAELens' loaders read them."""
    from safetensors.torch import load_file as load

    def write_gemma(place: Path) -> None:
        shapes = {"w_enc": (D_IN, D_SAE), "w_dec": (D_SAE, D_IN), "b_enc": (D_SAE,), "b_dec": (D_IN,)}
        tensors = random_tensors(**shapes) | {"threshold": torch.rand(D_SAE)}
        save_file(tensors, place / "params.safetensors")
        config = {
            "architecture": "jump_relu",
            "model_name": "gemma-v3-1b-pt",
            "hf_hook_point_in": "model.layers.3.output",
        }
        (place / "config.json").write_text(json.dumps(config))

    def write_llama(place: Path) -> None:
        (place / "checkpoints").mkdir()
        shapes = {
            "encoder.weight": (D_SAE, D_IN),
            "encoder.bias": (D_SAE,),
            "decoder.weight": (D_IN, D_SAE),
            "decoder.bias": (D_IN,),
        }
        tensors = random_tensors(**shapes)
        tensors["decoder.weight"] /= tensors["decoder.weight"].norm(dim=0)  # SAELens reads no others as OpenMOSS does
        save_file(tensors, place / "checkpoints" / "final.safetensors")
        hyperparams = {
            "d_model": D_IN,
            "d_sae": D_SAE,
            "hook_point_in": "blocks.3.hook_resid_post",
            "hook_point_out": "blocks.3.hook_resid_post",
            "act_fn": "jumprelu",
            "jump_relu_threshold": 2.5,
            "norm_activation": "dataset-wise",
            "dataset_average_activation_norm": {"in": 9.0, "out": 9.0},
            "apply_decoder_bias_to_pre_encoder": False,
            "use_decoder_bias": True,
            "sparsity_include_decoder_norm": True,
            "top_k": 50,
        }
        (place / "hyperparams.json").write_text(json.dumps(hyperparams))

    def write_qwen(place: Path) -> None:
        tensors = random_tensors(W_enc=(D_SAE, D_IN), W_dec=(D_IN, D_SAE), b_enc=(D_SAE,), b_dec=(D_IN,))
        torch.save(tensors, place / "layer3.sae.pt")

    import sae_lens.loading.pretrained_sae_loaders as loaders
    from sae_lens import SAE

    qwen = "SAE-Res-Qwen3-1.7B-Base-W1K-L0_8"
    cases: tuple[tuple[str, str, Any, Callable[[Path], None], float], ...] = (
        ("google/gemma-scope-2-1b-pt", "resid_post_all/layer_3_width_1k_l0_small", "gemma_3", write_gemma, 1.0),
        ("fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L3R-8x", "llama_scope", write_llama, math.sqrt(D_IN) / 9.0),
        (f"Qwen/{qwen}", "layer3.sae.pt", "qwen_scope", write_qwen, 1.0),
    )
    for repo, name, loader, write, scale in cases:
        root = folder / repo
        place = root / name if "." not in name.split("/")[-1].replace("3_1", "") else root
        place.mkdir(parents=True)
        write(place)

        def local(
            repo_id: Any = None, filename: Any = None, *, subfolder: str = "", root: Path = root, **_: Any
        ) -> str:
            return str(root / subfolder / filename)

        loaders.hf_hub_download = local
        loaders.get_safetensors_tensor_shapes = lambda _, file, root=root: {
            key: list(tensor.shape) for key, tensor in load(root / file).items()
        }
        overrides = {"dtype": "float32", "d_in": D_IN}
        cfg, state, _ = loaders.NAMED_PRETRAINED_SAE_LOADERS[loader](repo, name, "cpu", False, overrides)
        sae = SAE.from_dict(loaders.handle_config_defaulting(cfg))
        sae.load_state_dict(state)
        if scale != 1:
            sae.fold_activation_norm_scaling_factor(scale)
        # SAELens leaves Llama Scope's latents in units of the scaled activations, OpenMOSS in those of the raw ones.
        expect(
            place,
            lambda x_BD, sae=sae, scale=scale: sae.encode(x_BD) / scale,
            lambda f, sae=sae, s=scale: sae.decode(f * s),
        )


def check(folder: Path) -> int:
    """Read everything that was made; return the number of misses."""
    from saesweep.saes import open_sae

    misses = 0
    for file in sorted(folder.rglob(EXPECTED)):
        place = next(iter(file.parent.glob("*.sae.pt")), file.parent)
        expected = load_file(file)
        sae = open_sae(place)
        latents_BF = sae.encode(expected["x_BD"])
        recon_BD = sae.decode(latents_BF)
        worst = {
            "latents": relative(latents_BF, expected["latents_BF"]),
            "reconstruction": relative(recon_BD, expected["recon_BD"]),
        }
        l0 = float((latents_BF > 0).sum(-1).float().mean())
        miss = l0 == 0 or any(not value <= BOUND for value in worst.values())
        misses += miss
        said = f"{sae.metadata.get('model_name')} {sae.metadata.get('hook_name')}"
        figures = "  ".join(f"{name} {value:.1e}" for name, value in worst.items())
        print(f"{'MISS' if miss else 'ok  '}  {place.relative_to(folder)!s:<90} L0 {l0:6.1f}  {figures}  {said}")
    return misses


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return max |ours - theirs| / max |theirs|; inf for different shapes."""
    if ours.shape != theirs.shape:
        return math.inf
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))


def make(folder: Path) -> None:
    """Write an SAE in each format."""
    torch.manual_seed(0)
    for maker in (make_dictionary_learning, make_sparsify, make_in_saelens_words):
        maker(folder)


def main() -> int:
    """Make or check."""
    return make_or_check(__doc__, make=make, check=check)


if __name__ == "__main__":
    sys.exit(main())
