"""Writes the held-out activations of a finished run to a file, for the comparison in SAELens' environment.

    python tests/interop/real_activations.py runs/quickstart activations.safetensors
    PYTHONPATH=. path/to/saelens-env/bin/python tests/interop/saelens_parity.py --activations activations.safetensors --folder runs/quickstart/best

One tensor [tokens, d_in], fp32, at the run's (first) hook. Prints the folder of every exported SAE of the run, one a line.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from saesweep.activations import open_source
from saesweep.experiment import load_experiment

TOKENS = 4096


def main() -> None:
    """Write the activations and name the folders."""
    run_dir, target = Path(sys.argv[1]), Path(sys.argv[2])
    experiment = load_experiment(run_dir / "experiment.yaml")
    hook = experiment.hook_names()[0]
    source = open_source(experiment.base_run(), experiment.spec.evaluation, [hook])
    x_ND = torch.cat(list(source.select.batches(hook, max_tokens=TOKENS)))
    source.close()
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({"activations": x_ND.float().contiguous()}, target)
    for folder in [run_dir / "best", *sorted(run_dir.glob("trials/*/sae"))]:
        print(folder)


if __name__ == "__main__":
    main()
