"""Values from outside the file: `--set path=value`, and `${env:NAME}` or `${env:NAME:-default}` in text values.

Variables are filled in after parsing, so that one cannot add keys, and in memory. What is written (the run directory, exports,
trackers) keeps the reference wherever the text can be a secret or a place: see `KEPT`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saesweep.experiment.document import Document, Mark, Place, show
from saesweep.experiment.fields import known_paths
from saesweep.experiment.yaml_text import read_value
from saesweep.messages import remember

LABEL = "--set"
_DOTTED_KEYS = (("space",), ("by_architecture", "*"), ("search", "baselines", "*"))
"""Mappings whose keys hold dots themselves; `*` stands for any key or index."""


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Apply `path=value` texts in order; values follow the scalar rules of the file. Mistakes are noted."""
    for text in overrides:
        path, equals, raw = text.partition("=")
        path = path.strip()
        if not equals or not path:
            complain(document, (), f"{text!r} is not path=value, such as base.lr=1e-4", LABEL)
            continue
        if not raw.strip():
            complain(document, tuple(path.split(".")), f"nothing follows the =; write {path}=null for no value", LABEL)
            continue
        value, problems = read_value(raw, LABEL)
        parts = path.split(".")
        if problems:
            for problem in problems:
                complain(document, tuple(parts), problem, LABEL)
            continue
        assign(document, parts, value, LABEL)


def check_overridden(document: Document, overrides: Sequence[str]) -> None:
    """Note values set under `base` of what `space` searches in every trial: they would be accepted and never hold."""
    space = document.tree.get("space")
    for text in overrides:
        path, _, raw = text.partition("=")
        if not raw.strip():  # it has been said what is missing
            continue
        field = path.strip().removeprefix("base.")
        entry = space.get(field) if isinstance(space, dict) and path.strip() == f"base.{field}" else None
        ranges = entry if isinstance(entry, list) else [entry]
        if any(isinstance(each, dict) and not each.get("when") for each in ranges):
            complain(
                document,
                tuple(path.strip().split(".")),
                f"space.{field} gives every trial a value of its own, so that this one would never hold; to give all trials "
                f"the same, write --set 'space.{field}={{choice: [{raw.strip()}]}}'",
                LABEL,
            )


def complain(document: Document, place: Place, message: str, label: str) -> None:
    """Note a mistake of the command line at a place; `label` is the argument that it came from."""
    document.keys[place] = document.values[place] = Mark(file=label)
    document.add(place, message)


def assign(document: Document, parts: list[str], value: Any, label: str) -> None:
    """Set the value at the keys `parts`; from then on `label` is its place."""
    node: Any = document.tree
    place: Place = ()
    rest = parts
    while True:
        key, rest = _next_key(node, place, rest)
        if isinstance(node, list):
            if not key.isdecimal() or int(key) >= len(node):
                complain(document, (*place, key), f"{key!r} is no place in a list of {len(node)}; count from 0", label)
                return
            step: str | int = int(key)
        else:
            step = key
        place = (*place, step)
        if not rest:
            break
        if isinstance(node, dict) and step not in node:
            node[key] = {}
            document.keys[place] = document.values[place] = Mark(file=label)
        child = node[step]
        if child is None and isinstance(node, dict):
            child = node[key] = {}
        if not isinstance(child, (dict, list)):
            complain(document, place, f"is {show(child)}, not a mapping; {'.'.join(rest)!r} cannot be set in it", label)
            return
        node = child
    document.forget(place)
    document.keys[place] = document.values[place] = Mark(file=label)
    node[step] = value


def _next_key(node: Any, place: Place, parts: list[str]) -> tuple[str, list[str]]:
    """Return the key of this mapping that the path continues with, and the rest of the path."""
    if not _has_dotted_keys(place):
        return parts[0], parts[1:]
    # Longest first: `sae.k.int` means the key `int` of the entry `sae.k`, whether or not that entry exists yet.
    for known in (set(node), set(known_paths())):
        for length in range(len(parts), 0, -1):
            key = ".".join(parts[:length])
            if key in known:
                return key, parts[length:]
    # No such field: the whole path is the key, so that the check of keys names it; a range's own key stays apart.
    if place == ("space",) and len(parts) > 1 and parts[-1] in ("float", "int", "choice", "log", "step", "grid"):
        return ".".join(parts[:-1]), parts[-1:]
    return ".".join(parts), []


def _has_dotted_keys(place: Place) -> bool:
    return any(
        len(place) == len(pattern) and all(want in ("*", part) for want, part in zip(pattern, place, strict=True))
        for pattern in _DOTTED_KEYS
    )


