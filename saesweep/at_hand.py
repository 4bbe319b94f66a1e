"""What can be checked of an experiment on this machine without a network and without weights, for `validate`, `plan` and `run`."""

from __future__ import annotations

import re

from saesweep.errors import UserError
from saesweep.experiment.check_at_hand import check_at_hand, check_warm_start
from saesweep.experiment.check_objective import NO_SKLEARN, PROBES, has_sklearn
from saesweep.experiment.draft import Draft
from saesweep.specs import SearchSpec

_DEVICE_FIELDS = ("device", "llm_device", "act_store_device")


def check_before_run(draft: Draft) -> None:
    """Note what a run that is not begun yet would miss: what `check_here` looks for, and the earlier run it starts from."""
    check_warm_start(draft)
    check_here(draft)


def check_here(draft: Draft) -> None:
    """Note what this machine does not have or refuses: paths, hooks of a model at hand, packages, devices, samplers."""
    check_at_hand(draft)
    if draft.block("evaluation", "probes") and not has_sklearn():
        draft.document.add(PROBES, NO_SKLEARN)
    for name in _DEVICE_FIELDS:
        if isinstance(device := draft.block("base").get(name), str) and device not in ("auto", "cpu", "with_model"):
            _check_device(draft, name, device)
    search = draft.search
    if search is not None and "." in search.sampler and search.sampler != SearchSpec().sampler:
        _check_sampler(draft, search.sampler)


def _check_device(draft: Draft, name: str, device: str) -> None:
    """Note a device that is not there; only one that is asked for by name is worth the import of torch."""
    from saesweep.models.device import resolve_device

    try:
        resolve_device(device, place=name)
    except UserError as error:
        draft.document.add(("base", name), str(error).removeprefix(f"{name}: "))


def _check_sampler(draft: Draft, sampler: str) -> None:
    """Note a class that `run` refuses; one that cannot be imported has been noted."""
    if any(problem.path == "search.sampler" for problem in draft.document.problems):
        return
    from saesweep.study import check_sampler

    objective = draft.objective
    directions = ["minimize", "minimize"] if objective is None else [goal.direction for goal in objective.goals]
    try:
        check_sampler(sampler, directions)  # type: ignore[arg-type]
    except UserError as error:
        draft.document.add(("search", "sampler"), re.sub(r"^search\.sampler: ", "", str(error)))
