"""A language model in two halves, body and head, so that logits exist for a few tokens at a time.

A vocabulary of 262,144 tokens makes logits a megabyte per token: those of one batch of contexts are gigabytes, and the final
hidden states that they come from a thousandth of it.
"""

# Shape suffix legend
#   N = contexts in a forward pass, T = tokens per context, R = tokens in any order, V = vocabulary
#   X = width of what the head reads: D of the last layer, or V where the head cannot be split off

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from saesweep.models.base import LanguageModel, NewOutput, Splice, StopForward
from saesweep.models.shape import exchange_output, first_tensor

_PROOF_TOKENS = 64


class SplitHead:
    """Runs a model up to its head, and the head by itself on some of the tokens.

    The head is the model's own forward pass with its body replaced by the states at hand, so that soft-capping, scaling and
    whatever else a model does to its logits stay as they are. Used only where `prove` finds both halves together equal to
    the whole model; elsewhere `states` are the logits and `logits` returns them unchanged.

    Args:
        model: The language model.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        body = getattr(model.network, "base_model", None)
        self._body = None if body is model.network else body
        self._output: Any = None
        self.d_vocab = model.d_vocab
        """Number of logits."""
        self.reason: str | None = (
            None if self._body is not None else "the model's class names no body apart from its head"
        )
        """Why the head cannot be split off; None where it can."""

    @property
    def is_split(self) -> bool:
        """Whether `states` are hidden states; known for certain after `prove`."""
        return self._body is not None

    def prove(self, tokens_NT: Tensor, hook: str, new: NewOutput | Sequence[NewOutput]) -> None:
        """Compare both halves with the whole model on the beginning of one context, clean and spliced.

        Args:
            tokens_NT: Contexts to take it from.
            hook: Where activations are going to be replaced: one inside the head must not be left out.
            new: What to put there.
        """
        few_NT = tokens_NT[:1, :_PROOF_TOKENS]
        replaced: tuple[Splice | None, ...] = (None, (hook, new))
        for replace in replaced:
            if self._body is None:
                return
            whole_TV = self._model.logits(few_NT, replace=replace)[0]
            self.reason = self._difference(few_NT, replace, whole_TV)
            if self.reason is not None:
                self._body = self._output = None

    def states(self, tokens_NT: Tensor, *, replace: Splice | None = None) -> Tensor:
        """Return what the head reads [N,T,X], with one hook's activations replaced where `replace` says so."""
        if self._body is None:
            return self._model.logits(tokens_NT, replace=replace)
        found: list[Any] = []

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            found.append(output)
            raise StopForward

        with self._model.exclusive():
            handle = self._body.register_forward_hook(keep)
            try:
                self._model.logits(tokens_NT, replace=replace)
            except StopForward:
                pass
            finally:
                handle.remove()
        (output,) = found
        states_NTX = first_tensor(output)
        if states_NTX is None:
            raise TypeError(f"its body returns a {type(output).__name__} without a tensor")
        # The other entries of the output are what the head's forward pass may look at; the states would be a leak.
        self._output = exchange_output(lambda states: states[:0], output)
        return states_NTX

    def logits(self, states_RX: Tensor) -> Tensor:
        """Return the logits [R,V] of states that `states` returned, in any order."""
        if self._body is None:
            return states_RX
        output = exchange_output(lambda _: states_RX[None], self._output)
        with ExitStack() as stack:
            stack.enter_context(self._model.exclusive())
            own = vars(self._body)
            if "forward" in own:  # accelerate's device map puts one there
                stack.callback(own.update, forward=own["forward"])
            else:
                stack.callback(own.pop, "forward")
            own["forward"] = lambda *_args, **_kwargs: output
            return self._model.network_logits(torch.zeros(1, len(states_RX), dtype=torch.int64))[0]

    def _difference(self, few_NT: Tensor, replace: Splice | None, whole_TV: Tensor) -> str | None:
        """Return how the halves differ from the whole, None where they do not."""
        try:
            states_TX = self.states(few_NT, replace=replace)[0]
            at_once_TV = self.logits(states_TX)
            half = len(states_TX) // 2 + 1
            in_pieces_TV = torch.cat([self.logits(states_TX[half:]), self.logits(states_TX[:half])]).roll(half, 0)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a model does that has no such halves
            return f"{type(error).__name__}: {error}"
        scale = float(whole_TV.float().abs().max())
        # Narrow types round products of another shape differently.
        rounding = 1e-6 if whole_TV.dtype == torch.float32 else torch.finfo(whole_TV.dtype).eps
        for found_TV, tolerance in ((at_once_TV, 1e-6), (in_pieces_TV, max(1e-6, rounding))):
            if found_TV.shape != whole_TV.shape:
                return f"its head gives logits of shape {list(found_TV.shape)} instead of {list(whole_TV.shape)}"
            largest = float((found_TV.float() - whole_TV.float()).abs().max())
            if not largest <= tolerance * scale:
                return f"its head alone gives logits that differ by {largest:.2g}"
        return None
