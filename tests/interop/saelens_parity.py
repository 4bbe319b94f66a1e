"""Compare saesweep's reference SAEs and exports with SAELens 6.54, number by number.

Runs in an environment that has SAELens (saesweep itself never imports it), from the root of the repository:

    PYTHONPATH=. path/to/saelens-env/bin/python tests/interop/saelens_parity.py
    PYTHONPATH=. path/to/saelens-env/bin/python tests/interop/saelens_parity.py --folder runs/quickstart/best [--activations FILE]

For every architecture, loss mode and option: same weights, same batch, the same loss terms and parameter gradients; the same
distribution at initialisation; and exported folders that SAELens loads, encodes and decodes with as we do, equal to what it
writes itself. Prints a table of relative differences; exits with 1 if one is above its bound.
"""

# Shape suffix legend:  B = tokens in a batch, D = d_in, F = d_sae

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.saes.sae import TrainStepInput
from safetensors.torch import load_file

from saesweep.runs.runner_cfg import NOT_IN_SAELENS_SAE
from saesweep.saes import (
    Architecture,
    ExportedSAE,
    Knobs,
    Normalizer,
    Params,
    architecture_for,
    calibrate_threshold,
    load_sae_folder,
    save_sae_folder,
)
from saesweep.specs.architectures import spec_class

BOUND = 1e-5
BOUND_BF16 = 2e-2  # two roundings of bf16's 8 bits
D_IN, D_SAE, BATCH = 32, 128, 256
RUNTIME = ("layer_norm", "constant_norm_rescale")
MODES = ("none", "expected_average_only_in", *RUNTIME, "covariance_whitening")
ARCHITECTURES = (
    *("standard", "gated", "jumprelu", "topk", "batchtopk", "matryoshka_batchtopk"),
    *("abstopk", "matching_pursuit"),
)
"""Those that SAELens trains; multi_k, which it does not, is exported as its topk."""


