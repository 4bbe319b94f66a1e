"""Forward passes that start at a hook: the blocks before it are not run again for every SAE that is spliced in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from saesweep.models.base import LanguageModel, Splice
from saesweep.models.hook_names import split_input
from saesweep.models.huggingface import HuggingFaceModel


class LateStart:
    """Logits of one batch after another, clean once and then spliced at one hook.

    The clean pass keeps what the blocks before the hook gave; spliced passes put that in their place. Used only where the
    logits come out equal to the last bit, which the first batch proves; models of other libraries, hooks outside any block
    and models that fail the proof run in full.

    Args:
        model: The language model.
        hook: Where activations are going to be replaced.
    """

    def __init__(self, model: LanguageModel, hook: str) -> None:
        self._model = model
        self._hook = hook
        self._skipped = _blocks_before(model.model, hook) if isinstance(model, HuggingFaceModel) else []
        self._is_proved = False
        self._output: Any = None

    @property
    def skips(self) -> int:
        """Blocks that spliced passes leave out; known for certain after the first `clean`."""
        return len(self._skipped)

    def clean(self, tokens_NT: Tensor) -> Tensor:
        """Run the whole model and return its logits [N,T,V]; spliced passes of the same tokens may follow."""
        if not self._skipped:
            return self._model.logits(tokens_NT)

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._output = output

        with self._model.exclusive():
            handle = self._skipped[-1].register_forward_hook(keep)
            try:
                logits = self._model.logits(tokens_NT)
            finally:
                handle.remove()
        if not self._is_proved:
            self._is_proved = True
            with self._stubbed():
                again = self._model.logits(tokens_NT)
            if not torch.equal(again, logits):
                self._skipped = []
        return logits

    def spliced(self, tokens_NT: Tensor, new: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the logits with the hook's activations replaced; `tokens_NT` are those of the last `clean`."""
        replace: Splice = (self._hook, new)
        with self._stubbed():
            return self._model.logits(tokens_NT, replace=replace)

    @contextmanager
    def _stubbed(self) -> Iterator[None]:
        """Let every skipped block return what the last of them gave in the clean pass."""
        with ExitStack() as stack:
            if self._skipped:
                stack.enter_context(self._model.exclusive())
                output = _copied(self._output)  # a block may write into its input
                for block in self._skipped:
                    block.forward = lambda *_args, **_kwargs: output
                    stack.callback(block.__dict__.pop, "forward")
            yield


def _blocks_before(model: nn.Module, hook: str) -> list[nn.Module]:
    """Return the blocks that need not run again: those before the hook's block, and that one where the hook is its output.

    None where the hook is in no list of blocks, or a block's `forward` is wrapped already (by accelerate's device map).
    """
    name, is_input = split_input(hook)
    for match in re.finditer(r"\.(\d+)(?=\.|$)", name):
        blocks = model.get_submodule(name[: match.start()])
        if isinstance(blocks, nn.ModuleList):
            is_whole_block = match.end() == len(name) and not is_input
            found = list(blocks)[: int(match.group(1)) + is_whole_block]
            return [] if any("forward" in vars(block) for block in found) else found
    return []


def _copied(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.clone()
    if isinstance(output, tuple):
        return tuple(_copied(item) for item in output)
    return output
