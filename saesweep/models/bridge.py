"""TransformerLens models: hooks are its hook points, such as `blocks.2.hook_resid_post`.

TransformerLens 4 wraps a Hugging Face model (`TransformerBridge`) and leaves its weights as they are, so the
activations at corresponding hooks equal those of `HuggingFaceModel`.
"""

# Shape suffix legend: N = contexts, T = tokens per context

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saesweep.models.base import Captures, LanguageModel, NewOutput, Splice, StopForward, UnusableHookError, splices
from saesweep.models.shape import only_first


class BridgeModel(LanguageModel):
    """A `TransformerBridge`. Eager attention, as its hooks inside attention need: slower than `HuggingFaceModel`."""

    def __init__(
        self, bridge: Any, tokenizer: Any, *, autocast: bool = False, forward_kwargs: dict[str, Any] | None = None
    ) -> None:
        super().__init__(autocast=autocast)
        self.bridge = bridge
        self.network = bridge.original_model
        self.tokenizer = tokenizer
        self.device = torch.device(bridge.cfg.device)
        self.d_vocab = int(bridge.cfg.d_vocab)
        self.n_token_ids = len(bridge.original_model.get_input_embeddings().weight)
        self.has_lm_head = True
        self._forward_kwargs = {"use_cache": False, **(forward_kwargs or {})}

    def hook_names(self) -> list[str]:
        """Return all hook points, the classic TransformerLens names included."""
        return list(self.bridge.hook_dict)

    def _capture(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        captures = Captures(hooks)

        def capture_as(name: str) -> Any:
            # A name and its canonical form share one hook point, so the name asked for is kept here.
            return lambda output, hook: captures.put(name, output)

        try:
            with self._forward_pass(), contextlib.suppress(StopForward):
                self._run(tokens_NT, [(hook, capture_as(hook)) for hook in hooks], return_type=None)
        except ValueError as error:
            if "Cannot add hook" not in str(error):  # a hook point that TransformerLens keeps switched off
                raise
            raise UnusableHookError(str(error)) from error
        missing = sorted(set(hooks) - set(captures.seen))
        if missing:
            raise UnusableHookError(f"the forward pass never reaches {missing}")
        return captures.seen

    def logits(self, tokens_NT: Tensor, *, replace: Splice | None = None) -> Tensor:
        """Run the whole model, with outputs of hook points exchanged where `replace` says so."""
        hooks = [(hook, _exchange(only_first(new))) for hook, new in splices(replace)]
        with self._forward_pass():
            logits: Tensor = self._run(tokens_NT, hooks, return_type="logits")
            return logits

    def hook_shapes(self, tokens_NT: Tensor) -> dict[str, tuple[int, ...] | None]:
        """Run one whole forward pass and return the shape of every hook; None where it is switched off or never runs."""
        shapes: dict[str, tuple[int, ...] | None] = dict.fromkeys(self.hook_names())

        def note_as(name: str) -> Any:
            def note(output: Any, hook: Any) -> None:
                if shapes[name] is None and isinstance(output, Tensor):
                    shapes[name] = tuple(output.shape)

            return note

        with self._forward_pass():
            self._run(tokens_NT, [(name, note_as(name)) for name in self._switched_on()], return_type=None)
        return shapes

    def _switched_on(self) -> list[str]:
        """Names of the hook points that TransformerLens lets a hook be added to."""
        usable = []
        for name in self.hook_names():
            try:
                self.bridge.check_hooks_to_add(self.bridge.hook_dict[name], name, None)
            except (ValueError, AssertionError):
                continue
            usable.append(name)
        return usable

    def _run(self, tokens_NT: Tensor, fwd_hooks: list[Any], return_type: str | None) -> Any:
        return self.bridge.run_with_hooks(
            tokens_NT.to(self.device), fwd_hooks=fwd_hooks, return_type=return_type, **self._forward_kwargs
        )


def _exchange(new: NewOutput) -> Any:
    return lambda output, hook: new(output)


def build_bridge(model: Any, tokenizer: Any, name: str, dtype: torch.dtype, device: str) -> Any:
    """Wrap a loaded Hugging Face model; the bridge takes it over (the model itself must not be used any more)."""
    from transformer_lens.model_bridge import TransformerBridge

    # Given the model and the tokenizer, TransformerLens asks no network and cannot mistake a path for a repository.
    with contextlib.redirect_stdout(io.StringIO()):
        return TransformerBridge.boot_transformers(
            name, hf_model=model, tokenizer=tokenizer, dtype=dtype, device=device
        )


def hub_name(name: str) -> str:
    """Return the Hub id for a classic TransformerLens alias (`gpt2-small`), any other name as it is."""
    from transformer_lens.supported_models import get_official_model_name

    try:
        return str(get_official_model_name(name))
    except ValueError:
        return name