class Table:
    """Prints rows as they come; remembers whether one missed its bound, and the worst of each kind of comparison."""

    def __init__(self) -> None:
        self.rows = self.misses = 0
        self.worst: dict[tuple[str, ...], dict[str, float]] = {}

    def add(self, case: str, worst: dict[str, float], bound: float = BOUND) -> None:
        """Print a row of named differences, all of which must be within `bound`."""
        miss = any(not value <= bound for value in worst.values())
        self.rows += 1
        self.misses += miss
        figures = "  ".join(f"{name} {value:.1e}" for name, value in worst.items())
        print(f"{'MISS' if miss else 'ok  '}  {case:<118} {figures}")
        if bound == BOUND:
            so_far = self.worst.setdefault(tuple(case.split()[:2]), {})
            for name, value in worst.items():
                so_far[name] = max(value, so_far.get(name, 0.0))

    def summary(self) -> None:
        """Print the worst difference of each kind and architecture, fp32 only."""
        print("\nworst relative difference by architecture (fp32)")
        for (kind, architecture), worst in sorted(self.worst.items()):
            print(f"{kind:<6}{architecture:<22}" + "  ".join(f"{name} {value:.1e}" for name, value in worst.items()))
        print(f"{self.rows} comparisons, {self.misses} above their bound")


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return max |ours - theirs| / max |theirs| (absolute where theirs is 0); inf for different shapes."""
    if ours.shape != theirs.shape:
        return float("inf")
    scale = float(theirs.abs().max()) or 1.0
    return float((ours.double() - theirs.double()).abs().max()) / scale


def options_of(architecture: str) -> Iterator[dict[str, Any]]:
    """Yield the option sets of an architecture to compare in training."""

    def grid(**axes: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
        for values in itertools.product(*axes.values()):
            yield dict(zip(axes, values, strict=True))

    centring = (True, False)
    modes = ("none", *RUNTIME)
    if architecture == "standard":
        yield from grid(
            l1_coefficient=(3.0,), lp_norm=(1.0, 2.0, 0.5), normalize_activations=modes, apply_b_dec_to_input=centring
        )
    elif architecture == "gated":
        yield from grid(l1_coefficient=(3.0,), normalize_activations=modes, apply_b_dec_to_input=centring)
    elif architecture == "jumprelu":
        for loss in ("step", "tanh", "quadratic"):
            yield from grid(
                jumprelu_sparsity_loss_mode=(loss,),
                target_l0=(9.0 if loss == "quadratic" else None,),
                jumprelu_ste_to_input=(False, True),
                pre_act_loss_coefficient=(None, 0.3),
                jumprelu_bandwidth=(0.05, 2.0),
                normalize_activations=modes,
                apply_b_dec_to_input=centring,
            )
    elif architecture == "matching_pursuit":
        yield from grid(
            max_iterations=(8,),
            residual_threshold=(0.0, 4.0),
            stop_on_duplicate_support=(True, False),
            normalize_activations=modes,
            apply_b_dec_to_input=centring,
        )
        yield {}  # d_in steps
    else:
        matryoshka = architecture == "matryoshka_batchtopk"
        widths = {"matryoshka_widths": ([16, 48, 128],)} if matryoshka else {}
        by_level = {"use_matryoshka_aux_loss": (False, True)} if matryoshka else {}
        common = {
            "k": (7.0, 6.3) if "batchtopk" in architecture else (7,),
            "rescale_acts_by_decoder_norm": (True, False),
        }
        yield from grid(**common, **widths, **by_level, aux_loss_coefficient=(1.0, 0.03), apply_b_dec_to_input=centring)
        if not matryoshka:  # SAELens' matryoshka raises under per-token normalisation: its state is used up by decode()
            yield from grid(**common, aux_loss_coefficient=(0.0,), normalize_activations=RUNTIME)


def build(architecture: str, options: dict[str, Any], seed: int) -> tuple[Architecture[Any], Params]:
    """Return our implementation and parameters that are away from their symmetric start."""
    spec = spec_class(architecture)(architecture=architecture, d_in=D_IN, d_sae=D_SAE, **options)
    implementation = architecture_for(spec)
    generator = torch.Generator().manual_seed(seed)
    params = implementation.init(generator)
    for name, tensor in params.items():
        if name == "threshold":
            tensor.copy_(0.05 + 0.3 * torch.rand(D_SAE, generator=generator))
        else:
            tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
    return implementation, params


def saelens_twin(implementation: Architecture[Any], params: Params) -> Any:
    """Return SAELens' training SAE with the same configuration and weights."""
    spec = implementation.spec
    fields = spec.model_dump(mode="json", exclude=set(NOT_IN_SAELENS_SAE))
    twin = TrainingSAE.from_dict(fields)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(params[name])
    return twin


def compare_training(table: Table, architecture: str, options: dict[str, Any], dead_share: float) -> None:
    """Compare loss, loss terms, latents, reconstruction and gradients on one batch."""
    implementation, params = build(architecture, options, seed=1)
    generator = torch.Generator().manual_seed(2)
    x_BD = torch.randn(BATCH, D_IN, generator=generator) + 0.3
    dead_F = torch.rand(D_SAE, generator=generator) < dead_share
    knobs = Knobs(l1_coefficient=2.5, l0_coefficient=0.7, k=getattr(implementation.spec, "k", 0))
    twin = saelens_twin(implementation, params)

    leaves = {name: tensor.requires_grad_() for name, tensor in params.items()}
    ours = implementation.forward(leaves, x_BD, knobs, dead_F)
    ours.loss.backward()
    theirs = twin.training_forward_pass(
        TrainStepInput(
            sae_in=x_BD,
            coefficients={"l1": knobs.l1_coefficient, "l0": knobs.l0_coefficient},
            dead_neuron_mask=dead_F,
            n_training_steps=0,
            is_logging_step=False,
        )
    )
    theirs.loss.backward()

    if list(ours.losses) != list(theirs.losses) and set(ours.losses) != set(theirs.losses):
        raise SystemExit(f"{architecture}: loss terms {list(ours.losses)}, SAELens has {list(theirs.losses)}")
    gradients = []
    for name, parameter in twin.named_parameters():
        grad = leaves[name].grad
        gradients.append(
            difference(
                grad if grad is not None else torch.zeros(()).expand_as(parameter),
                parameter.grad if parameter.grad is not None else torch.zeros_like(parameter),
            )
        )
    table.add(
        f"train {architecture} {_short(options)} dead={int(dead_F.sum())}",
        {
            "loss": difference(ours.loss, theirs.loss),
            "terms": max(difference(ours.losses[name], theirs.losses[name]) for name in ours.losses),
            "gradients": max(gradients),
            "latents": difference(ours.feature_acts_BF, theirs.feature_acts),
            "recon": difference(ours.recon_BD, theirs.sae_out),
        },
    )


