"""Published SAEs measured on the sweep's own held-out tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saesweep.errors import UserError
from saesweep.evaluation.published import Hooks, hooks_of
from saesweep.experiment import Experiment
from saesweep.runs import read_json, write_json
from saesweep.saes import ExportedSAE, open_sae
from saesweep.worker.setup import Setup

FILE = "references.json"


def open_references(experiment: Experiment, d_in: Mapping[str, int]) -> Iterator[tuple[str, Hooks, ExportedSAE]]:
    """Yield (what the file names, its hooks, SAE) of every `evaluation.references`, one at a time.

    Raises:
        UserError: One cannot be read, or is of another hook or width than the experiment reads.
    """
    for place, name in zip(experiment.spec.evaluation.references, experiment.written_references, strict=True):
        sae = open_sae(place)
        hooks = hooks_of(sae, experiment, name)
        for what, hook, width in (("reads", hooks.read, sae.d_in), ("reconstructs", hooks.target, sae.d_out)):
            if hook not in d_in:
                raise UserError(
                    f"evaluation.references: {name} belongs to {hook!r}, and this experiment reads {', '.join(d_in)}"
                )
            if width != d_in[hook]:
                raise UserError(
                    f"evaluation.references: {name} {what} activations {width} wide, but {hook!r} is {d_in[hook]} wide"
                )
        yield name, hooks, sae


def measure_references(setup: Setup) -> tuple[dict[str, Any], ...]:
    """Return the references, measured on `select`, where trials are ranked.

    What an earlier start of the run measured of the same weights is taken from `references.json`.
    """
    file = setup.directory.path / FILE
    known = _measured_before(file)
    found: list[dict[str, Any]] = []
    for name, hooks, sae in open_references(setup.experiment, setup.d_in):
        item = {
            "source": name,
            "hook": hooks.target,
            "architecture": str(sae.metadata.get("training_architecture") or sae.architecture),
            "d_sae": sae.d_sae,
            "sparsity": f"k {sae.cfg['k']}" if "k" in sae.cfg else "",
            "weights_sha256": sae.sha256(),
        }
        if _identity(item) in known:
            item = known[_identity(item)]
        else:
            (metrics,) = setup.evaluator.measure(
                [sae.to(setup.device)], hooks.target, with_model=True, spread=True, hook_in=hooks.read
            )
            if setup.probes is not None:
                metrics |= setup.probes.measure(sae.to(setup.device), hooks.read)
            item["metrics"] = metrics
        found.append(item)
    if found:
        write_json(file, found)
    return tuple(found)


def _measured_before(file: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return what `references.json` holds; nothing where it is damaged, since it can be measured again."""
    try:
        return {_identity(item): item for item in read_json(file) if _is_whole(item)}
    except (OSError, UserError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def _is_whole(item: Mapping[str, Any]) -> bool:
    return {"architecture", "sparsity", "d_sae"} <= item.keys() and isinstance(item["metrics"], dict)


def _identity(item: Mapping[str, Any]) -> tuple[str, str, str]:
    return item["source"], item["hook"], item["weights_sha256"]
