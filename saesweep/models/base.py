"""What the rest of saesweep asks of a language model, whatever library runs it."""

# Shape suffix legend
#   N = contexts in a forward pass, T = tokens per context, D = width at a hook,
#   H = attention heads, Dh = width of a head, V = vocabulary

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from saesweep.models.shape import shape_activations
from saesweep.specs.joint_hooks import hooks_in, is_joint

NewOutput = Callable[[Tensor], Tensor]
"""What to put in place of a hook's output; both tensors are [N,T,D] (or [N,T,H,Dh])."""
Splice = tuple[str, NewOutput | Sequence[NewOutput]]
"""A hook name and what to put in place of its output; for hooks that are read together, one of these each."""


def splices(replace: Splice | None) -> list[tuple[str, NewOutput]]:
    """Return a splice as one for every single hook."""
    if replace is None:
        return []
    name, new = replace
    return list(zip(hooks_in(name), [new] if callable(new) else new, strict=True))


CPU_PIECE_TOKENS = 1024
"""Maximum number of tokens that a CPU works on at once. More leave its caches: slower by up to a fifth, in several times the memory."""


class StopForward(Exception):
    """Raised by the last requested hook, so that later layers never run."""


class UnusableHookError(RuntimeError):
    """A hook that exists and gives no activations: its module never runs, or its output holds no tensor."""


class LanguageModel(ABC):
    """A loaded model with named hook points.

    Attributes:
        tokenizer: Its Hugging Face tokenizer.
        device: Where token ids go in.
        d_vocab: Number of logits.
        n_token_ids: Rows of the token embedding.
        has_lm_head: Whether `logits` are next-token predictions.
        network: The module of transformers that runs underneath; None where there is none.
    """

    tokenizer: Any
    device: torch.device
    d_vocab: int
    n_token_ids: int
    has_lm_head: bool
    network: Any = None

    def __init__(self, *, autocast: bool) -> None:
        self._autocast = autocast
        self._forward_kwargs: dict[str, Any] = {}
        self._one_at_a_time = threading.RLock()

    @abstractmethod
    def hook_names(self) -> list[str]:
        """Return every name that `activations` and `logits` accept, in module order."""

    def activations(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Run one forward pass up to the last of `hooks` and return what each of them saw.

        Args:
            tokens_NT: Token ids, int64, on any device.
            hooks: Names out of `hook_names()`, or of several of these that are read together.

        Returns:
            For every hook its output, [N,T,D] (or [N,T,H,Dh] where the hook has a head axis), in the type that the
            model computes in. Hooks that are read together give theirs one after the other, [N,T,sum of D]. Inference
            tensors: copy them before autograd sees them.
        """
        single = list(dict.fromkeys(each for hook in hooks for each in hooks_in(hook)))

        def run(piece_NT: Tensor) -> dict[str, Tensor]:
            seen = self._capture(piece_NT, single)
            return {hook: _side_by_side(seen, hook) if is_joint(hook) else seen[hook] for hook in hooks}

        return self._in_pieces(tokens_NT, run)

    def _capture(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Run one forward pass up to the last of `hooks`, single ones, and return what each of them saw."""
        raise NotImplementedError

    @abstractmethod
    def logits(self, tokens_NT: Tensor, *, replace: Splice | None = None) -> Tensor:
        """Run the whole model and return its logits [N,T,V].

        Args:
            tokens_NT: Token ids, int64, on any device.
            replace: A hook whose output is exchanged before the layers after it run. Of a module that runs several times,
                the first output is, which is the one that `activations` returns.
        """

    @abstractmethod
    def hook_shapes(self, tokens_NT: Tensor) -> dict[str, tuple[int, ...] | None]:
        """Run one whole forward pass and return the shape at every hook, in the order of `hook_names`.

        Args:
            tokens_NT: Token ids, int64.

        Returns:
            For every hook its shape; None where it holds no tensor or never runs.
        """

    def network_logits(self, tokens_NT: Tensor) -> Tensor:
        """Run the network underneath, past any hook points of this library, and return its logits [N,T,V]."""
        with self._forward_pass():
            logits: Tensor = self.network(tokens_NT.to(self.device), **self._forward_kwargs).logits
            return logits

    def exclusive(self) -> AbstractContextManager[Any]:
        """Keep other threads' forward passes out: for whoever changes the model's modules for a while."""
        return self._one_at_a_time

    def _in_pieces(self, tokens_NT: Tensor, run: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return what `run` gives for all contexts; a CPU gets them in pieces of `CPU_PIECE_TOKENS`, other devices at once."""
        n_contexts = max(1, CPU_PIECE_TOKENS // tokens_NT.shape[1])
        if self.device.type != "cpu" or len(tokens_NT) <= n_contexts:
            return run(tokens_NT)
        pieces = [run(piece_NT) for piece_NT in torch.split(tokens_NT, n_contexts)]
        return {hook: torch.cat([piece[hook] for piece in pieces]) for hook in pieces[0]}

    @contextmanager
    def _forward_pass(self) -> Iterator[None]:
        """No gradients; bfloat16 autocast where the run asks for it; one thread at a time."""
        with ExitStack() as stack:
            # Hooks are set on the modules themselves, so that a second thread's forward pass would run them too.
            stack.enter_context(self._one_at_a_time)
            stack.enter_context(torch.no_grad())
            # A model without storage is inspected with fake tensors, which do not go with inference mode.
            stack.enter_context(torch.inference_mode(self.device.type != "meta"))
            if self._autocast:
                stack.enter_context(torch.autocast(self.device.type, dtype=torch.bfloat16))
            yield


def _side_by_side(seen: dict[str, Tensor], hook: str) -> Tensor:
    parts = [shape_activations(seen[each]) for each in hooks_in(hook)]
    return torch.cat([part.to(parts[0].device) for part in parts], dim=-1)


class Captures:
    """The outputs seen so far; stops the forward pass once every hook has one."""

    def __init__(self, hooks: Sequence[str]) -> None:
        self._hooks = set(hooks)
        self.seen: dict[str, Tensor] = {}

    def put(self, hook: str, output: Tensor) -> None:
        """Keep the first output of a hook (a module may run more than once).

        Raises:
            StopForward: It was the last one missing.
        """
        self.seen.setdefault(hook, output)
        if len(self.seen) == len(self._hooks):
            raise StopForward
