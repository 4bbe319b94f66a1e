"""`${env:NAME}` and `${env:NAME:-default}` in text values, after parsing: a variable cannot add keys.

Values are filled in in memory. What is written (the run directory, exports, trackers) keeps the reference wherever the text
can be a secret or a place: see `KEPT`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from saesweep.experiment.document import Document, Place
from saesweep.messages import remember

KEPT = (
    "model_name",
    "model_from_pretrained_kwargs",
    "model_kwargs",
    "dataset_path",
    "datasets",
    "data_files",
    "data_dir",
    "cached_activations_path",
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
