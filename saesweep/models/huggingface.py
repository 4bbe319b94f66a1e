"""Hugging Face models: any module's output or input is a hook, by the module's name; blocks may be compiled (`compile_llm`).

Shape suffixes: N = contexts, T = tokens per context, V = token ids, D = width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from saesweep.experiment.hook_names import INPUT, split_input
from saesweep.models.base import Captures, LanguageModel, Splice, StopForward, UnusableHookError, splices
from saesweep.models.shape import exchange_output, first_tensor, only_first


class CompiledBlocks:
    """The blocks of a model with a compiled forward.

    Block by block, as all blocks share one compiled code, and as a forward pass must be able to end after any of them. A
    hook on a block itself stays outside of the compiled code; a block with a hook inside runs as it is.

    Args:
        model: The model; its blocks are the entries of its first `ModuleList` of several modules of one class.
        mode: Mode of `torch.compile`.
    """

    def __init__(self, model: nn.Module, mode: str | None) -> None:
        self._plain: dict[str, tuple[nn.Module, Any]] = {}
        for name, block in _blocks(model).items():
            self._plain[name] = (block, block.forward)
            block.forward = torch.compile(block.forward, mode=mode)

    @property
    def names(self) -> list[str]:
        """Names of the blocks that run compiled."""
        return list(self._plain)

    def open_for(self, modules: Iterable[str]) -> None:
        """Give the blocks that contain one of these modules their plain forward back, for good."""
        for module in modules:
            for name in [name for name in self._plain if module.startswith(f"{name}.")]:
                block, forward = self._plain.pop(name)
                block.forward = forward


def _blocks(model: nn.Module) -> dict[str, nn.Module]:
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1:
            return {f"{name}.{number}": child for number, child in enumerate(module)}
    return {}


class HuggingFaceModel(LanguageModel):
    """A model of transformers; hooks are module names such as `model.layers.2`, or `model.layers.2.mlp:input`.

    The output of a module is its tensor, or the first entry of its tuple or `ModelOutput`; its input is its
    first argument (the first keyword where it has no positional one).
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, autocast: bool = False, forward_kwargs: dict[str, Any] | None = None
    ) -> None:
        super().__init__(autocast=autocast)
        self.model = self.network = model
        self.tokenizer = tokenizer
        # With a device map the parameters lie on several devices; token ids go where the embedding is.
        embedding_VD = model.get_input_embeddings().weight  # type: ignore[operator]
        self.device = embedding_VD.device
        self.n_token_ids = len(embedding_VD)
        self.has_lm_head = predicts_next_token(model)
        self.d_vocab = int(model.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]
        self._modules = {name: module for name, module in model.named_modules() if name}
        # Encoders have no key-value cache, and some of them refuse the argument.
        takes_cache = "use_cache" in inspect.signature(model.forward).parameters
        self._compiled: CompiledBlocks | None = None
        self._forward_kwargs = {**({"use_cache": False} if takes_cache else {}), **(forward_kwargs or {})}

    def compile(self, mode: str | None) -> None:
        """Compile the blocks (at their first run), in a mode of `torch.compile`."""
        self._compiled = CompiledBlocks(self.model, mode)

    def hook_names(self) -> list[str]:
        """Return the names of all modules (their outputs), in module order, then `NAME:input` for each of them."""
        return [*self._modules, *(f"{name}{INPUT}" for name in self._modules)]

    def _capture(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        captures = Captures(hooks)
        with ExitStack() as stack:
            stack.enter_context(self._forward_pass())
            for hook in hooks:
                stack.callback(self._observe(hook, captures).remove)
            try:
                self._run(tokens_NT)
            except StopForward:
                return captures.seen
        missing = sorted(set(hooks) - set(captures.seen))
        raise UnusableHookError(f"the forward pass of {type(self.model).__name__} never reaches {missing}")

    def logits(self, tokens_NT: Tensor, *, replace: Splice | None = None) -> Tensor:
        """Run the whole model, with outputs of modules exchanged where `replace` says so."""
        with ExitStack() as stack:
            stack.enter_context(self._forward_pass())
            for hook, new_output in splices(replace):
                stack.callback(self._exchange(hook, new_output).remove)
            logits: Tensor = self._run(tokens_NT).logits
            return logits

    def hook_shapes(self, tokens_NT: Tensor) -> dict[str, tuple[int, ...] | None]:
        """Run one whole forward pass and return the shape of every hook, None where it holds no tensor or never ran."""
        shapes: dict[str, tuple[int, ...] | None] = dict.fromkeys(self.hook_names())
        with ExitStack() as stack:
            stack.enter_context(self._forward_pass())
            for hook in shapes:
                stack.callback(self._observe(hook, _ShapeNotes(shapes)).remove)
            self._run(tokens_NT)
        return shapes

    def _observe(self, hook: str, sink: Captures | _ShapeNotes) -> RemovableHandle:
        name, is_input = split_input(hook)
        module = self._module(name)

        def put(found: Any) -> None:
            tensor = first_tensor(found)
            if tensor is not None:
                sink.put(hook, tensor)
            elif isinstance(sink, Captures):
                raise UnusableHookError(f"{hook!r} gives a {type(found).__name__} without a tensor")

        handle: RemovableHandle
        if is_input:
            handle = module.register_forward_pre_hook(
                lambda _module, args, kwargs: put((*args, *kwargs.values())), with_kwargs=True
            )
        else:
            handle = module.register_forward_hook(lambda _module, _args, output: put(output))
        return handle

    def _exchange(self, hook: str, new_output: Callable[[Tensor], Tensor]) -> RemovableHandle:
        name, is_input = split_input(hook)
        module, new = self._module(name), only_first(new_output)
        handle: RemovableHandle
        if is_input:
            handle = module.register_forward_pre_hook(_exchange_input(new), with_kwargs=True)
        else:
            handle = module.register_forward_hook(lambda _module, _args, output: exchange_output(new, output))
        return handle

    def _module(self, name: str) -> nn.Module:
        if self._compiled is not None:
            self._compiled.open_for([name])
        module: nn.Module = self._modules[name]
        return module

    def _run(self, tokens_NT: Tensor) -> Any:
        return self.model(tokens_NT.to(self.device), **self._forward_kwargs)


class _ShapeNotes:
    """Notes the shape of the first tensor at each hook."""

    def __init__(self, shapes: dict[str, tuple[int, ...] | None]) -> None:
        self._shapes = shapes

    def put(self, hook: str, tensor: Tensor) -> None:
        if self._shapes[hook] is None:
            self._shapes[hook] = tuple(tensor.shape)


def predicts_next_token(model: nn.Module) -> bool:
    """Return whether the model's logits are next-token predictions: not so for encoders and bare bodies."""
    from transformers.models.auto import modeling_auto

    if model.get_output_embeddings() is None:  # type: ignore[operator]
        return False
    name, config = type(model).__name__, model.config
    causal = {str(found) for found in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
    if name not in causal and not name.endswith("ForCausalLM"):
        return False
    # BERT has a causal class too, which looks both ways unless it is configured as a decoder.
    is_encoder = config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES  # type: ignore[union-attr]
    return not is_encoder or bool(getattr(config, "is_decoder", False))


def _exchange_input(new: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Any], Any]:
    def exchange(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (new(args[0]), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, {**kwargs, first: new(kwargs[first])}

    return exchange
