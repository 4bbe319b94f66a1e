"""Spellings of other tools (W&B, Optuna, Ray, Hydra) in `space`: each gets the line to write instead.

What was meant takes the place of what was written, so that the rest of the file is checked all the same; the mistake is
noted, so that nothing runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from saesweep.experiment.document import Document, Place, flow
from saesweep.experiment.fields import NESTED, known_paths
from saesweep.experiment.shorthand import correct_objective, correct_shorthand, span
from saesweep.experiment.yaml_text import scalar_or_text
from saesweep.specs import ParameterSpec

_OWN = frozenset(info.alias or name for name, info in ParameterSpec.model_fields.items())
_CHOICES = ("values", "choices", "categorical", "options", "suggest_categorical", "grid_search")
_PAIRS = (("min", "max"), ("low", "high"), ("lower", "upper"), ("start", "end"))
_RANGES = (
    *("uniform", "loguniform", "log_uniform", "quniform", "qloguniform", "range", "interval", "suggest_float"),
    *("suggest_int", "suggest_uniform", "suggest_loguniform", "randint", "lograndint", "int_uniform", "uniform_int"),
)
_CALL = re.compile(r"([a-z_]+)\(([^()]*)\)")
"""Such as `interval(1e-4, 1e-3)`, of Hydra."""
_NO_BLANK = re.compile(r"([a-z_][\w.]*):(\S+)")
_KINDS = ("distribution", "type", "dist", "scale")
_LARGEST_EXPONENT = 700
"""Of e, for a number that a float holds."""


_SEARCH = {
    **dict.fromkeys(("method", "algorithm", "algo"), "sampler"),
    **dict.fromkeys(("count", "num_samples", "max_trials", "run_cap"), "trials"),
    "random_state": "seed",
}
"""Keys of other tools -> ours."""
SAMPLERS_ELSEWHERE = {"bayes": "tpe", "bayesian": "tpe", "bo": "tpe", "tpesampler": "tpe", "randomsampler": "random"}


def correct_foreign_syntax(document: Document) -> None:
    """Note what other tools would read in the file, and put what was meant in its place."""
    _correct_missing_blanks(document, document.tree, ())
    _correct_space(document)
    correct_objective(document)
    correct_shorthand(document)
    search = document.tree.get("search")
    if not isinstance(search, dict):
        return
    for key in [key for key in search if key in _SEARCH]:
        value = search.pop(key)
        meant = {_SEARCH[key]: SAMPLERS_ELSEWHERE.get(value, value) if isinstance(value, str) else value}
        document.add(("search", key), f"write {flow(meant)[1:-1]}", at_key=True)
        search.setdefault(*next(iter(meant.items())))


def _correct_missing_blanks(document: Document, node: Any, place: Place) -> None:
    """Note `{lr:1e-3}`, which YAML reads as a key without a value."""
    for key in list(node) if isinstance(node, dict) else ():
        if node[key] is None and (match := _NO_BLANK.fullmatch(key)):
            document.add(
                (*place, key), f"a blank is missing after the colon; write {match[1]}: {match[2]}", at_key=True
            )
            renamed: Place = (*place, match[1])
            document.keys[renamed] = document.mark((*place, key), at_key=True)
            del node[key]
            node.setdefault(match[1], scalar_or_text(match[2]))
    for key, item in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(item, (dict, list)):
            _correct_missing_blanks(document, item, (*place, key))


def _correct_space(document: Document) -> None:
    space = document.tree.get("space")
    if not isinstance(space, dict):
        return
    if set(space) == {"parameters"} and isinstance(space["parameters"], dict):
        document.add(("space", "parameters"), "write what is in it directly under space", at_key=True)
        document.tree["space"] = {}
        return
    for path in list(space):
        entry = space[path]
        if path in NESTED and isinstance(entry, dict) and not _OWN.intersection(entry):
            document.add(
                ("space", path), f"is a group of fields; write dotted paths: {_dotted(path, entry)}", at_key=True
            )
            del space[path]
            continue
        if path.startswith("base.") and path[5:] in known_paths():
            message = f"paths begin inside base; write {path[5:]}: {flow(entry)}"
            document.add(("space", path), message, at_key=True)
            del space[path]
            space.setdefault(path[5:], entry)
            continue
        place: Place = ("space", path)
        if isinstance(entry, list) and entry and not any(isinstance(item, (dict, list)) for item in entry):
            document.add(place, f"a list of values is a choice; write {path}: {flow({'choice': entry})}")
            space[path] = {"choice": entry}
        elif isinstance(entry, list):
            for index, item in enumerate(entry):
                if isinstance(item, dict):
                    entry[index] = _corrected(document, path, item, (*place, index))
        elif isinstance(entry, dict):
            found = _corrected(document, path, entry, place)
            if found is None:
                del space[path]
            else:
                space[path] = found
        elif isinstance(entry, str) and (meant := _called(entry)) is not None:
            document.add(place, f"write {path}: {flow(meant)}")
            space[path] = meant
        elif isinstance(entry, str) and (bounds := span(entry)) is not None:
            meant = {"int" if all(type(bound) is int for bound in bounds) else "float": bounds}
            document.add(place, f"write {path}: {flow(meant)}")
            space[path] = meant
        elif entry is None and path in known_paths():
            what = f"{path}: {{int: [low, high]}} or {path}: {{choice: [first, second]}}"
            document.add(place, f"does not say what to search; write {what}, or leave the line out")
            del space[path]
        elif path in known_paths():
            kind = "float" if isinstance(entry, float) else "int" if _is_number(entry) else "choice"
            range_ = "[first, second]" if kind == "choice" else "[low, high]"
            document.add(place, f"{_one(entry, path)}; to search it, write {path}: {{{kind}: {range_}}}")
            del space[path]


def _corrected(document: Document, path: str, entry: dict[str, Any], place: Place) -> dict[str, Any] | None:
    """Return an entry in our own words, noted where it was not in them; None for one that cannot be searched."""
    if len(_OWN.intersection(entry)) == len(entry):
        return entry
    kept: dict[str, Any] = {key: entry[key] for key in ("when", "step") if key in entry}
    if {"float", "int"}.intersection(entry) and (extra := next((key for key in _KINDS if key in entry), None)):
        word = f"; {extra}: {entry[extra]} is said by log: true" if "log" in str(entry[extra]) else ""
        document.add((*place, extra), f"remove it: float and int say what the range is{word}", at_key=True)
        return {key: value for key, value in entry.items() if key != extra}
    for key in _CHOICES:
        if isinstance(entry.get(key), list):
            meant: dict[str, Any] = {"choice": entry[key], **({"when": entry["when"]} if "when" in entry else {})}
            document.add((*place, key), f"write {path}: {flow(meant)}", at_key=True)
            return meant
    if "value" in entry and {"value", *_KINDS}.issuperset(entry):
        document.add((*place, "value"), _one(entry["value"], path), at_key=True)
        return None
    bounds, where = _bounds(entry)
    if bounds is None and {"mu", "sigma"} <= entry.keys() and all(_is_number(entry[key]) for key in ("mu", "sigma")):
        meant = {"float": [float(f"{entry['mu'] + sign * 2 * entry['sigma']:.3g}") for sign in (-1, 1)]}
        document.add((*place, "mu"), f"only ranges are searched; write {path}: {flow(meant)}", at_key=True)
        return meant
    if bounds is None:
        return entry
    if len(bounds) == 3 or _is_number(entry.get("q")):
        kept["step"] = entry.get("q", bounds[-1])
        bounds = bounds[:2]
    words = " ".join([*(str(entry.get(key, "")) for key in _KINDS), where])
    is_log = entry.get("log") is True or "log" in words
    is_int = (
        "int" in words.split("_")
        or "randint" in words
        or (all(type(bound) is int for bound in bounds) and "float" not in words and "uniform" not in words)
        or all(type(value) is int for value in (*bounds, kept.get("step")))
    )
    aside = ""
    if entry.get("distribution") == "log_uniform" and min(bounds) < 0:
        # W&B takes exponents of e here, which nobody would recognise as such in a range of values.
        bounds = [float(f"{math.exp(min(bound, _LARGEST_EXPONENT)):.3g}") for bound in bounds]
        aside = " (bounds are values here, not exponents)"
    meant = {"int" if is_int else "float": bounds, **({"log": True} if is_log else {}), **kept}
    document.add((*place, where), f"write {path}: {flow(meant)}{aside}", at_key=True)
    return meant


def _bounds(entry: Mapping[str, Any]) -> tuple[list[Any] | None, str]:
    """Return the bounds of a range in another tool's words, and the key that they are under."""
    for low, high in _PAIRS:
        if _is_number(entry.get(low)) and _is_number(entry.get(high)):
            return [entry[low], entry[high]], low
    for key in _RANGES:
        value = entry.get(key)
        if isinstance(value, list) and len(value) in (2, 3) and all(map(_is_number, value)):
            return value, key
    return None, ""


def _called(text: str) -> dict[str, Any] | None:
    """Return what `choice(16, 32)`, `range(8, 64, 8)` or `interval(1e-4, 1e-3)` stands for; None for another text."""
    match = _CALL.fullmatch(text.strip())
    values = [] if match is None else [scalar_or_text(part.strip()) for part in match[2].split(",")]
    if match is None or not values or None in values:
        return None
    if match[1] in ("choice", "grid"):
        return {"choice": values}
    if len(values) not in (2, 3) or not all(map(_is_number, values)):
        return None
    is_int = all(type(value) is int for value in values) and match[1] not in ("interval", "uniform")
    step = {"step": values[2]} if len(values) == 3 else {}
    return {"int" if is_int else "float": values[:2], **({"log": True} if "log" in match[1] else {}), **step}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _one(value: Any, path: str) -> str:
    """Return what to say of a single value, which is nothing to search."""
    block, _, name = path.rpartition(".")
    where = f"{block}: {{{name}: {flow(value)}}}" if block else f"{path}: {flow(value)}"
    return f"one value is not searched; set it under base, as {where}"


def _dotted(path: str, entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}.{name}: {flow(value)}" for name, value in list(entry.items())[:4])