def compare_init(table: Table, architecture: str) -> None:
    """Compare our initialisation with SAELens': exact constraints, and the distribution of directions by quantiles."""
    width = {"matryoshka_widths": [512, 4096]} if architecture == "matryoshka_batchtopk" else {}
    spec = spec_class(architecture)(architecture=architecture, d_in=16, d_sae=4096, **width)
    implementation = architecture_for(spec)
    params = implementation.init(torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    twin = TrainingSAE.from_dict(spec.model_dump(mode="json", exclude=set(NOT_IN_SAELENS_SAE)))
    theirs = dict(twin.named_parameters())
    if set(theirs) != set(params):
        raise SystemExit(f"{architecture}: parameters {sorted(params)}, SAELens has {sorted(theirs)}")
    table.add(
        f"init  {architecture}",
        {
            "row norms": difference(params["W_dec"].norm(dim=1), theirs["W_dec"].detach().norm(dim=1)),
            "W_enc - W_dec^T": difference(params.get("W_enc", params["W_dec"].t()), params["W_dec"].t()),
            "others": max(
                difference(params[name], theirs[name].detach()) for name in params if name not in ("W_enc", "W_dec")
            ),
        },
    )
    levels = torch.linspace(0.01, 0.99, 50)
    sampled = difference(*(w.detach().flatten().quantile(levels) for w in (params["W_dec"], theirs["W_dec"])))
    table.add(f"init  {architecture} quantiles of W_dec (65,536 draws each)", {"quantiles": sampled}, bound=0.03)


def compare_export(table: Table, architecture: str, mode: str, options: dict[str, Any], dtype: str) -> None:
    """Compare our export with SAELens' reading of it, and with the folder that SAELens writes for the same weights."""
    options = {**options, "normalize_activations": mode, "dtype": dtype}
    if "topk" in architecture and mode in RUNTIME:
        options["aux_loss_coefficient"] = 0.0
    implementation, params = build(architecture, options, seed=3)
    generator = torch.Generator().manual_seed(4)
    mixing_DD = torch.randn(D_IN, D_IN, generator=generator) / D_IN**0.5
    x_BD = 3 * torch.randn(BATCH, D_IN, generator=generator) @ mixing_DD + 0.5
    normalizer = Normalizer.fit(implementation.spec.normalize_activations, [x_BD], D_IN)
    threshold = None
    if implementation.needs_threshold:
        scaled_BD = normalizer.apply(x_BD)
        threshold = calibrate_threshold(lambda: [implementation.pre_acts_for_threshold(params, scaled_BD)], 7.0)
    exported = implementation.export(params, normalizer, threshold)
    with tempfile.TemporaryDirectory() as name:
        ours_dir, theirs_dir = Path(name, "ours"), Path(name, "theirs")
        save_sae_folder(ours_dir, exported, sparsity_F=torch.rand(D_SAE))
        differences = folder_differences(ours_dir, x_BD)
        if dtype == "bfloat16":
            del differences["active sets"]  # of a pre-activation that is 0 but for rounding
            table.add(f"load  {architecture} {_short(options)}", differences, BOUND_BF16)
            return
        table.add(f"load  {architecture} {_short(options)}", differences)
        twin = saelens_twin(implementation, params)
        if threshold is not None:
            twin.topk_threshold.fill_(threshold)
        if normalizer.scale is not None:
            twin.fold_activation_norm_scaling_factor(normalizer.scale)
        if normalizer.whitening is not None:
            w = normalizer.whitening
            twin.fold_activation_whitening(w.mean_D, w.matrix_DD, w.inverse_DD)
        twin.save_inference_model(theirs_dir)
        theirs = load_sae_folder(theirs_dir)
        if set(theirs.cfg) != set(exported.cfg) or not set(theirs.metadata) <= set(exported.metadata):
            raise SystemExit(f"cfg.json differs: {sorted(exported.cfg)}, SAELens writes {sorted(theirs.cfg)}")
        common = {key: value for key, value in theirs.cfg.items() if key != "metadata"}
        if any(exported.cfg[key] != value for key, value in common.items()):
            raise SystemExit(f"cfg.json differs: {exported.cfg}, SAELens writes {theirs.cfg}")
        table.add(
            f"write {architecture} {_short(options)}",
            {key: difference(exported.tensors[key], tensor) for key, tensor in theirs.tensors.items()},
        )


def folder_differences(folder: Path, x_BD: torch.Tensor) -> dict[str, float]:
    """Return the differences of latents and reconstructions between our and SAELens' reading of a folder."""
    ours: ExportedSAE = load_sae_folder(folder)
    theirs = SAE.load_from_disk(folder)
    with torch.no_grad():
        acts_BF = theirs.encode(x_BD)
        recon_BD = theirs.decode(acts_BF)
        return {
            "encode": difference(ours.encode(x_BD), acts_BF),
            "decode": difference(ours.decode(acts_BF, like_ND=x_BD), recon_BD),
            "forward": difference(ours.forward(x_BD), recon_BD),
            "active sets": float((ours.encode(x_BD) != 0).ne(acts_BF != 0).sum()),
        }


def _short(options: dict[str, Any]) -> str:
    return " ".join(f"{key.removeprefix('jumprelu_')}={value}" for key, value in options.items() if value is not None)


def main() -> int:
    """Run all comparisons, or those of given folders; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, action="append", help="compare only the reading of this saved SAE")
    parser.add_argument(
        "--activations", type=Path, help="safetensors file with one tensor [tokens, d_in] (default: noise)"
    )
    parser.add_argument("--architecture", choices=ARCHITECTURES, action="append", help="compare only this one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # SAELens and its dependencies warn about their own matters
    table = Table()
    if arguments.folder:
        for folder in arguments.folder:
            if arguments.activations is not None:
                (x_BD,) = load_file(arguments.activations).values()
            else:
                x_BD = torch.randn(1024, load_sae_folder(folder).d_in)
            table.add(f"load  {folder} on {x_BD.shape[0]} activations", folder_differences(folder, x_BD.float()))
    else:
        for architecture in arguments.architecture or ARCHITECTURES:
            compare_init(table, architecture)
            for options in options_of(architecture):
                # None dead; fewer than d_in // 2, so that the aux loss is scaled down; more. SAELens' topk family raises for
                # dead latents under per-token normalisation, aux loss or not.
                refused = "k" in options and options.get("normalize_activations") in RUNTIME
                for dead_share in (0.0,) if refused else (0.0, 0.05, 0.6):
                    compare_training(table, architecture, options, dead_share)
            start = {"matryoshka_widths": [16, 48, 128]} if architecture.startswith("matryoshka") else {}
            start |= {"k": 7.0 if "batchtopk" in architecture else 7} if "topk" in architecture else {}
            start |= {"max_iterations": 8} if architecture == "matching_pursuit" else {}
            rescale = (True, False) if "topk" in architecture else (None,)
            modes = MODES if architecture != "matching_pursuit" else MODES[:-1]
            for mode, centred, flag in itertools.product(modes, (True, False), rescale):
                options = {**start, "apply_b_dec_to_input": centred}
                options |= {"rescale_acts_by_decoder_norm": flag} if flag is not None else {}
                compare_export(table, architecture, mode, options, "float32")
                if mode == "none" and centred:
                    compare_export(table, architecture, mode, options, "bfloat16")
    table.summary()
    return 1 if table.misses else 0


if __name__ == "__main__":
    sys.exit(main())
