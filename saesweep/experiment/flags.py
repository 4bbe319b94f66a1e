"""Every field of a base run as a flag of the command line, in SAELens' spelling: `--lr`, `--sae.k` or `--k`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from saesweep.experiment.document import Document
from saesweep.experiment.fields import ARCHITECTURE, known_paths, parts_of, sae_fields
from saesweep.experiment.overrides import assign, complain
from saesweep.experiment.yaml_text import is_null, read_value
from saesweep.plugins import load_installed_plugins
from saesweep.specs import BaseRun, Duration
from saesweep.specs.architectures import SAESpec, all_listed, architectures, listed, spec_class
from saesweep.specs.logger import LoggerSpec
from saesweep.specs.model import Spec
from saesweep.specs.synthetic import SyntheticSpec

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
