"""How well the shuffle window mixes, against the ideal and against a full shuffle of a buffer of the same memory.

    python benchmarks/shuffle.py
    python benchmarks/shuffle.py --buffer-tokens 1M --context-size 1024
    python benchmarks/shuffle.py --pairs                        # with base.neighbour_pairs

Counts the pairs of rows within a batch that come from the same context. The ideal is a shuffle of the whole dataset; a
buffer that is filled, shuffled and served whole is the textbook way to spend the same memory. No model and no text are
needed: rows hold the number of their context. Prints one JSON line per window.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from saesweep.activations.documents import MapDocuments
from saesweep.activations.packing import Packing
from saesweep.activations.rows import RowFilter
from saesweep.activations.split import TrainDocuments
from saesweep.activations.stream import ActivationStream
from saesweep.activations.tokens import TokenSource
from saesweep.models.base import LanguageModel, Splice
from saesweep.specs.units import parse_count

HOOK = "context"


class ContextNumbers(LanguageModel):
    """Its activations are the token ids, which are the number of the context."""

    def __init__(self) -> None:
        super().__init__(autocast=False)
        self.tokenizer: Any = None
        self.device = torch.device("cpu")
        self.d_vocab = 1
        self.has_lm_head = False

    def hook_names(self) -> list[str]:
        """Return the one hook."""
        return [HOOK]

    def activations(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Return the token ids, one wide."""
        return {HOOK: tokens_NT.to(torch.float64)[..., None]}

    def hook_shapes(self, tokens_NT: Tensor) -> dict[str, tuple[int, ...] | None]:
        """Not needed here."""
        raise NotImplementedError

    def logits(self, tokens_NT: Tensor, *, replace: Splice | None = None) -> Tensor:
        """Not needed here."""
        raise NotImplementedError


def measure(buffer_tokens: int, context_size: int, batch: int, batches: int, pairs: bool) -> dict[str, float]:
    """Return the shares of same-context pairs for one window."""
    n_contexts = 2 * buffer_tokens // context_size + batches * batch // context_size
    documents = MapDocuments(
        name="numbers",
        size=n_contexts,
        read=lambda found: [[number] * context_size for number in found],
        is_tokenized=True,
    )
    packing = Packing(
        context_size=context_size, begin_token=None, separator_token=None, concatenate=True, is_tokenized=True
    )
    stream = ActivationStream(
        model=ContextNumbers(),
        d_in={HOOK: 1},
        head_index=None,
        source=TokenSource(TrainDocuments(documents, 0, 0), None, packing),
        rows=RowFilter(context_size=context_size),
        window_tokens=buffer_tokens,
        batch_tokens=batch,
        forward_contexts=32,
        seed=0,
        dtype=torch.float64,
        device=torch.device("cpu"),
        store_device=torch.device("cpu"),
        pairs=pairs,
    )
    for _ in range(buffer_tokens // batch):  # past the start
        stream.next_batch()
    same = 0
    for _ in range(batches):
        counts = np.unique(stream.next_batch()[HOOK].numpy(), return_counts=True)[1]
        same += int((counts * (counts - 1) // 2).sum())
    rows = stream.window_nbytes // 8
    stream.close()
    share = same / (batches * batch * (batch - 1) // 2)
    ideal = (context_size - 1) / (n_contexts * context_size - 1)
    full = (context_size - 1) / (buffer_tokens - 1)
    return {
        "buffer_tokens": buffer_tokens,
        "rows_in_memory": rows,
        "share_of_same_context_pairs": share,
        "full_shuffle_of_such_a_buffer": full,
        "ideal_shuffle_of_all_data": ideal,
        "against_full_shuffle": share / full,
    }


def main() -> int:
    """Measure the windows asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--buffer-tokens", nargs="+", default=["32768", "262144", "1048576"], metavar="N")
    parser.add_argument("--context-size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--pairs", action="store_true", help="neighbouring tokens stay together")
    args = parser.parse_args()
    for text in args.buffer_tokens:
        found = measure(parse_count(text), args.context_size, args.batch, args.batches, args.pairs)
        print(json.dumps({name: float(f"{value:.4g}") for name, value in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
