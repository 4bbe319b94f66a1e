"""Sets of transcoders, one for the MLP of each layer, as circuit-tracer loads them: `config.yaml` and `layer_<n>.safetensors`.

Written against circuit-tracer 0.5.0 (`load_transcoder_from_hub`, `load_transcoder_set`).
"""

# Shape suffix legend:  D = width of the residual stream, F = d_sae

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from saesweep.atomic import replace_folder, write_text
from saesweep.errors import UserError
from saesweep.experiment import dump_yaml
from saesweep.experiment.hook_names import split_input
from saesweep.experiment.local_config import local_config
from saesweep.experiment.saelens_cfg import run_of_metadata
from saesweep.saes import ExportedSAE, load_sae_folder
from saesweep.saes.folder import write_tensors
from saesweep.saes.normalize import RUNTIME_MODES

CONFIG_FILE = "config.yaml"

_NORM_BEFORE_MLP = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), "post_attention_layernorm"),
    **dict.fromkeys(("gemma2", "gemma3_text"), "pre_feedforward_layernorm"),
    **dict.fromkeys(("gpt2", "gpt_neo"), "ln_2"),
}
"""By `config.model_type`: the module that reads the residual stream before the MLP, and whose output the MLP reads."""
_NORM_AFTER_MLP = dict.fromkeys(("gemma2", "gemma3_text"), "post_feedforward_layernorm")
"""By `config.model_type`: the module between the MLP and the residual stream, where there is one."""
_READ = ("mlp.hook_in", "hook_resid_mid")
_RECONSTRUCTED = ("mlp.hook_out", "hook_mlp_out")
"""TransformerLens points that mean the same in circuit-tracer's models."""


@dataclass(frozen=True)
class SetDescription:
    """What the transcoders of a set have in common."""

    model_name: str
    feature_input_hook: str
    """What they read, the same point of every layer, as circuit-tracer calls it."""
    feature_output_hook: str
    """What they reconstruct."""
    d_model: int
    d_sae: int
    has_skip: bool


def write_transcoder_set(target: Path, sources: Sequence[Path]) -> tuple[int, SetDescription]:
    """Write exported transcoders as one set, whole or not at all; return the number of layers, and what it is.

    Args:
        target: The folder to make; one that is there is replaced.
        sources: Folders of exported transcoders, one for the MLP of each layer, in any order.

    Raises:
        UserError: One is damaged or no transcoder of an MLP, they do not go together, or a layer has none, or two.
    """
    of_layer: dict[int, Path] = {}
    descriptions: list[SetDescription] = []
    n_layers: set[int | None] = set()

    def fill(folder: Path) -> None:
        for source in sources:
            sae = load_sae_folder(source)
            layer, description = _described(source, sae)
            if layer in of_layer:
                raise UserError(f"{source}: of layer {layer}, as is {of_layer[layer]}; name one for each layer")
            descriptions.append(description)
            _refuse_difference(source, description, sources[0], descriptions[0])
            of_layer[layer] = source
            n_layers.add(_n_layers(sae))
            write_tensors(folder / f"layer_{layer}.safetensors", _tensors(sae))
        _refuse_gaps(of_layer, n_layers.pop())  # one model, so one number
        write_text(folder / CONFIG_FILE, dump_yaml(_config(descriptions[0])))

    replace_folder(target, fill)
    return len(of_layer), descriptions[0]


def _described(source: Path, sae: ExportedSAE) -> tuple[int, SetDescription]:
    """Return the layer of a transcoder, and what it is."""
    if not sae.is_transcoder:
        raise UserError(
            f"{source}: {sae.architecture} is no transcoder; circuit-tracer puts transcoders in the place of MLPs"
        )
    if sae.cfg["normalize_activations"] in RUNTIME_MODES:
        raise UserError(f"{source}: circuit-tracer knows no normalize_activations: {sae.cfg['normalize_activations']}")
    if sae.d_in != sae.d_out:
        raise UserError(f"{source}: from width {sae.d_in} to {sae.d_out}; circuit-tracer takes one width, the model's")
    layers, points = zip(*(_point(source, sae, field) for field in ("hook_name", "hook_name_out")), strict=True)
    if layers[0] != layers[1]:
        raise UserError(
            f"{source}: reads layer {layers[0]} and reconstructs layer {layers[1]}; circuit-tracer takes the MLP of one layer"
        )
    return layers[0], SetDescription(
        model_name=str(sae.metadata.get("model_name")),
        feature_input_hook=points[0],
        feature_output_hook=points[1],
        d_model=sae.d_in,
        d_sae=sae.d_sae,
        has_skip="W_skip" in sae.tensors,
    )


