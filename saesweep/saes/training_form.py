"""SAELens' training form on disk: the weights as they train, nothing folded, and what scaled their activations.

`TrainingSAE.load_from_disk` of SAELens reads it, and `from_pretrained_path` here.
"""

# Shape suffix legend:  F = d_sae

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saesweep.saes.folder import CFG_FILE, WEIGHTS_FILE, write_document, write_sparsity, write_tensors
from saesweep.saes.normalize import Normalizer

SCALER_FILE = "activation_scaler.json"
WHITENING_FILE = "activation_whitening.safetensors"
THRESHOLD = "topk_threshold"
"""SAELens' name of the scalar that its batchtopk types keep beside their weights, float64."""


@dataclass(frozen=True)
class TrainingForm:
    """One SAE as it trains."""

    tensors: dict[str, Tensor]
    """Master weights by SAELens' names and shapes."""
    normalizer: Normalizer
    """What scales the activations that they see."""
    topk_threshold: float | None
    """For batchtopk types: the threshold of token-wise selection, in the space of those activations."""


def save_training_form(
    folder: Path,
    form: TrainingForm,
    *,
    cfg: Mapping[str, Any],
    sparsity_F: Tensor,
    extra_files: Mapping[str, Any],
) -> None:
    """Write one SAE in training form, as SAELens' checkpoints are but for the state of its optimiser.

    Args:
        folder: Made if need be.
        form: The SAE.
        cfg: SAELens' training configuration of it, for `cfg.json`.
        sparsity_F: How often each latent fired in the window of training (`feature_sampling_window`), as a share of its
            tokens in [0, 1]: what SAELens' checkpoints have, and no density of the exported form.
        extra_files: JSON documents to put beside them, by file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in extra_files.items():
        write_document(folder / name, document)
    whitening = form.normalizer.whitening
    if whitening is not None:
        _, tensors = form.normalizer.state_dict()
        write_tensors(folder / WHITENING_FILE, tensors)
    write_document(
        folder / SCALER_FILE, {"scaling_factor": form.normalizer.scale, "has_whitening": whitening is not None}
    )
    write_sparsity(folder, sparsity_F)
    weights = {name: tensor.cpu().contiguous() for name, tensor in form.tensors.items()}
    if form.topk_threshold is not None:
        weights[THRESHOLD] = torch.tensor(form.topk_threshold, dtype=torch.float64)
    write_tensors(folder / WEIGHTS_FILE, weights)
    write_document(folder / CFG_FILE, cfg)  # last: a folder with a cfg.json is complete
