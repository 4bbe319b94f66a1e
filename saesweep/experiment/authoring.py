"""What helps to write an experiment: its JSON Schema for editors, and the commented template of `saesweep init`."""

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


_TEMPLATE = """\
# saesweep run experiment.yaml
#
# As it stands, this sweeps SAEs on the language model that ships with saesweep, with no download, in a few minutes on a
# CPU. Put your own model, hook and dataset under `base`, widen `space`, and run `saesweep validate` and `saesweep plan`.
# Every option: docs/options.md, or `saesweep schema` for your editor.

name: my_experiment                       # the run directory is runs/<name>

base:                                     # one whole training run, in SAELens' field names and with its defaults
  # from_cfg: path/to/runner_cfg.json     # start from a SAELens run, or from a saesweep best/ folder
  model_name: builtin:tiny-lm             # or a Hub id, or a local folder
  model_class_name: AutoModelForCausalLM  # hooks are module names; TransformerBridge takes TransformerLens' hook points
  hook_name: model.layers.2
  dataset_path: builtin:python-docs       # or a Hub id, or local .txt, .jsonl, .csv or .parquet files
  context_size: 256                       # tokens
  exclude_special_tokens: true            # norms at BOS are huge and distort scale and explained variance
  max_activation_norm_multiple: 10        # leaves out attention sinks: tokens with more than 10 times the median norm
  training_tokens: 400k                   # per trial; for a result to keep, hundreds of millions
  train_batch_size_tokens: 2048
  lr: 1e-3
  lr_warm_up_steps: 2%                    # durations are steps (100), tokens (5Mtok) or a share of the run (2%)
  lr_decay_steps: 20%
  sae:
    architecture: batchtopk
    d_in: 128                             # width at the hook, as `saesweep hooks` shows it; `run` infers it, `plan` does not
    d_sae: 1024                           # latents; or expansion_factor
    normalize_activations: expected_average_only_in

by_architecture:                          # overrides of `base` for one architecture
  jumprelu: {preset: anthropic-jan-2025, sae.jumprelu_ste_to_input: true}

space:                                    # dotted paths of `base`; bounds are values, both included. {} trains once
  sae.architecture:   {choice: [batchtopk, topk, jumprelu]}
  sae.k:              {int: [8, 64], log: true}         # sampled only for architectures with a `k`
  sae.l0_coefficient: {float: [0.3, 10], log: true}     # likewise: jumprelu. No range fits every model
  lr:                 {float: [3e-4, 3e-3], log: true}

objective: {pareto: [{minimize: l0}, {minimize: delta_ce}]}
# objective: {maximize: explained_variance, subject_to: {l0: {max: 32}}}
# objective: {minimize: delta_ce, matched: {l0: [8, 16, 32]}}   # which architecture is best at the same L0? docs/matched.md

evaluation: {select_tokens: 20k, test_tokens: 20k}      # held out by document; `test` is read once, for the winner

search:
  trials: 9
  seed: 0
  stratify: sae.architecture              # an equal share of the trials for each architecture
  rungs: [10%, 20%, 40%]                  # where a trial is judged by the forecast of its end, and hopeless ones are pruned

cohort: {size: auto}                      # SAEs that train at once from one activation stream
"""


def template() -> str:
    """Return the text of a commented experiment that runs anywhere."""
    return _TEMPLATE
