"""Static checks of the runs that the experiment can lead to: every architecture, at the edges of the space."""

from __future__ import annotations

from collections.abc import Sequence

from saesweep.experiment.document import Place
from saesweep.experiment.draft import Draft, note
from saesweep.experiment.fields import ARCHITECTURE
from saesweep.experiment.layers import build_run, layered, place_of
from saesweep.experiment.parameters import for_architecture
from saesweep.space import Parameter, corners
from saesweep.specs import BaseRun
from saesweep.specs.architectures import spec_class

_WIDTHS = ("sae.d_sae", "sae.expansion_factor", "sae.d_in")
_FOLLOWS: dict[str, tuple[str, ...]] = {
    "training_tokens": ("train_batch_size_tokens",),
    "buffer_tokens": ("train_batch_size_tokens", "context_size", "n_batches_in_buffer"),
    "lr_end": ("lr_scheduler_name",),
    "lr_decay_steps": ("training_tokens", "train_batch_size_tokens", "lr_warm_up_steps"),
    "model_name": ("dataset_path",),
    "dataset_path": ("datasets",),
    "seqpos_slice": ("context_size",),
    "sae.k": _WIDTHS,
    "sae.d_sae": _WIDTHS,
    "sae.expansion_factor": _WIDTHS,
    "hook_name": ("sae.architecture",),
    "hook_name_out": ("sae.architecture",),
    "sae.target_l0": ("sae.jumprelu_sparsity_loss_mode", "preset"),
}
"""Field named by a mistake between fields -> the other fields in it."""


def check_runs(draft: Draft, parameters: Sequence[Parameter]) -> list[BaseRun]:
    """Note what is wrong with the runs at the edges of the space, at the place where the value was written.

    Returns:
        The runs that could be built: what later checks and warnings look at.
    """
    runs: list[BaseRun] = []
    base = draft.tree.get("base")
    if not isinstance(base, dict) or "from_cfg" in base:  # missing, or left there because it could not be read
        return runs
    noted: set[tuple[Place, str]] = set()
    for parameter in parameters:
        if any(not values for values in parameter.when.values()):
            draft.document.add(parameter.place, "is never sampled: no trial meets its conditions")
    for architecture in draft.architectures:
        own = for_architecture(parameters, architecture)
        places = {p.path: p.place for p in own}
        for params in corners(own):
            flat = layered(draft.tree, architecture, params, places)
            # Defaults stand in for values that were found wrong, so that the rest of the run is checked too.
            usable = {
                path: setting for path, setting in flat.items() if path not in draft.broken or path == ARCHITECTURE
            }
            run, problems = build_run(usable)
            if run is not None:
                runs.append(run)
            together = spec_class(architecture).read_together
            for path, message in problems:
                place = place_of(path, flat)
                follows = (path, *_FOLLOWS.get(path, ()), *(f"sae.{name}" for name in together.get(path[4:], ())))
                # One corner, of one architecture, shows a mistake; what follows from another mistake is no news.
                if (place, path) not in noted and not draft.broken.intersection(follows):
                    noted.add((place, path))
                    note(draft, place, path, message)
    return runs
