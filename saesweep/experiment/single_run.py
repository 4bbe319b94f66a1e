"""One run without a search: from flags, from a file, or from both. It is an experiment like any other, its space empty."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from saesweep.experiment.document import Document
from saesweep.experiment.experiment import Experiment
from saesweep.experiment.fields import ARCHITECTURE, known_paths, parts_of, run_fields, sae_fields
from saesweep.experiment.load import checked, read_file
from saesweep.experiment.overrides import apply_overrides, assign, complain
from saesweep.experiment.parameters import base_architecture
from saesweep.experiment.yaml_text import is_null, read_value, read_yaml
from saesweep.plugins import load_installed_plugins
from saesweep.specs import BaseRun, Duration, ObjectiveSpec
from saesweep.specs.architectures import SAESpec, all_listed, architectures, listed, spec_class
from saesweep.specs.logger import LoggerSpec
from saesweep.specs.model import Spec
from saesweep.specs.synthetic import SyntheticSpec

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


FROM_CFG = "from_cfg"


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag."""

    path: str
    """Dotted path under `base`; the flag is `--<path>`."""
    aliases: tuple[str, ...]
    """Other spellings, without the dashes: SAELens leaves the block's name out where no other field has that name."""
    group: str
    """Title of its group in `--help`."""
    description: str
    """The field's docstring."""
    is_switch: bool
    """It may be given without a value, which means true."""


def run_flags() -> list[Flag]:
    """Return the flags of all fields, group by group, in the order of the reference page."""
    load_installed_plugins()
    found = [
        _flag(name, BaseRun.model_fields[name], title) for title, names in BaseRun.groups().items() for name in names
    ]
    for name in sae_fields():
        owners = [a for a in architectures() if name in spec_class(a).model_fields]
        note = "" if name in SAESpec.model_fields else f" ({listed(owners)})"
        found.append(_flag(f"sae.{name}", spec_class(owners[0]).model_fields[name], "the SAE", note))
    for block, model, title in (
        ("synthetic", SyntheticSpec, "synthetic features"),
        ("logger", LoggerSpec, "Weights & Biases"),
    ):
        found += [_flag(f"{block}.{name}", info, title) for name, info in model.model_fields.items()]
    return found


def _flag(path: str, info: FieldInfo, group: str, note: str = "") -> Flag:
    short = path.rpartition(".")[2]
    is_plain = short != path and Counter(known.rpartition(".")[2] for known in known_paths())[short] == 1
    default = info.default.to_json() if isinstance(info.default, Duration) else info.default
    if isinstance(default, Spec):
        default = default.model_dump()
    shown = ""
    if options := [f"{value}" for value in _literals(info.annotation)]:
        note = f": {', '.join(options)}{note}"
    if path == ARCHITECTURE:
        note, shown = f": {all_listed()}", " (default: standard)"
    elif default not in (None, "", PydanticUndefined):
        shown = f" (default: {default if isinstance(default, str) else json.dumps(default)})"
    return Flag(
        path=path,
        aliases=(short,) if is_plain else (),
        group=group,
        description=f"{(info.description or '').rstrip('.')}{note}{shown}",
        is_switch=bool in _members(info.annotation),
    )


def apply_flags(document: Document, given: Mapping[str, str]) -> None:
    """Set what was given, by path; a value is YAML but for fields that hold text. Mistakes are noted at their flag."""
    for path, text in given.items():
        label = f"--{path}"
        place = ("base", *parts_of(path))
        # A list of hooks is the one thing that a field of text takes beside it.
        is_text = _is_text(path) and not (path == "hook_name" and text.startswith("["))
        value, problems = (None if is_null(text) else text, []) if is_text else read_value(text, label)
        for problem in problems:
            complain(document, place, problem, label)
        if not problems:
            assign(document, list(place), value, label)


def _is_text(path: str) -> bool:
    """Whether a field holds text: a name stays text even where it looks like a number."""
    block, _, name = path.rpartition(".")
    if path == FROM_CFG:
        return True
    if block == "sae":
        models: list[Any] = [spec_class(a) for a in architectures() if name in spec_class(a).model_fields]
    else:
        models = [{"logger": LoggerSpec, "synthetic": SyntheticSpec}.get(block, BaseRun)]
    return _members(models[0].model_fields[name].annotation) <= {str, NoneType}


def _literals(annotation: Any) -> list[Any]:
    """Return the values that a field names one by one."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [value for part in get_args(annotation) for value in _literals(part)]
    return []


def _members(annotation: Any) -> set[Any]:
    """Return the types of a union, without their annotations."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {member for part in get_args(annotation) for member in _members(part)}
    return {get_origin(annotation) or annotation}
