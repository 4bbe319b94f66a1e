"""Static checks of `base`, of `by_architecture`, and of the runs that they lead to at the edges of the space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saesweep.experiment.document import Place, show
from saesweep.experiment.draft import Draft, known_path_hint, note
from saesweep.experiment.explain import field_problems, unknown_key
from saesweep.experiment.fields import (
    ARCHITECTURE,
    NESTED,
    architectures_with,
    flatten,
    known_paths,
    logger_fields,
    parts_of,
    run_fields,
    sae_fields,
    synthetic_fields,
    trial_paths,
    why_without_effect,
)
from saesweep.experiment.parameters import build_run, for_architecture, layered, place_of
from saesweep.messages import did_you_mean
from saesweep.space import Parameter, corners
from saesweep.specs import BaseRun
from saesweep.specs.architectures import architectures, listed, spec_class
from saesweep.specs.presets import PRESET_ARCHITECTURE, PRESETS, presets_of
from saesweep.specs.synthetic import SYNTHETIC

_ONLY_IN_BASE = ("sae.d_in", "sae.d_out", "sae.n_layers", "sae.reshape_activations", "sae.architecture")


def check_base(draft: Draft) -> None:
    """Note unknown keys of `base` and SAE fields that no architecture in play has."""
    document = draft.document
    base = draft.block("base")
    for key in base:
        if key not in (*run_fields(), "from_cfg"):
            block, _, name = key.partition(".")
            message, near = unknown_key(key, (*run_fields(), "from_cfg"))
            meant: Place | None = None if near is None else ("base", near)
            if (why := why_without_effect(key)) is not None:
                message, meant = why, None
            elif block in NESTED and name:
                message = f"unknown key {key!r}; write it nested, as {block}: {{{name}: ...}}"
                meant = ("base", block, name)
            elif key in sae_fields():
                message = f"unknown key {key!r}; it is a field of the SAE: sae: {{{key}: ...}}"
                meant = ("base", "sae", key)
            elif key in logger_fields():
                message = f"unknown key {key!r}; it is a field of the logger: logger: {{{key}: ...}}"
                meant = ("base", "logger", key)
            document.add_unknown_key(("base", key), message, meant)
    for block in NESTED:
        if block in base and not isinstance(base[block], dict):
            document.add(("base", block), f"takes a mapping of keys, not {show(base[block])}")
    for block, known in (("logger", logger_fields()), ("synthetic", synthetic_fields())):
        for key in draft.block("base", block):
            if key not in known:
                message, near = unknown_key(key, known)
                if (why := why_without_effect(f"{block}.{key}")) is not None:
                    message, near = why, None
                document.add_unknown_key(("base", block, key), message, None if near is None else ("base", block, near))
                draft.broken.add(f"{block}.{key}")
    for key in draft.block("base", "sae"):
        place = ("base", "sae", key)
        having = architectures_with(f"sae.{key}", architectures())
        if not having:
            message, near = unknown_key(key, sae_fields())
            if (why := why_without_effect(f"sae.{key}")) is not None:
                message, near = why, None
            document.add_unknown_key(place, message, None if near is None else ("base", "sae", near))
        elif not set(having).intersection(draft.architectures) and place not in draft.filled:
            document.add(
                place,
                f"a field of {listed(having)}, and the experiment has {listed(draft.architectures)}; leave it out",
                at_key=True,
            )
    apart = draft.block("evaluation").get("dataset")
    if apart is not None and base.get("dataset_path") == SYNTHETIC:
        document.add(("evaluation", "dataset"), "builtin:synthetic has no text; leave it out", at_key=True)
    if isinstance(apart, dict) and apart.get("dataset_path") == SYNTHETIC:
        document.add(("evaluation", "dataset", "dataset_path"), "builtin:synthetic has no text; name a dataset of text")
    reads_two = any(spec_class(name).is_transcoder for name in draft.architectures)
    reads_together = any(spec_class(name).is_crosscoder for name in draft.architectures)  # which refuses it itself
    if base.get("hook_name_out") is not None and not reads_two and not reads_together and draft.architectures:
        transcoders = [name for name in architectures() if spec_class(name).is_transcoder]
        message = (
            f"only transcoders reconstruct another hook, and the experiment has {listed(draft.architectures)}; leave it out, "
            f"or choose one of {', '.join(transcoders)}"
        )
        document.add(("base", "hook_name_out"), message, at_key=True)
    saes = [name for name in draft.architectures if not spec_class(name).is_transcoder]
    if reads_two and saes and base.get("hook_name_out") is not None and "hook_name" in draft.block("space"):
        message = (
            f"{listed(saes)} beside transcoders would ignore it, training on base.hook_name_out, what they reconstruct; "
            "leave it out, or sweep transcoders alone"
        )
        document.add(("space", "hook_name"), message, at_key=True)
    for path, value in flatten(base).items():
        owners = [a for a in architectures_with(path, draft.architectures) if path in known_paths()]
        if path not in ("sae.architecture", *NESTED):  # an unknown architecture has been noted
            _check_value(draft, path, value, ("base", *parts_of(path)), owners)


def check_by_architecture(draft: Draft) -> None:
    """Note architectures that are not in play, unknown presets, and fields that cannot differ by architecture."""
    document = draft.document
    for name, overrides in draft.block("by_architecture").items():
        if name not in architectures():
            hint = did_you_mean(name, draft.architectures) or did_you_mean(name, architectures())
            document.add(("by_architecture", name), f"unknown architecture {name!r}{hint}", at_key=True)
            continue
        if name not in draft.architectures:
            document.add(
                ("by_architecture", name),
                f"{name} is not in play; the experiment has {listed(draft.architectures)}",
                at_key=True,
            )
            continue
        if not isinstance(overrides, dict):
            continue
        for key, value in overrides.items():
            if key == "preset":
                _check_preset(draft, name, value)
            elif key in NESTED and isinstance(value, dict):
                for field, item in value.items():
                    _check_override(draft, name, f"{key}.{field}", item, ("by_architecture", name, key, field))
                    if f"{key}.{field}" in overrides:
                        document.add(("by_architecture", name, f"{key}.{field}"), "given twice", at_key=True)
            else:
                _check_override(draft, name, key, value, ("by_architecture", name, key))


def _check_preset(draft: Draft, architecture: str, preset: object) -> None:
    place = ("by_architecture", architecture, "preset")
    if not isinstance(preset, str) or preset not in PRESETS:
        hint = did_you_mean(str(preset), PRESETS) or f"; known: {', '.join(PRESETS)}"
        draft.document.add(place, f"unknown preset {show(preset)}{hint}")
        # What depends on its values would only be reported as a consequence.
        draft.broken.add("preset")
    elif preset not in presets_of(architecture):
        draft.document.add(place, f"{preset} is a preset of {PRESET_ARCHITECTURE[preset]}, not of {architecture}")


def _check_override(draft: Draft, architecture: str, path: str, value: Any, place: Place) -> None:
    document = draft.document
    if path not in known_paths():
        message = why_without_effect(path) or f"unknown field {path!r}{known_path_hint(path)}"
        document.add(place, message, at_key=True)
        draft.broken.add(path)
    elif not architectures_with(path, (architecture,)):
        having = listed(architectures_with(path, architectures()))
        document.add(place, f"{architecture} has no {path[4:]}, a field of {having}", at_key=True)
    elif path in _ONLY_IN_BASE:
        document.add(place, "is the same for every architecture; set it under base", at_key=True)
    elif (
        path == "hook_name"
        and draft.block("base").get("hook_name_out") is not None
        and not spec_class(architecture).is_transcoder
    ):
        message = "an SAE beside transcoders trains on base.hook_name_out, what they reconstruct; leave it out"
        document.add(place, message, at_key=True)
    elif not path.startswith("sae.") and path not in trial_paths():
        message = (
            "cannot be set by architecture: it belongs to the activation stream or the whole run, "
            "which all architectures share; set it under base"
        )
        document.add(place, message, at_key=True)
    else:
        _check_value(draft, path, value, place, [architecture])


def _check_value(draft: Draft, path: str, value: Any, place: Place, owners: list[str]) -> None:
    for architecture in owners:
        for inside, message in field_problems(path, value, architecture):
            note(draft, place if place in draft.filled else (*place, *inside), path, message)
            draft.broken.add(path)


_WIDTHS = ("sae.d_sae", "sae.expansion_factor", "sae.d_in")
_FOLLOWS: dict[str, tuple[str, ...]] = {
    "training_tokens": ("train_batch_size_tokens",),
    "buffer_tokens": ("train_batch_size_tokens", "context_size", "n_batches_in_buffer"),
    "lr_end": ("lr_scheduler_name",),
    "lr_decay_steps": ("training_tokens", "train_batch_size_tokens", "lr_warm_up_steps"),
    "model_name": ("dataset_path",),
    "dataset_path": ("datasets",),
    "seqpos_slice": ("context_size",),
    "sae.k": _WIDTHS,
    "sae.d_sae": _WIDTHS,
    "sae.expansion_factor": _WIDTHS,
    "hook_name": ("sae.architecture",),
    "hook_name_out": ("sae.architecture",),
    "sae.target_l0": ("sae.jumprelu_sparsity_loss_mode", "preset"),
}
"""Field named by a mistake between fields -> the other fields in it."""


def check_runs(draft: Draft, parameters: Sequence[Parameter]) -> list[BaseRun]:
    """Note what is wrong with the runs at the edges of the space, at the place where the value was written.

    Returns:
        The runs that could be built: what later checks and warnings look at.
    """
    runs: list[BaseRun] = []
    base = draft.tree.get("base")
    if not isinstance(base, dict) or "from_cfg" in base:  # missing, or left there because it could not be read
        return runs
    noted: set[tuple[Place, str]] = set()
    for parameter in parameters:
        if any(not values for values in parameter.when.values()):
            draft.document.add(parameter.place, "is never sampled: no trial meets its conditions")
    for architecture in draft.architectures:
        own = for_architecture(parameters, architecture)
        places = {p.path: p.place for p in own}
        for params in corners(own):
            flat = layered(draft.tree, architecture, params, places)
            # Defaults stand in for values that were found wrong, so that the rest of the run is checked too.
            usable = {
                path: setting for path, setting in flat.items() if path not in draft.broken or path == ARCHITECTURE
            }
            run, problems = build_run(usable)
            if run is not None:
                runs.append(run)
            together = spec_class(architecture).read_together
            for path, message in problems:
                place = place_of(path, flat)
                follows = (path, *_FOLLOWS.get(path, ()), *(f"sae.{name}" for name in together.get(path[4:], ())))
                # One corner, of one architecture, shows a mistake; what follows from another mistake is no news.
                if (place, path) not in noted and not draft.broken.intersection(follows):
                    noted.add((place, path))
                    note(draft, place, path, message)
    return runs
