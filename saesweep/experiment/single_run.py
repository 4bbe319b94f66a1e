"""One run without a search: from flags, from a file, or from both. It is an experiment like any other, its space empty."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from saesweep.experiment.document import Document
from saesweep.experiment.experiment import Experiment
from saesweep.experiment.fields import run_fields
from saesweep.experiment.flags import FROM_CFG, apply_flags
from saesweep.experiment.layers import base_architecture
from saesweep.experiment.load import checked, read_file
from saesweep.experiment.overrides import apply_overrides
from saesweep.experiment.yaml_text import read_yaml
from saesweep.plugins import load_installed_plugins
from saesweep.specs import ObjectiveSpec

_UNNAMED = "train"


def load_single_run(
    source: str | Path | None = None,
    *,
    flags: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Experiment:
    """Read and check one training run.

    Without a name it is named after its architecture and settings: the same flags are the same run.

    Args:
        source: An experiment file, of which the base is trained, or a file that holds the fields of a base run alone.
        flags: Texts by dotted path of the base run (`sae.k`, `from_cfg`); they win over the file.
        overrides: `path=value` texts over the whole file, as `--set` takes them.
        env: Variables for `${env:NAME}`; the process's own when left out.

    Raises:
        ExperimentError: There are mistakes; each names its line or its flag.
        UserError: There is no such file.
    """
    load_installed_plugins()
    document = Document(tree={"base": {}}) if source is None else read_yaml(read_file(source), str(source))
    document.raise_problems()
    if source is not None:
        _root_base(document)
    is_named = "name" in document.tree
    if not is_named:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).stem).lstrip("._-") if source is not None else ""
        document.tree = {"name": stem or _UNNAMED, **document.tree}
    apply_overrides(document, overrides)
    apply_flags(document, flags or {})
    notes = _without_search(document)
    experiment = checked(document, env)
    experiment = replace(experiment, warnings=(*notes, *experiment.warnings))
    if is_named or document.tree["name"] != _UNNAMED:
        return experiment
    name = f"{experiment.architectures[0]}-{experiment.fingerprint()[:8]}"
    spec = experiment.spec.model_copy(update={"name": name})
    return replace(experiment, spec=spec, tree={**experiment.tree, "name": name})


def _root_base(document: Document) -> None:
    """Read a file of base fields as the `base` of an experiment, marks included."""
    tree = document.tree
    if "base" in tree or not set(tree).intersection((*run_fields(), FROM_CFG)):
        return
    document.tree = {"base": tree}
    for marks in (document.keys, document.values):
        moved = {("base", *place): mark for place, mark in marks.items()}
        marks.clear()
        marks.update(moved)


def _without_search(document: Document) -> list[str]:
    """Take out of an experiment what would make it more than one run; return what to say about it."""
    tree = document.tree
    left_out: list[str] = [key for key in ("space", "search") if key in tree] if tree.get("space") else []
    document.tree = {key: value for key, value in tree.items() if key not in left_out}
    for key in left_out:
        document.forget((key,))
    objective = tree.get("objective")
    if isinstance(objective, dict) and objective.get("matched") is not None:  # a trial per target
        document.tree["objective"] = {key: value for key, value in objective.items() if key != "matched"}
        left_out.append("objective.matched")
    if "search" in left_out and _compares_seeds(objective):  # the replicates went with the search
        del document.tree["objective"]
        document.forget(("objective",))
        left_out = [key for key in left_out if key != "objective.matched"] + ["objective"]
    if not left_out:
        return []
    own, base = tree.get("by_architecture"), tree.get("base")
    if isinstance(own, dict) and isinstance(base, dict) and FROM_CFG not in base:
        document.tree["by_architecture"] = {k: v for k, v in own.items() if k == base_architecture(tree)}
    return [f"{', '.join(left_out)} of the file: left out, its base is trained once"]


def _compares_seeds(objective: Any) -> bool:
    try:
        return ObjectiveSpec.model_validate(objective).needs_replicates
    except ValidationError:  # what is wrong with it is said by the checks
        return False
