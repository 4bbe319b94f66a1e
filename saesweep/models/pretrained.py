"""Reading configuration, weights and tokenizer through transformers, with errors that name the field to mend."""

from __future__ import annotations

import difflib
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partialmethod
from typing import Any

import torch

from saesweep.errors import UserError, first_line
from saesweep.hub import offline_where_unreachable, unreachable_text
from saesweep.models.location import ModelLocation
from saesweep.specs.model_loading import WEIGHT_PROCESSING

_SHARED_KWARGS = ("revision", "token", "trust_remote_code", "cache_dir", "subfolder", "gguf_file")
"""Loading arguments that the configuration and the tokenizer take as well as the weights."""

_OF_WEIGHTS = ("dtype", "quantization_config")
"""Loading arguments that say how weights are stored; transformers too keeps them out of the configuration."""

_DAMAGED = (KeyError, IndexError, struct.error)


def loading_kwargs(model_from_pretrained_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments for `from_pretrained`, with `dtype` as a torch type or `"auto"`.

    Raises:
        UserError: An unknown dtype, or weight processing asked for.
    """
    kwargs = dict(model_from_pretrained_kwargs or {})
    for name in WEIGHT_PROCESSING:
        if kwargs.pop(name, False):
            raise UserError(
                f"base.model_from_pretrained_kwargs.{name}: weight processing is not supported, as it changes the "
                "activations that the SAE is trained on; set it to false or leave it out"
            )
    dtype = kwargs.pop("torch_dtype", kwargs.pop("dtype", "auto"))
    kwargs.setdefault("trust_remote_code", False)  # left out, transformers asks the terminal whether to run the code
    kwargs["dtype"] = dtype if dtype == "auto" or isinstance(dtype, torch.dtype) else _torch_dtype(str(dtype))
    return kwargs


def read_config(location: ModelLocation, kwargs: dict[str, Any], *, offline: bool = False) -> Any:
    """Return the model's configuration, with what the loading arguments change of it; `offline` looks in the local cache only.

    Raises:
        UserError: It cannot be had, or transformers does not know the model type.
    """
    from transformers import AutoConfig

    with loading(location, "the configuration", offline=offline):
        # Loading takes arguments that name a field of the configuration (`num_hidden_layers: 2`) as that field's value.
        changes = {name: value for name, value in kwargs.items() if name not in _OF_WEIGHTS}
        config, _ = AutoConfig.from_pretrained(
            location.source, local_files_only=location.is_local or offline, return_unused_kwargs=True, **changes
        )
        return config


def read_tokenizer(location: ModelLocation, kwargs: dict[str, Any], *, offline: bool = False) -> Any:
    """Return the model's tokenizer.

    Raises:
        UserError: It cannot be had.
    """
    from transformers import AutoTokenizer

    with loading(location, "the tokenizer", offline=offline):
        return AutoTokenizer.from_pretrained(
            location.source, local_files_only=location.is_local or offline, **shared_kwargs(kwargs)
        )


def read_model(
    location: ModelLocation, kwargs: dict[str, Any], device: torch.device, class_name: str = "AutoModelForCausalLM"
) -> Any:
    """Return the model in evaluation mode, on `device` unless the arguments hold a `device_map`.

    Raises:
        UserError: The weights cannot be had, an argument is unknown, or transformers has no such class.
    """
    found = model_class(class_name)
    with loading(location, "the weights"):
        model = found.from_pretrained(location.source, local_files_only=location.is_local, **kwargs)
    if kwargs.get("device_map") is None:
        model = model.to(device)
    return model.eval().requires_grad_(False)


def build_empty(
    location: ModelLocation, config: Any, kwargs: dict[str, Any], class_name: str = "AutoModelForCausalLM"
) -> Any:
    """Return the model with the parameters that a new one has: none are read (and none exist under `torch.device("meta")`).

    Raises:
        UserError: Transformers has no such class, or it does not fit the model.
    """
    found = model_class(class_name)
    dtype = kwargs["dtype"]
    if dtype == "auto":
        dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    is_auto = class_name.startswith("Auto")
    taken = ("attn_implementation", "experts_implementation", *(("trust_remote_code",) if is_auto else ()))
    options = {name: kwargs[name] for name in taken if name in kwargs}
    wanted = getattr(found, "config_class", None)
    if wanted is not None and not isinstance(config, wanted):
        if not isinstance(config.get_text_config(), wanted):
            raise UserError(
                f"base.model_class_name: {location.name} is of type {config.model_type!r}, which {class_name} does not "
                "load; use AutoModelForCausalLM or AutoModel"
            )
        config = config.get_text_config()
    # Auto classes build from a configuration by one name, concrete classes by another.
    build = found.from_config if is_auto else found._from_config
    with loading(location, "the architecture"):
        return build(config, dtype=dtype, **options).eval()


def model_class(name: str) -> Any:
    """Return a model class of transformers by its name.

    Raises:
        UserError: There is none; the nearest names are listed.
    """
    import transformers

    found = getattr(transformers, name, None)
    if not hasattr(found, "from_pretrained"):
        nearest = difflib.get_close_matches(name, dir(transformers), n=3)
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        raise UserError(f"base.model_class_name: {name!r} is no model class of transformers{hint}")
    return found


def shared_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return those loading arguments that say where the files are."""
    return {name: kwargs[name] for name in _SHARED_KWARGS if name in kwargs}


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars or notices from transformers: the terminal belongs to the sweep's display."""
    from tqdm.auto import tqdm
    from transformers.utils import logging

    show = tqdm.__init__
    # The bar of a GGUF file is tqdm's own, which the setting of transformers does not reach.
    tqdm.__init__ = partialmethod(show, disable=True)
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        tqdm.__init__ = show
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def loading(location: ModelLocation, what: str, *, offline: bool = False) -> Iterator[None]:
    """Turn the ways in which transformers says "cannot be loaded" into one message."""
    from safetensors import SafetensorError

    try:
        with quiet(), nullcontext() if location.is_local or offline else offline_where_unreachable():
            yield
    except torch.OutOfMemoryError:
        raise
    # RuntimeError: weights whose shapes are not those of the configuration. The last three: a damaged GGUF file.
    except (OSError, ValueError, TypeError, ImportError, RuntimeError, SafetensorError, *_DAMAGED) as error:
        if location.gguf_file is not None:
            raise UserError(_gguf_message(location, what, error)) from error
        reason = first_line(error).rstrip(".")
        if isinstance(error, TypeError) and "unexpected keyword" in reason:
            raise UserError(f"base.model_from_pretrained_kwargs: {reason}") from error
        if "custom code" in reason:
            raise UserError(
                f"base.model_name: {location.name!r} brings Python code of its own, which is not run; if you trust it, set "
                "base.model_from_pretrained_kwargs: {trust_remote_code: true} and base.allow_code_execution: true"
            ) from error
        if location.is_local:
            raise UserError(
                f"base.model_name: {what} of the folder {location.name!r} cannot be read: {reason}"
            ) from error
        if not offline and (unreachable := unreachable_text()):
            raise UserError(
                f"base.model_name: {what} of {location.name!r} is not on this machine, and {unreachable}; check the "
                "network, or give a local folder"
            ) from error
        raise UserError(
            f"base.model_name: {what} of {location.name!r} could not be downloaded or read: {reason}. "
            "Check the name, the network and your access to it, or give a local folder"
        ) from error


def _gguf_message(location: ModelLocation, what: str, error: Exception) -> str:
    from transformers.utils import is_gguf_available

    place = "base.model_from_pretrained_kwargs.gguf_file"
    if isinstance(error, ImportError) and not is_gguf_available():
        return f"{place}: reading {location.gguf_file} takes the package gguf; install it with: pip install 'saesweep[gguf]'"
    reason = next(iter(str(error).strip().splitlines()), "").rstrip(".")
    return (
        f"{place}: {what} of {location.gguf_file!r} in {location.name!r} cannot be read ({type(error).__name__}: {reason}); "
        "use a whole file of an architecture that transformers reads from GGUF, or the model in Hugging Face format"
    )


def _torch_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise UserError(
            f"base.model_from_pretrained_kwargs.dtype: {name!r} is no type; use float32, bfloat16, float16 or auto"
        )
    return dtype