def _point(source: Path, sae: ExportedSAE, field: str) -> tuple[int, str]:
    """Return the layer and circuit-tracer's name of a hook that the metadata name by one library's or the other's."""
    run = run_of_metadata(sae.metadata)
    config = local_config(run.get("model_name"), run.get("model_from_pretrained_kwargs"))
    model_type = None if config is None else config.model_type
    stated = [sae.metadata.get(f"hf_{field}"), run.get(field), sae.metadata.get(field)]
    names = [hook for hook in stated if isinstance(hook, str)]
    known = _RECONSTRUCTED if field == "hook_name_out" else _READ
    for hook in names:
        found = _of_transformer_lens(hook) or _of_module(hook, model_type)
        if found is not None and found[1] in known:
            return found
    verb, example = ("reconstructs", "mlp") if field == "hook_name_out" else ("reads", "mlp:input")
    unknown = "" if model_type is not None else " (the model's configuration is not on this machine)"
    raise UserError(
        f"{source}: {verb} {names[0] if names else 'a hook without a name'}, which is not known to be one of circuit-tracer's{unknown}; "
        f"train on the MLP itself, such as model.layers.0.{example}"
    )


def _of_transformer_lens(hook: str) -> tuple[int, str] | None:
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    return None if match is None else (int(match[1]), match[2])


def _of_module(hook: str, model_type: str | None) -> tuple[int, str] | None:
    """Return the layer and the point of a Hugging Face module's output or input."""
    name, is_input = split_input(hook)
    match = re.fullmatch(r"(?:[\w.]+\.)?(\d+)\.([a-z]\w*)", name)
    if match is None:
        return None
    points = {("mlp", True): "mlp.hook_in", ("mlp", False): "mlp.hook_out"}
    if model_type in _NORM_BEFORE_MLP:
        before = _NORM_BEFORE_MLP[model_type]
        points |= {(before, True): "hook_resid_mid", (before, False): "mlp.hook_in"}
    if model_type in _NORM_AFTER_MLP:
        points[_NORM_AFTER_MLP[model_type], False] = "hook_mlp_out"
    point = points.get((match[2], is_input))
    return None if point is None else (int(match[1]), point)


def _refuse_difference(source: Path, own: SetDescription, first_source: Path, first: SetDescription) -> None:
    """A set has one model, one width, one pair of hooks, and skip connections in all of its layers or in none."""
    for name, value in vars(own).items():
        if value != (other := getattr(first, name)):
            raise UserError(
                f"{source}: {name} {value}, but {other} in {first_source}; a set has the same in every layer"
            )


def _n_layers(sae: ExportedSAE) -> int | None:
    run = run_of_metadata(sae.metadata)
    config = local_config(run.get("model_name"), run.get("model_from_pretrained_kwargs"))
    return None if config is None else config.n_layers


def _refuse_gaps(of_layer: dict[int, Path], n_layers: int | None) -> None:
    """Refuse a set that lacks a layer of the model; one whose last layers are missing only where their number is known."""
    missing = [str(layer) for layer in range(n_layers or max(of_layer) + 1) if layer not in of_layer]
    if missing:
        raise UserError(
            f"no transcoder of layer {', '.join(missing)}; circuit-tracer takes one for each layer of the model"
        )


def _tensors(sae: ExportedSAE) -> dict[str, Tensor]:
    """Return the weights by circuit-tracer's names; its encoder is [F, D]."""
    tensors = {name: sae.tensors[name] for name in ("W_dec", "b_enc", "b_dec")}
    tensors["W_enc"] = sae.tensors["W_enc"].t()
    if "W_skip" in sae.tensors:
        tensors["W_skip"] = sae.tensors["W_skip"]
    if "threshold" in sae.tensors:  # below 0 there is a relu here and none there
        tensors["activation_function.threshold"] = sae.tensors["threshold"].clamp(min=0)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _config(description: SetDescription) -> dict[str, str]:
    return {
        "model_name": description.model_name,
        "model_kind": "transcoder_set",
        "feature_input_hook": description.feature_input_hook,
        "feature_output_hook": description.feature_output_hook,
    }
