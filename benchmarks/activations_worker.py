"""One subject of `activations.py`, in its own process and environment: commands on stdin, answers in JSON lines.

Usage: python activations_worker.py saesweep|saelens SETUP_JSON. Then per line `collect N` (serve N batches of the model's
activations), `shuffle N` (serve N batches of rows that cost nothing to compute) or `quit`.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

HOOK = "model.layers.2"
Serve = Callable[[], Tensor]


def saesweep(setup: dict[str, Any]) -> tuple[Serve, Serve]:
    """The stream that a sweep trains from, and the same stream over a model that costs nothing."""
    from saesweep.activations import ActivationStream, open_source
    from saesweep.activations.documents import MapDocuments
    from saesweep.activations.packing import Packing
    from saesweep.activations.rows import RowFilter
    from saesweep.activations.split import TrainDocuments
    from saesweep.activations.tokens import TokenSource
    from saesweep.models import LanguageModel
    from saesweep.specs import BaseRun
    from saesweep.specs.experiment import EvaluationSpec

    class Free(LanguageModel):
        def __init__(self) -> None:
            super().__init__(autocast=False)
            self.device = torch.device("cpu")
            shape = (setup["contexts"], setup["context_size"], setup["d_in"])
            self.acts_NTD = torch.randn(shape)

        def hook_names(self) -> list[str]:
            return [HOOK]

        def hook_shapes(self, tokens_NT: Tensor) -> dict[str, tuple[int, ...] | None]:
            raise NotImplementedError

        def activations(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
            return {HOOK: self.acts_NTD[: len(tokens_NT)]}

        def logits(self, tokens_NT: Tensor, **_: Any) -> Tensor:
            raise NotImplementedError

    run = BaseRun.model_validate(
        {
            "model_name": setup["model"],
            "hook_name": HOOK,
            "dataset_path": setup["dataset"],
            "streaming": False,
            "context_size": setup["context_size"],
            "store_batch_size_prompts": setup["contexts"],
            "train_batch_size_tokens": setup["batch"],
            "buffer_tokens": setup["buffer"],
            "prefetch_llm_batches": setup["prefetch"],
            "device": "cpu",
            "sae": {"architecture": "topk"},
        }
    )
    source = open_source(run, EvaluationSpec(select_tokens=1024, test_tokens=1024), [HOOK])
    size = setup["context_size"]
    tokens = MapDocuments(name="zeros", size=100_000, read=lambda found: [[0] * size for _ in found], is_tokenized=True)
    packing = Packing(context_size=size, begin_token=None, separator_token=None, concatenate=True, is_tokenized=True)
    free = ActivationStream(
        model=Free(),
        d_in={HOOK: setup["d_in"]},
        head_index=None,
        source=TokenSource(TrainDocuments(tokens, 0, 0), None, packing),
        rows=RowFilter(context_size=size),
        window_tokens=setup["buffer"],
        batch_tokens=setup["batch"],
        forward_contexts=setup["contexts"],
        seed=0,
        dtype=torch.float32,
        device=torch.device("cpu"),
        store_device=torch.device("cpu"),
    )
    assert source.model is not None
    # The model's own working memory is no part of the buffer's.
    source.model.activations(torch.ones(setup["contexts"], size, dtype=torch.long), [HOOK])
    return lambda: source.stream.next_batch()[HOOK], lambda: free.next_batch()[HOOK]


def saelens(setup: dict[str, Any]) -> tuple[Serve, Serve]:
    """SAELens' ActivationsStore, and its mixing buffer over rows that cost nothing."""
    import datasets
    from sae_lens.load_model import load_model
    from sae_lens.training.activations_store import ActivationsStore
    from sae_lens.training.mixing_buffer import mixing_buffer

    model = load_model("AutoModelForCausalLM", setup["model"], device="cpu", hook_names=[HOOK])
    store = ActivationsStore(
        model=model,
        dataset=datasets.load_dataset("json", data_files=setup["dataset"], split="train"),
        streaming=False,
        hook_name=HOOK,
        hook_head_index=None,
        context_size=setup["context_size"],
        d_in=setup["d_in"],
        n_batches_in_buffer=setup["buffer"] // setup["context_size"],
        total_training_tokens=1,
        store_batch_size_prompts=setup["contexts"],
        train_batch_size_tokens=setup["batch"],
        prepend_bos=True,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype="float32",
    )
    store.get_activations(torch.ones(setup["contexts"], setup["context_size"], dtype=torch.long))  # as above
    rows_MD = torch.randn(setup["contexts"] * setup["context_size"], setup["d_in"])

    def forever() -> Iterator[Tensor]:
        while True:
            yield rows_MD

    mixed = mixing_buffer(setup["buffer"], setup["batch"], forever())
    return store.next_batch, lambda: next(mixed)


class RowsCopied(TorchDispatchMode):
    """Counts the rows of width d_in that operations write to new or other memory."""

    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.d_in = d_in
        self.rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "index_copy_":
            self.rows += args[2].numel()
        elif name in ("cat", "index", "index_select", "clone", "_to_copy"):
            is_rows = isinstance(found, Tensor) and found.ndim > 1 and found.shape[-1] == self.d_in
            self.rows += found.numel() // self.d_in if is_rows else 0
        return found


def main() -> None:
    """Serve commands until `quit`."""
    subject, setup = sys.argv[1], json.loads(sys.argv[2])
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # libraries print
        collect, shuffle = {"saesweep": saesweep, "saelens": saelens}[subject](setup)
        before = _peak_bytes()  # the model has run once
        collect()  # fills the buffer
        filled = _peak_bytes() - before
        shuffle()
        with RowsCopied(setup["d_in"]) as copied:
            n_counted = 4 * setup["buffer"] // setup["batch"]
            for _ in range(n_counted):
                shuffle()
        about = {
            "peak_over_buffer": filled / (setup["buffer"] * setup["d_in"] * 4),
            "rows_copied_per_row": copied.rows / (n_counted * setup["batch"]),
        }
        print(json.dumps(about), file=answers, flush=True)
        for line in sys.stdin:
            command, *count = line.split()
            if command == "quit":
                return
            serve = {"collect": collect, "shuffle": shuffle}[command]
            cpu, started = time.process_time(), time.perf_counter()
            for _ in range(int(count[0])):
                rows = serve()
                assert rows.shape == (setup["batch"], setup["d_in"])
            seconds = time.perf_counter() - started
            print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu}), file=answers, flush=True)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
