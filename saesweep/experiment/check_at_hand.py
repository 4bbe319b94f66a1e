"""What the file says against what is on this machine: local paths, and the configuration of a model that is at hand."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saesweep import builtin
from saesweep.experiment.document import Document, Place, block
from saesweep.experiment.draft import Draft
from saesweep.experiment.hook_names import blocks_of, hugging_face_hook, transformer_lens_hook
from saesweep.experiment.local_config import LocalConfig, local_config, looks_local
from saesweep.messages import did_you_mean
from saesweep.specs.joint_hooks import as_name, hooks_in, is_joint, joined
from saesweep.specs.model_loading import BRIDGE_CLASSES

_DATA_FILES = (".txt", ".json", ".jsonl", ".csv", ".parquet")
_LENS_LAYER = re.compile(r"blocks\.(\d+)\.")
_MODULE_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)(?:[.:]|$)")
_RESIDUAL = re.compile(r"blocks\.\d+\.hook_resid_(?:pre|post)")


def join_hooks(document: Document) -> None:
    """Put the name of hooks that are read together in the place of each list of them."""
    for parent, key, place in _hooks(document.tree):
        if place[-1] != "hook_name_out":
            parent[key] = as_name(parent[key])
    for entry in block(document.tree, "space").values():
        for each in entry if isinstance(entry, list) else [entry]:
            when = each.get("when") if isinstance(each, dict) else None
            named = when.get("hook_name") if isinstance(when, dict) else None
            if isinstance(named, list):
                named[:] = [as_name(value) for value in named]


def translate_hooks(document: Document) -> list[str]:
    """Put each hook that is named as the other library names it under its own name; return what to say about them.

    Only a pair that the map is sure of is translated, and only where the model's configuration is at hand.
    """
    base = block(document.tree, "base")
    if "model_name" in block(document.tree, "space"):
        return []
    config = None
    notes: list[str] = []
    for parent, key, _ in _hooks(document.tree):
        hooks = list(hooks_in(parent[key])) if isinstance(parent[key], str) else []
        for index, hook in enumerate(hooks):
            is_lens = hook.startswith("blocks.")
            if is_lens == _is_bridge(base):
                continue
            config = config or local_config(base.get("model_name"), base.get("model_from_pretrained_kwargs"))
            if config is None or config.model_type is None:
                return notes
            translate = hugging_face_hook if is_lens else transformer_lens_hook
            if (name := translate(hook, config.model_type)) is not None:
                hooks[index] = name
                parent[key] = joined(hooks)
                library = "TransformerLens" if is_lens else "Hugging Face"
                notes.append(f"hook_name: {hook} is {library}'s name for {name}, which is used")
    return list(dict.fromkeys(notes))


def check_at_hand(draft: Draft) -> None:
    """Note paths that do not exist, and what the model cannot have by its own configuration."""
    base = draft.block("base")
    if base.get("dataset_path") != builtin.DATASET_SYNTHETIC:
        _check_model_names(draft, base)
        _check_dataset(draft, base)
    _check_paths(draft, base)
    if "model_name" in draft.block("space"):
        return
    config = local_config(base.get("model_name"), base.get("model_from_pretrained_kwargs"))
    if config is None:
        return
    name, context = base["model_name"], base.get("context_size")
    if config.context_limit is not None and type(context) is int and context > config.context_limit:
        message = f"{context} is more than {name} takes ({config.context_limit} tokens); lower it to at most that"
        draft.document.add(("base", "context_size"), message)
    for parent, key, place in _hooks(draft.tree):
        if isinstance(parent[key], str):
            for hook in hooks_in(parent[key]):
                _check_hook(draft, config, str(name), hook, place, is_alone=not is_joint(parent[key]))


def _check_model_names(draft: Draft, base: dict[str, Any]) -> None:
    names: list[tuple[Any, Place]] = [(base.get("model_name"), ("base", "model_name"))]
    names += [(parent[key], place) for parent, key, place in _searched(draft.tree, "model_name")]
    for name, place in names:
        if not isinstance(name, str) or is_reference(name):
            continue
        if shell := _shell_variable(name):
            draft.document.add(place, shell)
        elif name.startswith("builtin:") and name != builtin.MODEL_NAME:
            message = f"unknown built-in model {name!r}; there is {builtin.MODEL_NAME}"
            draft.document.add(place, message)
        elif looks_local(name) and not Path(name).expanduser().exists():
            draft.document.add(place, f"the folder {name!r} does not exist; give a model folder or a Hub id")


def _check_dataset(draft: Draft, base: dict[str, Any]) -> None:
    names: list[tuple[Any, Place]] = [(base.get("dataset_path"), ("base", "dataset_path"))]
    names += [(parent[key], place) for parent, key, place in _searched(draft.tree, "dataset_path")]
    names.append((draft.block("evaluation", "dataset").get("dataset_path"), ("evaluation", "dataset", "dataset_path")))
    mixed = base.get("datasets")
    for index, entry in enumerate(mixed if isinstance(mixed, list) else ()):
        if isinstance(entry, dict):
            names.append((entry.get("dataset_path"), ("base", "datasets", index, "dataset_path")))
    tasks = draft.block("evaluation", "probes").get("tasks")
    for index, task in enumerate(tasks if isinstance(tasks, list) else ()):
        if isinstance(task, dict):
            names.append((task.get("dataset_path"), ("evaluation", "probes", "tasks", index, "dataset_path")))
    known = (builtin.DATASET_DOCS, builtin.DATASET_SYNTHETIC)
    for name, place in names:
        if not isinstance(name, str) or is_reference(name) or base.get("use_cached_activations") is True:
            continue
        path = Path(name).expanduser()
        if shell := _shell_variable(name):
            draft.document.add(place, shell)
        elif name.startswith("builtin:") and name not in known:
            hint = did_you_mean(name, known) or f"; there are {' and '.join(known)}"
            draft.document.add(place, f"unknown built-in dataset {name!r}{hint}")
        elif any(mark in name for mark in "*?["):
            if not glob.glob(str(path), recursive=True):
                draft.document.add(place, f"no file matches {name!r}; give a file, folder, glob or a Hub dataset id")
        elif (looks_local(name) or path.suffix.lower() in _DATA_FILES) and not path.exists():
            draft.document.add(place, f"{name!r} does not exist; give a file, folder, glob or a Hub dataset id")


def _shell_variable(name: str) -> str:
    """Return what to say of a path with a variable as the shell writes it; empty for any other."""
    match = re.match(r"\$(?:(\w+)|\{(\w+)\})", name)
    return f"write ${{env:{match[1] or match[2]}}}{name[match.end() :]}" if match else ""


def check_warm_start(draft: Draft) -> None:
    """Note an earlier run that is not there; a run that is resumed has its own copy of what it took from there."""
    warm = draft.block("search").get("warm_start")
    if isinstance(warm, str) and not is_reference(warm) and not Path(warm).expanduser().is_dir():
        message = f"{warm!r} is no folder here; give the run directory of an earlier run"
        draft.document.add(("search", "warm_start"), message)


def is_reference(name: str) -> bool:
    """Return whether a text waits for a variable of the environment: searched places are filled in when they are read."""
    return "${env:" in name


def _check_paths(draft: Draft, base: dict[str, Any]) -> None:
    """Note other places to read from that are not there."""
    document = draft.document
    references = draft.block("evaluation").get("references")
    for index, name in enumerate(references if isinstance(references, list) else ()):
        if isinstance(name, str) and looks_local(name) and not Path(name).expanduser().exists():
            place: Place = ("evaluation", "references", index)
            document.add(place, f"{name!r} does not exist; give the folder of an exported SAE or its place on the Hub")
    cached = base.get("cached_activations_path")
    if base.get("use_cached_activations") is not True or not isinstance(cached, str) or not looks_local(cached):
        return
    if not Path(cached).expanduser().exists():
        message = f"{cached!r} does not exist; `saesweep cache-activations` writes one"
        document.add(("base", "cached_activations_path"), message)


def _check_hook(draft: Draft, config: LocalConfig, model: str, hook: str, place: Place, *, is_alone: bool) -> None:
    is_bridge = _is_bridge(draft.block("base"))
    if hook.startswith("blocks.") and not is_bridge:
        draft.document.add(
            place,
            f"{hook} is a hook of TransformerLens, and no module of {model} holds the same for certain; set "
            "model_class_name: TransformerBridge to use it, or choose a module that `saesweep hooks` lists",
        )
        return
    if not hook.startswith("blocks.") and is_bridge and "hook_" not in hook and _MODULE_LAYER.search(hook):
        draft.document.add(
            place,
            f"{hook} is a module of Hugging Face's model, and no hook of TransformerLens holds the same for certain; set "
            "model_class_name: AutoModelForCausalLM to use it, or choose a hook that `saesweep hooks` lists",
        )
        return
    if (meant := _numbered(hook, config, is_bridge)) != hook:
        draft.document.add(place, f"{model} has no {hook!r}; did you mean {meant!r}?")
        return
    layer = _LENS_LAYER.match(hook) if is_bridge else _MODULE_LAYER.search(hook)
    if layer is not None and config.n_layers is not None and int(layer[1]) >= config.n_layers:
        last = hook[: layer.start(1)] + str(config.n_layers - 1) + hook[layer.end(1) :]
        message = f"{model} has {config.n_layers} layers, numbered from 0; the last is {last}"
        draft.document.add(place, f"{hook}: {message}")
        return
    blocks = None if is_bridge or config.model_type is None else blocks_of(config.model_type)
    if blocks is not None and (number := re.search(r"\.(\d+)(?=[.:]|$)", hook)):
        inner = blocks.split(".", 1)[-1]
        if f"{inner}." not in hook:
            rest = hook[number.end() :]
            draft.document.add(place, f"{model} has no {hook!r}; did you mean '{blocks}.{number[1]}{rest}'?")
            return
    lens = hook if is_bridge else transformer_lens_hook(hook, config.model_type)
    width = "d_out" if "hook_name_out" in place else "d_in"
    d_in = draft.block("base", "sae").get(width)
    is_residual = lens is not None and _RESIDUAL.fullmatch(lens) is not None
    if is_alone and is_residual and config.width is not None and type(d_in) is int and d_in != config.width:
        message = (
            f"{d_in} is given, but {hook} of {model} is {config.width} wide; write {config.width}, or leave it out"
        )
        draft.document.add(("base", "sae", width), message)


def _numbered(hook: str, config: LocalConfig, is_bridge: bool) -> str:
    """Return a hook with its layer as module names have it: `layers[2]`, `layers.-1` and `layer2` name none."""
    hook = re.sub(r"\[(\d+)\]", r".\1", hook)
    if (n_layers := config.n_layers) is not None:
        hook = re.sub(r"\.-(\d+)(?=[.:]|$)", lambda match: f".{max(0, n_layers - int(match[1]))}", hook)
    number = re.search(r"\d+", hook)
    blocks = None if config.model_type is None else blocks_of(config.model_type)
    if "." in hook or number is None or blocks is None:
        return hook
    return f"blocks.{number[0]}.hook_resid_post" if is_bridge else f"{blocks}.{number[0]}"


def _is_bridge(base: dict[str, Any]) -> bool:
    return base.get("model_class_name") in BRIDGE_CLASSES


def _hooks(tree: dict[str, Any]) -> Iterator[tuple[Any, Any, Place]]:
    """Yield (what holds it, under which key, its place) of every hook that a file names."""
    base, search = tree.get("base"), tree.get("search")
    for field in ("hook_name", "hook_name_out"):
        if isinstance(base, dict) and base.get(field) is not None:
            yield base, field, ("base", field)
        yield from _searched(tree, field)
        for name, own in block(tree, "by_architecture").items():
            if isinstance(own, dict) and field in own:
                yield own, field, ("by_architecture", name, field)
        for name in ("baselines", "fixed"):
            listed = search.get(name) if isinstance(search, dict) else None
            for index, settings in enumerate(listed if isinstance(listed, list) else ()):
                if isinstance(settings, dict) and field in settings:
                    yield settings, field, ("search", name, index, field)


def _searched(tree: dict[str, Any], path: str) -> Iterator[tuple[Any, Any, Place]]:
    """Yield the choices of a parameter."""
    entry = block(tree, "space").get(path)
    ranges: Sequence[Any] = entry if isinstance(entry, list) else [entry]
    for number, each in enumerate(ranges):
        choice = each.get("choice") if isinstance(each, dict) else None
        place: Place = ("space", path, number) if isinstance(entry, list) else ("space", path)
        for index in range(len(choice) if isinstance(choice, list) else 0):
            yield choice, index, (*place, "choice", index)
