"""Static checks of `evaluation.probes`: what its fields say together, and whether anything can be probed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from pydantic import ValidationError

from saesweep.experiment.document import Place
from saesweep.experiment.draft import Draft
from saesweep.specs import BaseRun, ProbesSpec
from saesweep.specs.synthetic import SYNTHETIC

PLACE: Place = ("evaluation", "probes")
NO_SKLEARN = "takes scikit-learn, which is not installed; pip install 'saesweep[probes]', or leave probes out"


def has_sklearn() -> bool:
    """Return whether scikit-learn is installed, without importing it."""
    try:
        return find_spec("sklearn") is not None
    except ValueError:  # it is among the loaded modules, and blocked there
        return False


def check_probes(draft: Draft, runs: Sequence[BaseRun]) -> None:
    """Note a source without text, fields that exclude each other, and more latents than SAEs have.

    Args:
        draft: The experiment as far as it is read.
        runs: The runs at the edges of its space.
    """
    written = draft.block("evaluation", "probes")
    if not written:
        return
    try:
        probes = ProbesSpec.model_validate(written)
    except ValidationError:  # noted where its fields are read
        return
    if draft.block("base").get("dataset_path") == SYNTHETIC:
        message = f"reads texts through a language model, and {SYNTHETIC} has none; leave it out"
        draft.document.add(PLACE, message)
    if probes.main_k not in probes.ks:
        draft.document.add((*PLACE, "k"), f"{probes.k} is none of ks ({', '.join(map(str, probes.ks))}); add it there")
    for index, task in enumerate(probes.tasks):
        if task.test_split is not None and task.test_fraction is not None:
            message = "is given beside test_split, which probes are tested on as a whole; leave one of them out"
            draft.document.add((*PLACE, "tasks", index, "test_fraction"), message)
    narrowest = min((run.sae.d_sae for run in runs if run.sae.d_sae is not None), default=None)
    if narrowest is not None and probes.ks[-1] > narrowest:
        place: Place = (*PLACE, "ks") if "ks" in written else PLACE
        draft.document.add(
            place, f"probes take up to {probes.ks[-1]} latents, and an SAE of this space has {narrowest}"
        )
