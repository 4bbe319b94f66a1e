"""SAE architectures: one file each, with parameters, reference forward pass, loss and export; and the folder format."""

from saesweep.saes import (  # noqa: F401  (each registers itself)
    abstopk,
    batchtopk,
    crosscoder,
    gated,
    jumprelu,
    matching_pursuit,
    matryoshka,
    multi_k,
    standard,
    topk,
    transcoder,
)
from saesweep.saes.architecture import (
    Architecture,
    ForwardState,
    Knobs,
    Params,
    TrainOutput,
    architecture_for,
    register_architecture,
    squared_error,
)
from saesweep.saes.calibrate import calibrate_threshold
from saesweep.saes.exported import ExportedSAE, rows_at_once
from saesweep.saes.folder import (
    TrainingForm,
    load_sae_folder,
    save_sae_folder,
    save_training_form,
    write_checksums,
    write_sparsity,
)
from saesweep.saes.forms import ExportedForm, register_form
from saesweep.saes.normalize import AllZeroError, Normalizer
from saesweep.saes.open_sae import open_sae
from saesweep.saes.pretrained import Pretrained, check_pretrained, pretrained_params, read_pretrained

__all__ = [
    "Architecture",
    "ForwardState",
    "Knobs",
    "Params",
    "TrainOutput",
    "architecture_for",
    "register_architecture",
    "squared_error",
    "calibrate_threshold",
    "ExportedForm",
    "register_form",
    "ExportedSAE",
    "load_sae_folder",
    "open_sae",
    "Pretrained",
    "check_pretrained",
    "pretrained_params",
    "read_pretrained",
    "rows_at_once",
    "save_sae_folder",
    "AllZeroError",
    "Normalizer",
    "TrainingForm",
    "save_training_form",
    "write_checksums",
    "write_sparsity",
]
