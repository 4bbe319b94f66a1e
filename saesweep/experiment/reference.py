"""The reference page of every option, generated from the configuration models.

Run `python -m saesweep.experiment.reference > docs/options.md` after changing a field.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import PydanticUndefined

from saesweep.experiment.fields import NESTED, STREAM_PATHS, searchable_paths
from saesweep.specs import (
    METRICS,
    BaseRun,
    Bound,
    CohortSpec,
    DatasetSpec,
    EngineSpec,
    EvaluationSpec,
    ExperimentSpec,
    Goal,
    MatchedSpec,
    ObjectiveSpec,
    ParameterSpec,
    ProbesSpec,
    ProbeTaskSpec,
    RaySpec,
    SearchSpec,
    WeightedDatasetSpec,
)
from saesweep.specs.architectures import CrosscoderSpec, SAESpec, TranscoderSpec, architectures, spec_class
from saesweep.specs.logger import LoggerSpec
from saesweep.specs.model import Spec
from saesweep.specs.presets import PRESET_ARCHITECTURE, PRESETS
from saesweep.specs.synthetic import (
    CorrelationSpec,
    FiringProbabilitySpec,
    HierarchySpec,
    MagnitudeSpec,
    SyntheticSpec,
)
from saesweep.specs.units import Duration

_HEAD = """# Every option

Generated from the configuration models by `python -m saesweep.experiment.reference > docs/options.md`.
Defaults that differ from SAELens 6.54: [defaults.md](defaults.md).

