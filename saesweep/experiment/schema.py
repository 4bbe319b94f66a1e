"""JSON Schema of the experiment file, for editors (`# yaml-language-server: $schema=...`)."""

from __future__ import annotations

from typing import Any

from saesweep.experiment.fields import ARCHITECTURE, architectures_with, searchable_paths, trial_paths
from saesweep.plugins import load_installed_plugins
from saesweep.specs import METRICS, BaseRun, ExperimentSpec
from saesweep.specs.architectures import architectures, spec_class
from saesweep.specs.presets import presets_of

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def experiment_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of an experiment file, descriptions included.

    It knows keys, types and limits. What needs several fields at once is left to `saesweep validate`.
    """
    load_installed_plugins()
    schema = ExperimentSpec.model_json_schema()
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    properties = schema["properties"]
    properties["base"] = {**_base(definitions), "description": properties["base"]["description"]}
    properties["by_architecture"] = {
        "type": "object",
        "description": properties["by_architecture"]["description"],
        "properties": {name: _overrides(name, properties["base"]) for name in architectures()},
        "additionalProperties": False,
    }
    ranges = {
        "anyOf": [{"$ref": "#/$defs/ParameterSpec"}, {"type": "array", "items": {"$ref": "#/$defs/ParameterSpec"}}]
    }
    properties["space"] = {
        "type": "object",
        "description": properties["space"]["description"],
        "properties": {path: ranges for path in searchable_paths()},
        "additionalProperties": False,
    }
    names = {"choice": {"type": "array", "items": {"enum": list(architectures())}, "minItems": 1}}
    properties["space"]["properties"][ARCHITECTURE] = {
        "type": "object",
        "description": "The architectures to try.",
        "properties": names,
        "required": ["choice"],
        "additionalProperties": False,
    }
    _allow_plain_conditions(definitions["ParameterSpec"])
    _name_metrics(definitions)
    return {"$schema": _DRAFT, "title": "saesweep experiment", **{k: v for k, v in schema.items() if k != "title"}}


def _base(definitions: dict[str, Any]) -> dict[str, Any]:
    run = BaseRun.model_json_schema()
    definitions.update({k: v for k, v in run.pop("$defs", {}).items() if k != "SAESpec"})
    fields: dict[str, Any] = run["properties"]
    fields["sae"] = {
        "type": "object",
        "description": fields["sae"].get("description", ""),
        "properties": _sae_fields(),
        "additionalProperties": False,
    }
    fields["from_cfg"] = {
        "type": "string",
        "description": "Start from this configuration: a SAELens or saesweep folder, a runner_cfg.json or cfg.json, or a Hub id `user/repo/folder`. "
        "Fields stated here win.",
    }
    return {"type": "object", "properties": fields, "additionalProperties": False}


def _sae_fields() -> dict[str, Any]:
    """Return the union of all architectures' fields; where they differ in type, any of the types."""
    found: dict[str, Any] = {
        "architecture": {"enum": list(architectures()), "description": "Name of the architecture."}
    }
    for name in architectures():
        for field, schema in spec_class(name).model_json_schema()["properties"].items():
            if field not in found:
                found[field] = schema
            elif field != "architecture" and _core(found[field]) != _core(schema):
                options = found[field].get("anyOf", [_core(found[field])])
                found[field] = {
                    "anyOf": [*options, *([] if _core(schema) in options else [_core(schema)])],
                    "description": found[field].get("description", ""),
                }
    return found


def _core(schema: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in schema.items() if k not in ("title", "description", "default")}


def _overrides(architecture: str, base: dict[str, Any]) -> dict[str, Any]:
    run, sae = base["properties"], base["properties"]["sae"]["properties"]
    paths = [path for path in trial_paths((architecture,)) if architectures_with(path, (architecture,))]
    fields = {path: sae[path[4:]] if path.startswith("sae.") else run[path] for path in paths}
    presets = presets_of(architecture)
    if presets:
        fields["preset"] = {"enum": list(presets), "description": "A named set of overrides; those written here win."}
    return {"type": "object", "properties": fields}


def _name_metrics(definitions: dict[str, Any]) -> None:
    """Let an editor offer the names of metrics; those of a plugin that is named on the command line are not known here."""
    known = {"enum": list(METRICS)}
    for name in ("Goal", "ObjectiveSpec"):
        for key in ("minimize", "maximize"):
            field = definitions[name]["properties"][key]
            field["anyOf"] = [known, {"type": "null"}]
            field.pop("type", None)
    definitions["ObjectiveSpec"]["properties"]["subject_to"]["propertyNames"] = known


def _allow_plain_conditions(parameter: dict[str, Any]) -> None:
    """Let `when` take one value as well as a list, as the loader does."""
    when = parameter["properties"]["when"]
    when.pop("additionalProperties", None)
    for key in ("float", "int"):
        for option in parameter["properties"][key]["anyOf"]:
            if option.get("type") == "array":
                option.update(minItems=2, maxItems=2)
