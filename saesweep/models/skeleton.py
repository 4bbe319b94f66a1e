"""Models without weights, with shapes and types alone or with zeros that take no memory, and what they answer when asked for shapes.

Shape suffixes: N = contexts, T = tokens per context.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from saesweep.errors import UserError
from saesweep.models.base import LanguageModel
from saesweep.models.bridge import BridgeModel, build_bridge
from saesweep.models.huggingface import HuggingFaceModel
from saesweep.models.library import Library, library_of, locate
from saesweep.models.pretrained import build_empty, loading_kwargs, quiet, read_tokenizer

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun


def build_skeleton(run: BaseRun, config: Any, *, offline: bool, zeros: bool = False) -> tuple[LanguageModel, int, int]:
    """Return the model of `run` without its weights, the number of its parameters and their bytes.

    Args:
        run: The base run; its model fields are read.
        config: The model's configuration.
        offline: Look for a Hub model in the local cache only.
        zeros: Give the parameters zeros, so that forward passes compute; otherwise they have a shape and a type alone.

    Raises:
        UserError: The class does not fit the model, or takes no token ids.
    """
    location, kwargs = locate(run), loading_kwargs(run.model_from_pretrained_kwargs)
    is_bridge = library_of(run) is Library.TRANSFORMER_LENS
    class_name = "AutoModelForCausalLM" if is_bridge else run.model_class_name
    with _parameters_without_storage() if zeros else torch.device("meta"):
        skeleton = build_empty(location, config, kwargs, class_name)
    sizes = _sizes(skeleton)
    if zeros:
        _fill(skeleton)
    if is_bridge:
        tokenizer = read_tokenizer(location, kwargs, offline=offline)
        return _bridge(skeleton, tokenizer, run, "cpu" if zeros else "meta"), *sizes
    try:
        model = HuggingFaceModel(skeleton, tokenizer=None, forward_kwargs=run.model_kwargs)
    # What classes for images and sound do when they are asked for their token embedding or vocabulary.
    except (AttributeError, NotImplementedError) as error:
        raise UserError(
            f"base.model_class_name: {type(skeleton).__name__} takes no token ids ({error}); "
            "choose a class that reads text, such as AutoModelForCausalLM"
        ) from error
    return model, *sizes


def _sizes(skeleton: Any) -> tuple[int, int]:
    parameters = list(skeleton.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() * p.element_size() for p in parameters)


def _bridge(skeleton: Any, tokenizer: Any, run: BaseRun, device: str) -> BridgeModel:
    dtype = next(skeleton.parameters()).dtype
    # A bridge reads the architecture's name, which only a configuration saved with a model has.
    skeleton.config.architectures = [type(skeleton).__name__]
    with quiet():
        try:
            bridge = build_bridge(skeleton, tokenizer, str(run.model_name), dtype, device)
        except NotImplementedError:
            # Fused query-key-value weights (GPT-2) are split at boot, which needs storage. Empty storage is not
            # touched by anything else, so it costs address space and those weights alone.
            skeleton.to_empty(device="cpu")
            bridge = build_bridge(skeleton, tokenizer, str(run.model_name), dtype, "cpu")
            bridge.original_model.to("meta")
            bridge.cfg.device = "meta"
    return BridgeModel(bridge, tokenizer, forward_kwargs=run.model_kwargs)


@contextmanager
def _parameters_without_storage() -> Iterator[None]:
    """Build modules whose parameters are on the meta device, while their buffers (positions, masks) hold their values."""
    register = nn.Module.register_parameter

    def without_storage(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        # Parameters come here unwritten and are initialised later: as they are, they have cost address space alone.
        # Those that have been here, tied to another module, stay the same object.
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        register(module, name, parameter)

    nn.Module.register_parameter = without_storage  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _fill(model: nn.Module) -> None:
    """Put zeros in place of parameters without storage; tied ones stay tied."""
    filled: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                if id(parameter) not in filled:
                    filled[id(parameter)] = nn.Parameter(_zeros_like(parameter), requires_grad=False)
                module._parameters[name] = filled[id(parameter)]


def _zeros_like(parameter: Tensor) -> Tensor:
    """Return zeros that are read without ever having been written: NumPy asks the system for empty pages, torch writes."""
    if parameter.numel() == 0:
        return torch.empty_like(parameter, device="cpu")
    n_bytes = parameter.numel() * parameter.element_size()
    return torch.from_numpy(np.zeros(n_bytes, dtype=np.uint8)).view(parameter.dtype).view(parameter.shape)


PROBE_SHAPE = 5, 7
"""Contexts and tokens of the forward pass that shapes are found with."""

_Found = TypeVar("_Found")


def probe(
    run: BaseRun,
    config: Any,
    model: LanguageModel,
    ask: Callable[[LanguageModel, Tensor], _Found],
    *,
    offline: bool,
) -> _Found:
    """Return what `ask` finds out from a forward pass.

    Tensors without values cost nothing, and a model may do what they cannot: read its own routing, or call a product that
    has no rule for them. Then the same pass runs on weights of zeros.

    Args:
        run: The base run; its model fields are read.
        config: The model's configuration.
        model: The model on the meta device.
        ask: Gets a model and token ids [N,T] to run through it.
        offline: Look for a Hub model in the local cache only.

    Raises:
        UserError: From `ask`, or the model does not run on token ids alone.
    """
    tokens_NT = torch.zeros(PROBE_SHAPE, dtype=torch.long, device="meta")
    try:
        # Fake tensors, because transformers reads values of masks, which plain meta tensors refuse.
        with _without_log(), FakeTensorMode(allow_non_fake_inputs=True):
            return ask(model, tokens_NT)
    except UserError:
        raise
    except Exception:  # the model's own code, so it may be anything; what matters is whether it runs on values
        real, _, _ = build_skeleton(run, config, offline=offline, zeros=True)
    try:
        return ask(real, torch.zeros(PROBE_SHAPE, dtype=torch.long))
    except UserError:
        raise
    except Exception as error:  # likewise
        reason = next(iter(str(error).strip().splitlines()), "").rstrip(".")
        raise UserError(
            f"base.model_name: a forward pass of {run.model_name} ({run.model_class_name}) on token ids alone fails: "
            f"{type(error).__name__}: {reason}; {_advice(config)}"
        ) from error


@contextmanager
def _without_log() -> Iterator[None]:
    """Keep the traceback off the terminal that torch logs where an operation has no rule: the other pass answers then."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was


def _advice(config: Any) -> str:
    if getattr(config, "is_encoder_decoder", False):
        return (
            "it has an encoder and a decoder, and only the encoder gets tokens here: choose a hook of the encoder, the "
            "encoder's own class as base.model_class_name (such as AutoModelForTextEncoding), or a decoder-only model"
        )
    return "give what else it needs in base.model_kwargs, or choose a base.model_class_name that takes token ids"