**count**: a whole number, also written `500k`, `90M` or `2B`. **duration**: steps (`1000`), tokens (`5Mtok`) or a share of the
run (`5%`). Scalars follow YAML 1.2: `1e-4` is a number and `no` is text. `${env:NAME}` and `${env:NAME:-default}` are replaced
in text values, in memory only where the text is a token or a place. A field marked ⌕ can be searched: it can be a key of `space`,
of `by_architecture` and of a baseline. One marked ⌕⌕ decides the activation stream: `space` can give it as a choice, and the
trials of each value run one after the other.
"""
_FROM_CFG = (
    "| `from_cfg` | text | `null` | Start from this configuration: a SAELens or saesweep folder, a `runner_cfg.json` or `cfg.json`, "
    "or a Hub id `user/repo/folder`. Fields stated beside it win. |",
)


def options_table() -> str:
    """Return the reference page as Markdown."""
    return "\n".join(
        [
            _HEAD,
            *_section("The file", ExperimentSpec),
            *_section("`base`", BaseRun, prefix="", skip=NESTED, first=_FROM_CFG),
            *_section("`base.sae`, every architecture", SAESpec, prefix="sae."),
            *_architectures(),
            *_presets(),
            *_section("`base.datasets[]`", WeightedDatasetSpec),
            *_section("`base.logger`", LoggerSpec, prefix="logger."),
            *_section("`base.synthetic`", SyntheticSpec, prefix="synthetic."),
            *_section("`base.synthetic.firing_probability`", FiringProbabilitySpec),
            *_section("`base.synthetic.mean_firing_magnitudes`, `std_firing_magnitudes`: a number, or", MagnitudeSpec),
            *_section("`base.synthetic.correlation`", CorrelationSpec),
            *_section("`base.synthetic.hierarchy`", HierarchySpec),
            *_section("`space.<path>`: one range, or a list of ranges", ParameterSpec),
            *_section("`objective`", ObjectiveSpec),
            *_section("`objective.pareto[]`", Goal),
            *_section("`objective.subject_to.<metric>`", Bound),
            *_section("`objective.matched`", MatchedSpec),
            *_metrics(),
            *_section("`evaluation`", EvaluationSpec),
            *_section("`evaluation.dataset`", DatasetSpec),
            *_section("`evaluation.probes`", ProbesSpec),
            *_section("`evaluation.probes.tasks[]`", ProbeTaskSpec),
            *_section("`search`", SearchSpec),
            *_section("`cohort`", CohortSpec),
            *_section("`engine`", EngineSpec),
            *_section("`engine.ray`", RaySpec),
        ]
    )


def _section(
    title: str,
    model: type[Spec],
    *,
    prefix: str | None = None,
    skip: tuple[str, ...] = (),
    first: tuple[str, ...] = (),
) -> list[str]:
    return [f"## {title}", "", *_table(model, prefix=prefix, skip=skip, first=first), ""]


def _table(
    model: type[Spec], *, prefix: str | None = None, skip: tuple[str, ...] = (), first: tuple[str, ...] = ()
) -> list[str]:
    lines = ["| option | type | default | meaning |", "|---|---|---|---|", *first]
    schemas = model.model_json_schema()["properties"]
    for name, info in model.model_fields.items():
        if name in skip:
            continue
        key = info.alias or name
        mark = " ⌕" if prefix is not None and prefix + key in searchable_paths() else ""
        if mark and key in STREAM_PATHS and prefix == "":
            mark = " ⌕⌕"
        kind = _type(schemas[key], str(info.annotation))
        meaning = (info.description or "").replace("|", "\\|").replace("\n", " ")
        lines.append(f"| `{key}`{mark} | {kind} | {_default(info.default)} | {meaning} |")
    return lines


def _architectures() -> list[str]:
    lines = []
    for name in architectures():
        model = spec_class(name)
        if model.is_transcoder or model.is_crosscoder:
            continue
        lines += [
            f"## `sae.architecture: {name}`",
            "",
            f"{(model.__doc__ or '').strip()} Exported as `{model.saved_as}`.",
        ]
        lines += ["", *_table(model, prefix="sae.", skip=tuple(SAESpec.model_fields)), ""]
    return [*lines, *_transcoders(), *_crosscoders()]


def _transcoders() -> list[str]:
    """Return what transcoders have besides the fields of their SAEs."""
    names = [f"`{name}`" for name in architectures() if spec_class(name).is_transcoder]
    return [
        "## `sae.architecture: <name>_transcoder`, `<name>_skip_transcoder`",
        "",
        "The architectures above as [transcoders](transcoders.md), which read `hook_name` and reconstruct `hook_name_out`, "
        "without and with a linear map of the input beside the latents. They have the fields of the architecture that they are "
        "named after, with `apply_b_dec_to_input: false`.",
        "",
        f"{', '.join(names)}.",
        "",
        *_table(TranscoderSpec, prefix="sae.", skip=tuple(SAESpec.model_fields)),
        "",
    ]


def _crosscoders() -> list[str]:
    """Return what crosscoders have besides the fields of their SAEs."""
    names = [f"`{name}`" for name in architectures() if spec_class(name).is_crosscoder]
    return [
        "## `sae.architecture: <name>_crosscoder`",
        "",
        "[Crosscoders](crosscoders.md), which read the hooks of a list `hook_name` together. They have the fields of the architecture "
        "that they are named after, with `apply_b_dec_to_input: false`; `d_in` is the width of all hooks together.",
        "",
        f"{', '.join(names)}.",
        "",
        *_table(CrosscoderSpec, prefix="sae.", skip=tuple(SAESpec.model_fields)),
        "",
    ]


def _presets() -> list[str]:
    lines = ["## `by_architecture.<name>.preset`", ""]
    for name, values in PRESETS.items():
        stated = ", ".join(f"`{path}: {value}`" for path, value in values.items())
        lines += [f"`{name}` (for {PRESET_ARCHITECTURE[name]}): {stated}.", ""]
    return lines


def _metrics() -> list[str]:
    lines = ["## Metrics", "", "| metric | better | unit | meaning |", "|---|---|---|---|"]
    for metric in METRICS.values():
        meaning = metric.description.replace("|", "\\|")
        better = "low" if metric.better == "minimize" else "high"
        needs = " (needs a language-model head)" if metric.needs_lm_head else ""
        needs = " (needs `builtin:synthetic`)" if metric.needs_true_features else needs
        needs = " (needs `search.replicates`)" if metric.needs_replicates else needs
        needs = " (needs `evaluation.probes`)" if metric.needs_probes else needs
        lines.append(f"| `{metric.name}` | {better} | {metric.unit} | {meaning}{needs} |")
    return [*lines, ""]


def _type(schema: dict[str, Any], annotation: str) -> str:
    options = schema.get("anyOf") or schema.get("oneOf") or [schema]
    kinds = {option.get("type") for option in options}
    if {"integer", "string"} <= kinds and "enum" not in str(options) and "const" not in str(options):
        rest = [option for option in options if option.get("type") not in ("integer", "string")]
        first = "duration" if "Duration" in annotation else "count"
        return " or ".join([first, *(_one(option, annotation) for option in rest)])
    return " or ".join(dict.fromkeys(_one(option, annotation) for option in options))


def _one(option: dict[str, Any], annotation: str) -> str:
    if "const" in option:
        return f"`{option['const']}`"
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    if "$ref" in option or option.get("type") == "object":
        return "mapping"
    if "anyOf" in option:
        return _type(option, annotation)
    if option.get("type") == "array":
        if "prefixItems" in option:
            return "[low, high]"
        inside = _type(option["items"], annotation) if option.get("items") else "any values"
        return f"list of {inside.replace('number', 'numbers')}"
    names = {"integer": "whole number", "number": "number", "boolean": "true/false", "string": "text", "null": "null"}
    kind = names.get(str(option.get("type")), "any value")
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    stated = [f"{sign} {option[key]:g}" for key, sign in limits.items() if key in option]
    return " ".join([kind, *stated])


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Spec):
        return "see below"
    return f"`{json.dumps(_plain(value), ensure_ascii=False)}`"


def _plain(value: Any) -> Any:
    if isinstance(value, Duration):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


if __name__ == "__main__":
    print(options_table(), end="")
