"""Asks a model without weights for shapes: by tensors without values where it takes them, by zeros where not."""

# Shape suffix legend: N = contexts, T = tokens per context

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from saesweep.errors import UserError
from saesweep.models.base import LanguageModel
from saesweep.models.skeleton import build_skeleton

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun

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
