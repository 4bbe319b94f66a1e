"""What `config.json` says of a model that is at hand: built in, a local folder, or in the Hub's cache. No network, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saesweep import builtin

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_CONTEXT = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True)
class LocalConfig:
    """Facts of a language model; None where its configuration does not state them."""

    model_type: str | None
    n_layers: int | None
    width: int | None
    context_limit: int | None


def local_config(model_name: object, kwargs: object = None) -> LocalConfig | None:
    """Return the facts of a model; None where its configuration is not on this machine.

    Args:
        model_name: As the file has it.
        kwargs: Its `model_from_pretrained_kwargs`; they name the revision and the cache.
    """
    if not isinstance(model_name, str) or not model_name:
        return None
    file = _file(model_name, kwargs if isinstance(kwargs, dict) else {})
    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    text = found.get("text_config")  # a model that also sees or hears
    text = text if isinstance(text, dict) else found
    kind = text.get("model_type", found.get("model_type"))
    return LocalConfig(
        model_type=kind if isinstance(kind, str) else None,
        n_layers=_first(text, _LAYERS),
        width=_first(text, _WIDTH),
        context_limit=_first(text, _CONTEXT),
    )


def looks_local(name: str) -> bool:
    """Return whether a name can only be a path: no Hub id begins so or has so many parts."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _file(name: str, kwargs: dict[str, Any]) -> Path | None:
    if name == builtin.MODEL_NAME:
        return builtin.model_path() / "config.json"
    folder = Path(name).expanduser()
    if folder.exists():
        return folder / "config.json"
    if name.startswith("builtin:") or looks_local(name):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    revision, cache = kwargs.get("revision"), kwargs.get("cache_dir")
    try:
        found = try_to_load_from_cache(
            name,
            "config.json",
            cache_dir=cache if isinstance(cache, str) else None,
            revision=revision if isinstance(revision, str) else None,
        )
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    return next((config[name] for name in names if type(config.get(name)) is int), None)
