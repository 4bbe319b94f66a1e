"""Forward passes that start at a hook: the blocks before it are not run again for every SAE that is spliced in."""

# Shape suffix legend
#   N = contexts in a forward pass, T = tokens per context
#   X = what the forward passes end in: D of the last layer where they stop before the head, else the vocabulary

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from saesweep.experiment.hook_names import split_input
from saesweep.models.base import LanguageModel, NewOutput, Splice
from saesweep.models.head import SplitHead
from saesweep.models.huggingface import HuggingFaceModel
from saesweep.specs.joint_hooks import hooks_in


class LateStart:
    """The states before the head of one batch after another, clean once and then spliced at one hook.

    The clean pass keeps what the blocks before the hook gave; spliced passes put that in their place. Used only where the
    states come out equal to the last bit, which the first batch proves; models of other libraries, hooks outside any block
    and models that fail the proof, or raise anything in it, run in full.

    Args:
        model: The language model.
        hook: Where activations are going to be replaced.
        head: Its head, which need not be split off.
        kept_bytes: Main memory for the clean passes of numbered batches, so that they run once.
    """

    def __init__(self, model: LanguageModel, hook: str, head: SplitHead, *, kept_bytes: int = 0) -> None:
        self._model = model
        self._hook = hook
        self._head = head
        # Of hooks that are read together, the blocks before the first of them.
        self._skipped = (
            min((_blocks_before(model.model, each) for each in hooks_in(hook)), key=len)
            if isinstance(model, HuggingFaceModel)
            else []
        )
        self._is_proved = not self._skipped
        self._output: Any = None
        self._kept: dict[int, tuple[Tensor, Any]] = {}
        self._kept_bytes = kept_bytes
        self.reason: str | None = None
        """What the proof found wrong; None where there was nothing to skip, or nothing wrong."""

    def clean(self, tokens_NT: Tensor, number: int | None = None) -> Tensor:
        """Run the whole model and return its states [N,T,X]; spliced passes of the same tokens may follow.

        Args:
            tokens_NT: Token ids.
            number: Which batch this is, to be remembered where memory allows; it always stands for the same tokens.
        """
        if number is not None and number in self._kept:
            kept: Tensor
            kept, self._output = _to(self._kept[number], self._model.device)
            return kept
        states_NTX = self._run_clean(tokens_NT)
        if not self._is_proved:
            self._is_proved = True
            self.reason = self._difference(tokens_NT, states_NTX)
            if self.reason is not None:
                self._skipped, self._output = [], None
        if number is not None:
            found = (states_NTX, self._output)
            size = _bytes(found)
            if size <= self._kept_bytes:
                self._kept_bytes -= size
                self._kept[number] = _to(found, torch.device("cpu"))
        return states_NTX

    def spliced(self, tokens_NT: Tensor, new: NewOutput | Sequence[NewOutput]) -> Tensor:
        """Return the states with the hook's activations replaced; `tokens_NT` are those of the last `clean`."""
        replace: Splice = (self._hook, new)
        with self._stubbed():
            return self._head.states(tokens_NT, replace=replace)

    def _run_clean(self, tokens_NT: Tensor) -> Tensor:
        if not self._skipped:
            return self._head.states(tokens_NT)

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._output = _copied(output)  # a later block may write into its input

        with self._model.exclusive():
            handle = self._skipped[-1].register_forward_hook(keep)
            try:
                return self._head.states(tokens_NT)
            finally:
                handle.remove()

    def _difference(self, tokens_NT: Tensor, states_NTX: Tensor) -> str | None:
        """Return why a pass that starts late does not give the same states; None where it does."""
        try:
            with self._stubbed():
                again_NTX = self._head.states(tokens_NT)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # later blocks may read what earlier ones left somewhere: keys, values, anything
            return f"{type(error).__name__}: {error}"
        return None if torch.equal(again_NTX, states_NTX) else "its last layer's output would differ"

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
    return _mapped(output, torch.clone)


def _to(output: Any, device: torch.device) -> Any:
    return _mapped(output, lambda tensor: tensor.to(device))


def _bytes(output: Any) -> int:
    sizes: list[int] = []
    _mapped(output, lambda tensor: (sizes.append(tensor.nbytes), tensor)[1])  # type: ignore[func-returns-value]
    return sum(sizes)


def _mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a block's output with all its tensors changed."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, tuple):
        return tuple(_mapped(item, change) for item in output)
    return output