OPENED = (
    "model_name",
    "model_from_pretrained_kwargs",
    "model_kwargs",
    "dataset_path",
    "datasets",
    "data_files",
    "data_dir",
    "cached_activations_path",
)
"""Parameters that say which model and which data are opened."""
KEPT = (
    *OPENED,
    "from_pretrained_path",
    "checkpoint_path",
    "logger.wandb_project",
    "logger.wandb_id",
    "logger.run_name",
    "logger.wandb_entity",
)
"""Fields of a base run whose references are kept in everything that is written: where things are, and who may read them.

Others (numbers, names of hooks and splits) decide what is trained and are written out: with another value it is another run.
"""
_KEPT_ELSEWHERE = (
    ("evaluation", "references"),
    ("evaluation", "dataset"),
    ("search", "warm_start"),
    ("search", "storage"),
)
_REFERENCE = re.compile(r"\$\{env:([^}]*)\}")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class AsWritten(Mapping[str, str]):
    """An environment in which every variable stands for itself: for reading an experiment without using its secrets."""

    def __getitem__(self, name: str) -> str:
        return f"${{env:{name}}}"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __contains__(self, name: object) -> bool:
        return True


def fill_environment(document: Document, env: Mapping[str, str], *, only_from: str | None = None) -> None:
    """Replace the references in every text value of the document; missing variables are noted as mistakes.

    Places and secrets that are searched (`space`, baselines, fixed trials) keep their references: they become the
    parameters of trials, which are stored and shown. `filled` puts the value in where a run is made of them.

    Args:
        document: The document.
        env: The variables.
        only_from: Fill in only what was written there, such as `--set`; None for everything.
    """
    document.tree = _fill(document.tree, (), document, env, only_from)


def filled(value: Any, environment: Mapping[str, str]) -> Any:
    """Return a value with its references replaced; for text that `fill_environment` has checked."""
    if isinstance(value, dict):
        return {key: filled(item, environment) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(filled(item, environment) for item in value)
    if not has_reference(value):
        return value

    def replace(match: re.Match[str]) -> str:
        parts = _NAME.fullmatch(match[1])
        return match[0] if parts is None else environment.get(parts[1], parts[2] or "")

    return _REFERENCE.sub(replace, value)


def has_reference(value: Any) -> bool:
    """Return whether a value is, or holds, text with a reference."""
    if isinstance(value, Mapping):
        return any(map(has_reference, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(has_reference, value))
    return isinstance(value, str) and "${env:" in value


def with_references(tree: Mapping[str, Any], references: Mapping[Place, str]) -> dict[str, Any]:
    """Return a filled tree as it is written: each reference back in its place."""
    found = copy.deepcopy(dict(tree))
    for place, text in references.items():
        node: Any = found
        for part in place[:-1]:
            node = node[part]
        node[place[-1]] = text
    return found


def _fill(value: Any, place: Place, document: Document, env: Mapping[str, str], only_from: str | None = None) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, (*place, key), document, env, only_from) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, (*place, index), document, env, only_from) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${env:" not in value:
        return value
    if only_from is not None and document.mark(place).file != only_from:
        return value
    is_parameter = _parameter(place) in KEPT
    is_kept = is_parameter or _is_kept(place)

    def replace(match: re.Match[str]) -> str:
        parts = _NAME.fullmatch(match[1])
        if parts is None:
            document.add(place, f"{match[0]} is not a reference; write ${{env:NAME}} or ${{env:NAME:-default}}")
            return match[0]
        name, default = parts[1], parts[2]
        if name in env:
            document.environment[name] = env[name]
            if is_kept or place == ("base", "from_cfg"):
                remember(env[name], f"${{env:{name}}}")
            return env[name]
        if default is None:
            document.add(
                place, f"the environment variable {name} is not set; set it, or write ${{env:{name}:-default}}"
            )
            return match[0]
        return str(default)

    found = _REFERENCE.sub(replace, value)
    if is_parameter:
        return value
    if is_kept:
        document.references[place] = value
    return found


def _is_kept(place: Place) -> bool:
    if place[:1] == ("base",):
        return any(".".join(map(str, place[1:length])) in KEPT for length in (2, 3))
    return any(place[: len(kept)] == kept for kept in _KEPT_ELSEWHERE)


def _parameter(place: Place) -> Any:
    """Return the dotted path of the parameter that a value at this place is one of; None for everything else."""
    if place[:1] == ("space",):
        return place[place.index("when") + 1] if "when" in place[2:-1] else place[1] if "choice" in place[2:] else None
    return place[3] if place[:2] in (("search", "baselines"), ("search", "fixed")) and len(place) == 4 else None
