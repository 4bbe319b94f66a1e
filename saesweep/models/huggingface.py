"""Hugging Face models: any module's output is a hook, by the module's name."""

# Shape suffix legend: N = contexts, T = tokens per context

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from saesweep.models.base import Captures, LanguageModel, Splice, StopForward, UnusableHookError


class HuggingFaceModel(LanguageModel):
    """A causal language model of transformers; hooks are module names such as `model.layers.2`.

    The output of a module is its tensor, or the first entry of its tuple or `ModelOutput`.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, autocast: bool = False, forward_kwargs: dict[str, Any] | None = None
    ) -> None:
        super().__init__(autocast=autocast)
        self.model = model
        self.tokenizer = tokenizer
        # With a device map the parameters lie on several devices; token ids go where the embedding is.
        self.device = model.get_input_embeddings().weight.device  # type: ignore[operator]
        head = model.get_output_embeddings()  # type: ignore[operator]
        self.has_lm_head = head is not None
        self.d_vocab = int(model.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]
        self._modules = {name: module for name, module in model.named_modules() if name}
        self._forward_kwargs = {"use_cache": False, **(forward_kwargs or {})}

    def hook_names(self) -> list[str]:
        """Return the names of all modules, in module order."""
        return list(self._modules)

    def activations(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Run one forward pass that ends at the last hook to fire."""
        captures = Captures(hooks)
        with ExitStack() as stack:
            stack.enter_context(self._forward_pass())
            for hook in hooks:
                handle = self._modules[hook].register_forward_hook(_capture(captures, hook))
                stack.callback(handle.remove)
            try:
                self._run(tokens_NT)
            except StopForward:
                return captures.seen
        missing = sorted(set(hooks) - set(captures.seen))
        raise UnusableHookError(f"the forward pass of {type(self.model).__name__} never reaches {missing}")

    def logits(self, tokens_NT: Tensor, *, replace: Splice | None = None) -> Tensor:
        """Run the whole model, with the output of one module exchanged where `replace` says so."""
        with ExitStack() as stack:
            stack.enter_context(self._forward_pass())
            if replace is not None:
                hook, new_output = replace
                handle = self._modules[hook].register_forward_hook(_splice(new_output))
                stack.callback(handle.remove)
            logits: Tensor = self._run(tokens_NT).logits
            return logits

    def _run(self, tokens_NT: Tensor) -> Any:
        return self.model(tokens_NT.to(self.device), **self._forward_kwargs)


def first_tensor(output: Any) -> Tensor | None:
    """Return the tensor that a module's output stands for, None where it holds none."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):  # transformers' ModelOutput
        output = tuple(output.values())
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def _capture(captures: Captures, hook: str) -> Callable[[nn.Module, Any, Any], None]:
    def put(_module: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is None:
            raise UnusableHookError(f"{hook!r} gives a {type(output).__name__} without a tensor")
        captures.put(hook, tensor)

    return put


def _splice(new_output: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Any], Any]:
    def exchange(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return new_output(output)
        if isinstance(output, dict):
            first = next(iter(output))
            return type(output)(**{**output, first: new_output(output[first])})
        return type(output)((new_output(output[0]), *output[1:]))

    return exchange
