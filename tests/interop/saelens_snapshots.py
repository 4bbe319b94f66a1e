"""SAELens' trainer reads our snapshots: same tensors, and the same losses on one batch as our reference path.

Two environments, from the root of the repository:

    .venv/bin/python tests/interop/saelens_snapshots.py --make FOLDER
    PYTHONPATH=. path/to/saelens-env/bin/python tests/interop/saelens_snapshots.py --check FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from two_sides import make_or_check

D_IN, D_SAE = 32, 128
SAES: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 2.0},
    "gated": {"l1_coefficient": 2.0},
    "jumprelu": {"l0_coefficient": 0.3},
    "topk": {"k": 8},
    "batchtopk": {"k": 8},
    "matryoshka_batchtopk": {"k": 8, "matryoshka_widths": [32, 128]},
}
MODES = ("none", "expected_average_only_in", "covariance_whitening")


def make(folder: Path) -> None:
    """Train one short run of each architecture and mode, with one snapshot."""
    import saesweep

    for architecture, fields in SAES.items():
        for mode in MODES:
            base = {
                "model_name": None,
                "hook_name": "synthetic",
                "dataset_path": "builtin:synthetic",
                "training_tokens": 5120,
                "train_batch_size_tokens": 256,
                "n_checkpoints": 1,
                "sae": {
                    "architecture": architecture,
                    "d_in": D_IN,
                    "d_sae": D_SAE,
                    "normalize_activations": mode,
                    **fields,
                },
            }
            tree = {"name": "one", "base": base, "evaluation": {"select_tokens": 1000, "test_tokens": 1000}}
            saesweep.run(tree, run_dir=folder / f"{architecture}-{mode}")


def check(folder: Path) -> int:
    """Load each with SAELens and compare; return the number of misses."""
    from sae_lens import TrainingSAE
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.training.activation_scaler import ActivationScaler

    from saesweep.saes import Knobs, architecture_for
    from saesweep.specs.architectures import spec_class

    misses = 0
    for snapshot in sorted(folder.glob("*/trials/0000/snapshots/*")):
        theirs = TrainingSAE.load_from_disk(snapshot)
        weights = load_file(snapshot / "sae_weights.safetensors")
        state = theirs.state_dict()
        # SAELens casts its buffers to the SAE's type on loading.
        same = set(state) == set(weights) and all(
            torch.equal(state[k], w.to(state[k].dtype)) for k, w in weights.items()
        )
        scaler = ActivationScaler()
        scaler.load(snapshot / "activation_scaler.json")
        x_BD = scaler.scale(torch.randn(64, D_IN, generator=torch.Generator().manual_seed(0)))
        sae = json.loads((snapshot / "cfg.json").read_text())
        cls = spec_class(sae["architecture"])
        spec = cls.model_validate({k: v for k, v in sae.items() if k in cls.model_fields})
        ours = architecture_for(spec).forward(
            {k: v for k, v in weights.items() if k != "topk_threshold"}, x_BD, Knobs.from_spec(spec)
        )
        knobs = Knobs.from_spec(spec)
        coefficients = {"l1": knobs.l1_coefficient, "l0": knobs.l0_coefficient}
        step = TrainStepInput(
            sae_in=x_BD, dead_neuron_mask=None, coefficients=coefficients, n_training_steps=0, is_logging_step=False
        )
        found = theirs.training_forward_pass(step)
        worst = abs(float(found.loss) / float(ours.loss) - 1)
        miss = not same or not worst < 1e-5
        misses += miss
        print(
            f"{'MISS' if miss else 'ok  '}  {snapshot.parts[-5]:<45} tensors {'equal' if same else 'DIFFER'}  loss {worst:.1e}"
        )
    return misses


def main() -> int:
    """Make or check."""
    return make_or_check(__doc__, make=make, check=check)


if __name__ == "__main__":
    sys.exit(main())
