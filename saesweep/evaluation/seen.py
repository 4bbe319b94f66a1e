"""Whether an SAE that is measured may have been trained on the very tokens that it is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from saesweep.errors import UserError
from saesweep.experiment import Experiment, load_experiment
from saesweep.saes import ExportedSAE

OWN_FILE = "experiment.yaml"
"""The experiment beside an SAE of ours."""
_DECIDE_THE_SPLIT = (
    "dataset_path",
    "dataset_name",
    "split",
    "data_files",
    "data_dir",
    "column_name",
    "model_name",
    "context_size",
    "prepend_bos",
    "sequence_separator_token",
    "disable_concat_sequences",
    "use_chat_formatting",
    "seed",
)
"""Fields that decide which documents are held out first."""


def may_have_seen(
    source: str | Path, sae: ExportedSAE, measured: Experiment, part: Literal["select", "test"]
) -> str | None:
    """Return a note where the tokens may have been trained on; None where they were held out or are other text.

    Args:
        source: What the user named.
        sae: The SAE.
        measured: The experiment that the tokens come from.
        part: The part of it.
    """
    run = measured.base_run()
    if run.is_synthetic or _held_out(source, measured, part):
        return None
    trained_on = sae.metadata.get("dataset_path")
    if trained_on is None:
        return f"{source}: its metadata do not say what it was trained on, so it may have seen these tokens"
    if trained_on != run.dataset_path:
        return None
    return f"{source}: trained on {trained_on} too, where these tokens come from, so it may have seen them"


def _held_out(source: str | Path, measured: Experiment, part: Literal["select", "test"]) -> bool:
    """Return whether the SAE's own run held these documents out: the same split, and no further than it went."""
    own_file = Path(source).expanduser() / OWN_FILE
    if not own_file.is_file():
        return False
    try:
        own = load_experiment(own_file, is_own=False, reads_environment=False)
    except UserError:  # such as a variable of the environment that is not set here
        return False
    ours, theirs = own.base_run(), measured.base_run()
    if any(getattr(ours, name) != getattr(theirs, name) for name in _DECIDE_THE_SPLIT):
        return False
    # The documents of `select` come first in the split, then those of `test`.
    needed = measured.spec.evaluation.select_tokens
    if part == "test":
        needed += measured.spec.evaluation.test_tokens
    return needed <= own.spec.evaluation.select_tokens + own.spec.evaluation.test_tokens
