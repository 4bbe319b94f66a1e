"""The folders of an SAE on disk, in SAELens' formats: the published form, and the training form.

The published form is `cfg.json`, `sae_weights.safetensors` and `sparsity.safetensors`. The training form has the weights as they train,
nothing folded, and what scaled their activations; `TrainingSAE.load_from_disk` of SAELens reads it, and `from_pretrained_path` here.

Shape suffixes: F = d_sae.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from saesweep.atomic import replace_file, write_text
from saesweep.errors import UserError
from saesweep.files import read_json_object, sha256
from saesweep.saes.exported import DTYPES, ExportedSAE, cfg_problems, tensor_problems
from saesweep.saes.formats.saelens_v5 import is_v5_cfg, upgrade_v5_cfg
from saesweep.saes.formats.unread import refuse_by_architecture
from saesweep.saes.forms import form_of
from saesweep.saes.normalize import Normalizer

CFG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
SPARSITY_FILE = "sparsity.safetensors"
CHECKSUMS_FILE = "checksums.json"
"""SHA-256 of the safetensors files beside it, where saesweep wrote the folder. SAELens neither reads nor writes it."""
_CHECKED = (WEIGHTS_FILE, SPARSITY_FILE)


def save_sae_folder(
    folder: Path,
    sae: ExportedSAE,
    *,
    sparsity_F: Tensor | None,
    extra_files: Mapping[str, Any] | None = None,
) -> None:
    """Write a published SAE; SAELens' `SAE.load_from_disk` and `load_sae_folder` read it.

    Each file is written under a temporary name, flushed to the disk and renamed: a reader never sees half a file.

    Args:
        folder: Made if need be; files of the same names are replaced.
        sae: What to write.
        sparsity_F: How often each latent fires, as a share of tokens in [0, 1]; stored as float32 `log10(share + 1e-10)`.
            None: no such file.
        extra_files: JSON documents to put beside them, by file name (`runner_cfg.json`).

    Raises:
        ValueError: `sparsity_F` is not d_sae shares in [0, 1].
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in (extra_files or {}).items():
        write_document(folder / name, document)
    if sparsity_F is not None:
        if tuple(sparsity_F.shape) != (sae.d_sae,) or not bool(((sparsity_F >= 0) & (sparsity_F <= 1)).all()):
            raise ValueError(f"sparsity_F must be {sae.d_sae} firing shares between 0 and 1")
        write_sparsity(folder, sparsity_F)
    stored = sae.form.stored_shapes(sae.cfg)
    tensors = {k: v.detach().cpu().contiguous().view(stored[k]) for k, v in sae.tensors.items()}
    write_tensors(folder / WEIGHTS_FILE, tensors)
    write_checksums(folder)
    write_document(folder / CFG_FILE, sae.cfg)  # last: a folder with a cfg.json is complete


def write_checksums(folder: Path) -> None:
    """Write the checksums of the tensors that a folder holds now."""
    sums = {name: sha256(folder / name) for name in _CHECKED if (folder / name).is_file()}
    write_document(folder / CHECKSUMS_FILE, sums)


def check_checksums(folder: Path) -> None:
    """Check the tensors in a folder against its checksums; a folder of another tool has none.

    Raises:
        UserError: A file is not the one that was exported.
    """
    file = folder / CHECKSUMS_FILE
    if not file.exists():
        return
    fix = f"export the SAE again, or delete {CHECKSUMS_FILE} if the weights were changed on purpose"
    sums = read_json_object(file, fix=fix)
    if WEIGHTS_FILE not in sums:
        raise UserError(f"{file}: damaged, it has no checksum of {WEIGHTS_FILE}; {fix}")
    for name in _CHECKED:
        if name in sums and (folder / name).is_file() and sha256(folder / name) != sums[name]:
            raise UserError(f"{folder / name}: does not match its checksum in {CHECKSUMS_FILE}: damaged; {fix}")


def load_sae_folder(folder: str | Path) -> ExportedSAE:
    """Read a published SAE, of saesweep or of SAELens 5 or 6 (a final folder, not a mid-run checkpoint), on the CPU.

    Raises:
        UserError: A file is missing, damaged, not what its checksum says, of an unknown architecture, or tensors do not fit `cfg.json`.
    """
    folder = Path(folder)
    cfg = _read_cfg(folder / CFG_FILE)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(f"{path}: missing; a saved SAE has {CFG_FILE} and {WEIGHTS_FILE}")
    check_checksums(folder)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # Shapes come from the header, so that a folder that does not fit is refused before anything large is read.
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if _is_neutral_scale(file, shapes):
                del shapes["scaling_factor"]
            if problems := tensor_problems(cfg, shapes, stored=True):
                raise UserError(f"{path}: {'; '.join(problems)}")
            tensors = {name: file.get_tensor(name) for name in shapes}
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); restore or export it again") from None
    if bad := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise UserError(f"{path}: NaN or infinite values in {', '.join(bad)}; export or download it again")
    dtype = DTYPES[cfg["dtype"]]
    in_memory = form_of(cfg["architecture"]).shapes(cfg)
    tensors = {k: v.to(torch.float32 if k == "threshold" else dtype).reshape(in_memory[k]) for k, v in tensors.items()}
    return ExportedSAE(str(cfg["architecture"]), cfg, tensors)


def _is_neutral_scale(file: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """SAELens 5 wrote a `scaling_factor` of ones beside the weights; any other one changes the SAE and is refused."""
    return "scaling_factor" in shapes and bool((file.get_tensor("scaling_factor") == 1).all())


def _read_cfg(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: missing; a saved SAE has {CFG_FILE} and {WEIGHTS_FILE}")
    data = read_json_object(path, fix="restore it, or export the SAE again")
    refuse_by_architecture(str(path), data)
    cfg: dict[str, Any] = upgrade_v5_cfg(data) if is_v5_cfg(data) else data
    if problems := cfg_problems(cfg):
        raise UserError(f"{path}: {'; '.join(problems)}")
    version = str(cfg["metadata"].get("sae_lens_version", ""))
    if not re.match(r"[0-9]{1,9}(\.|$)", version) or int(version.split(".")[0]) < 6:
        raise UserError(
            f"{path}: metadata.sae_lens_version is {version or 'missing'}, but only the format of SAELens 6 is read; "
            "load and save the SAE with SAELens 6 to convert it"
        )
    return cfg


def write_sparsity(folder: Path, share_F: Tensor) -> None:
    """Replace `sparsity.safetensors` of a folder by `log10(share + 1e-10)`, float32, of firing shares in [0, 1]."""
    log10_F = torch.log10(share_F.detach().to("cpu", torch.float32) + 1e-10)
    write_tensors(folder / SPARSITY_FILE, {"sparsity": log10_F})


def write_document(path: Path, document: Any) -> None:
    """Replace a JSON file atomically; NaN is an error."""
    text = json.dumps(document, indent=1, allow_nan=False)
    write_text(path, text + "\n")


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Replace a safetensors file atomically."""
    replace_file(path, lambda temporary: save_file(tensors, temporary))


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
