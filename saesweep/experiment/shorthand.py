"""One value where a mapping or a list belongs (`cohort: 4`, `choice: topk`), or a list where one value does: the line to write.

As with the words of other tools, what was meant takes the place of what was written, so that nothing else is reported of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

from saesweep.experiment.document import Document, Place, flow
from saesweep.experiment.fields import known_paths
from saesweep.experiment.yaml_text import parse_scalar
from saesweep.specs import BaseRun
from saesweep.specs.architectures import architectures, spec_class

_SPAN = re.compile(r"\s*([-+0-9.e]+?)\s*(?:\.\.\.?|-|–|to|:|,)\s*([-+0-9.e]+)\s*")
_CUDA = "cuda:{}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


_ALONE: tuple[tuple[Place, str, Callable[[Any], bool]], ...] = (
    (("search",), "trials", _is_count),
    (("search", "confirm"), "top", _is_count),
    (("cohort",), "size", lambda value: _is_count(value) or value == "auto"),
    (("base", "sae"), "architecture", _is_text),
    (("base", "logger"), "wandb_project", _is_text),
    (("objective", "matched"), "l0", lambda value: isinstance(value, (int, float, list)) and value is not True),
)
"""Where a mapping belongs, the key that a single value there is meant for, and which values are."""
_LISTS: tuple[Place, ...] = (
    ("search", "baselines"),
    ("search", "fixed"),
    ("search", "rungs"),
    ("objective", "matched", "l0"),
)


def teach_shorthand(document: Document) -> None:
    """Note values of the wrong shape whose meaning is plain, and put what was meant in their place."""
    if _node(document, "search").get("confirm") is True:
        _meant(document, ("search", "confirm"), {"top": 3})
    for place, key, is_meant in _ALONE:
        parent = _node(document, *map(str, place[:-1]))
        value = parent.get(str(place[-1]))
        if value is not None and not isinstance(value, dict) and is_meant(value):
            value = [value] if key == "l0" and not isinstance(value, list) else value
            _meant(document, place, {"log_to_wandb": True} if value == "wandb" else {key: value})
    for path, entry in _node(document, "space").items():
        for index, one in enumerate(entry if isinstance(entry, list) else [entry]):
            if isinstance(one, dict):
                _teach_range(document, ("space", path, index) if isinstance(entry, list) else ("space", path), one)
    for place in _LISTS:
        value = _node(document, *map(str, place[:-1])).get(str(place[-1]))
        if value is not None and not isinstance(value, list):
            _meant(document, place, [value])
    devices = _node(document, "cohort").get("devices")
    if isinstance(devices, list) and devices and all(type(one) is int for one in devices):
        _meant(document, ("cohort", "devices"), [_CUDA.format(one) for one in devices])
    _teach_several(document)


def span(text: str) -> list[Any] | None:
    """Return the bounds of a range that is written in one piece, such as `8-64` or `8..64`."""
    match = _SPAN.fullmatch(text)
    bounds = [] if match is None else [parse_scalar(part) for part in match.groups()]
    return bounds if bounds and all(isinstance(b, (int, float)) for b in bounds) else None


def _teach_range(document: Document, place: Place, entry: dict[str, Any]) -> None:
    for key in ("float", "int"):
        if isinstance(entry.get(key), str) and (bounds := span(entry[key])) is not None:
            _meant(document, (*place, key), bounds, entry)
    for key in ("choice", "grid"):
        if key in entry and entry[key] is not None and not isinstance(entry[key], (list, dict)):
            _meant(document, (*place, key), [entry[key]], entry)


def _teach_several(document: Document) -> None:
    """Several values of a field of the base run are searched."""
    for where in ((), ("sae",)):
        base = _node(document, "base", *where)
        for name, values in list(base.items()):
            path = ".".join((*where, name))
            is_plain = isinstance(values, list) and values and not any(isinstance(v, (list, dict)) for v in values)
            if is_plain and path in known_paths() and not _is_list(path):
                said = f"takes one value; to try each, write under space: {path}: {flow({'choice': values})}"
                document.add(("base", *where, name), said)
                base[name] = values[0]


def _is_list(path: str) -> bool:
    """Return whether one value of a field is a list."""
    section, _, name = path.rpartition(".")
    models: list[type[Any]] = [BaseRun] if not section else [spec_class(known) for known in architectures()]
    fields = [model.model_fields[name] for model in models if name in model.model_fields]
    kinds = [kind for field in fields for kind in (field.annotation, *get_args(field.annotation))]
    return any("tuple" in str(kind) or "list" in str(kind) for kind in kinds)


def _node(document: Document, *place: str) -> dict[str, Any]:
    """Return the mapping at a place, to be changed there; an empty one where there is none."""
    node: Any = document.tree
    for part in place:
        node = node.get(part) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _meant(document: Document, place: Place, meant: Any, entry: dict[str, Any] | None = None) -> None:
    document.add(place, f"write {place[-1]}: {flow(meant)}")
    (_node(document, *map(str, place[:-1])) if entry is None else entry)[str(place[-1])] = meant
