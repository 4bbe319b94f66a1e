"""Activations cached by SAELens: an Arrow dataset with a column [positions, width] per hook, in the order of the text.

Nothing in it is shuffled as finely as training wants, so a row of the dataset takes the place of a context and goes
through the live stream's split and window. A context is written as its row number at every position.
"""

# Shape suffix legend: N = contexts, T = positions per context, D = width at a hook

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from saesweep.activations.columns import Document
from saesweep.activations.documents import MapDocuments
from saesweep.activations.encoding import excluded_tokens
from saesweep.activations.live import LiveParts, open_live
from saesweep.activations.packing import Packing
from saesweep.activations.rows import RowFilter
from saesweep.activations.texts import Text
from saesweep.errors import UserError
from saesweep.models.base import LanguageModel, Splice
from saesweep.models.device import resolve_device

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun
    from saesweep.specs.experiment import EvaluationSpec

_PLACE = "base.cached_activations_path"
_TOKEN_IDS = "token_ids"


def is_saelens_cache(folder: Path) -> bool:
    """Return whether a folder is a dataset saved by `save_to_disk`."""
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


@dataclass(frozen=True, kw_only=True)
class SAELensCache:
    """An opened dataset."""

    dataset: Any
    d_in: dict[str, int]
    """Width at every hook that the run reads."""
    positions: int
    """Positions per row."""

    @property
    def rows(self) -> int:
        """Rows of activations."""
        return len(self.dataset) * self.positions


def read_saelens_cache(folder: Path, run: BaseRun, hooks: Sequence[str]) -> SAELensCache:
    """Open a dataset and compare it with a run, as far as it tells what it was made from.

    Raises:
        UserError: It cannot be read, or a hook, a width or the context size does not fit.
    """
    import datasets

    try:
        dataset = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"{_PLACE}: {folder} cannot be read as a SAELens cache: {error}") from error
    if isinstance(dataset, datasets.DatasetDict) or len(dataset) == 0:
        raise UserError(f"{_PLACE}: {folder} is no cache of SAELens: it has splits, or no rows")
    known = [name for name in dataset.column_names if name != _TOKEN_IDS]
    missing = [hook for hook in hooks if hook not in known]
    if missing:
        raise UserError(f"{_PLACE}: {folder} holds {', '.join(known)}; hook_name {missing[0]!r} is not among them")
    d_in = {}
    expected = len(range(run.context_size)[slice(*run.seqpos_slice)])
    for hook in hooks:
        shape = getattr(dataset.features[hook], "shape", None)
        if shape is None or len(shape) != 2:
            raise UserError(f"{_PLACE}: column {hook!r} of {folder} holds no activations [positions, width]")
        if shape[0] != expected:
            raise UserError(
                f"{_PLACE}: {folder} holds {shape[0]} positions per context, this run wants {expected} "
                f"(context_size {run.context_size}, seqpos_slice {list(run.seqpos_slice)})"
            )
        d_in[hook] = int(shape[1])
        if run.sae.d_in not in (None, d_in[hook]):
            raise UserError(f"{_PLACE}: {folder} is {d_in[hook]} wide at {hook}, sae.d_in is {run.sae.d_in}")
    return SAELensCache(dataset=dataset, d_in=d_in, positions=expected)


def open_saelens_cache(folder: Path, run: BaseRun, evaluation: EvaluationSpec, hooks: Sequence[str]) -> LiveParts:
    """Return the stream and the parts `select` and `test`.

    Raises:
        UserError: As `read_saelens_cache`, or the dataset is too small.
    """
    cache = read_saelens_cache(folder, run, hooks)
    packing = Packing(
        context_size=cache.positions, begin_token=None, separator_token=None, concatenate=True, is_tokenized=True
    )
    documents = MapDocuments(
        name=str(folder), size=len(cache.dataset), read=lambda rows: _numbered(rows, cache.positions), is_tokenized=True
    )
    return open_live(
        run,
        evaluation,
        model=_SavedActivations(cache, resolve_device(run.device)),
        d_in=cache.d_in,
        head_index=None,
        texts=[Text(documents, packing)],
        rows=_row_filter(folder, cache, run),
    )


def _numbered(rows: Sequence[int], positions: int) -> list[Document]:
    return [[int(row)] * positions for row in rows]


def _row_filter(folder: Path, cache: SAELensCache, run: BaseRun) -> RowFilter:
    # The slice was taken when the cache was written.
    if run.exclude_special_tokens is False:
        return RowFilter(context_size=cache.positions)
    if _TOKEN_IDS not in cache.dataset.column_names:
        raise UserError(
            f"base.exclude_special_tokens: {folder} holds no token ids to find special tokens by; set it to false"
        )
    tokenizer = None
    if run.exclude_special_tokens is True:
        from saesweep.models.library import locate
        from saesweep.models.pretrained import loading_kwargs, read_tokenizer

        tokenizer = read_tokenizer(locate(run), loading_kwargs(run.model_from_pretrained_kwargs))
    return _SavedTokens(context_size=cache.positions, excluded=excluded_tokens(run, tokenizer), dataset=cache.dataset)


@dataclass(frozen=True, kw_only=True)
class _SavedTokens(RowFilter):
    """Finds excluded tokens in the dataset's own token ids."""

    dataset: Any = field(repr=False)

    def mask(self, tokens_NT: Tensor) -> Tensor:
        """Return which positions count, bool [N,T]; `tokens_NT` are row numbers."""
        table = self.dataset.with_format("arrow")[tokens_NT[:, 0].tolist()]
        ids = np.asarray(table[_TOKEN_IDS].to_pylist(), dtype=np.int64)
        return super().mask(torch.from_numpy(ids))


class _SavedActivations(LanguageModel):
    """Stands where the language model stands in the stream, and reads what one gave."""

    def __init__(self, cache: SAELensCache, device: torch.device) -> None:
        super().__init__(autocast=False)
        self.tokenizer = None
        self.device = device
        self.d_vocab = 0
        self.has_lm_head = False
        self._cache = cache
        self._arrow = cache.dataset.select_columns(list(cache.d_in)).with_format("arrow")

    def hook_names(self) -> list[str]:
        """Return the hooks that are read."""
        return list(self._cache.d_in)

    def activations(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Return the saved activations [N,T,D]; `tokens_NT` are row numbers."""
        table = self._arrow[tokens_NT[:, 0].tolist()]
        found = {}
        for hook in hooks:
            shape = (len(tokens_NT), self._cache.positions, self._cache.d_in[hook])
            values = table[hook].combine_chunks()
            flat = getattr(values, "storage", values)
            while not _is_flat(flat):
                flat = flat.flatten()
            found[hook] = torch.from_numpy(np.array(flat.to_numpy(zero_copy_only=False)).reshape(shape)).to(self.device)
        return found

    def hook_shapes(self, tokens_NT: Tensor) -> dict[str, tuple[int, ...] | None]:
        """Return the shape of each hook's saved activations."""
        return {hook: (*tokens_NT.shape, width) for hook, width in self._cache.d_in.items()}

    def logits(self, tokens_NT: Tensor, *, replace: Splice | None = None) -> Tensor:
        """There are none.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("saved activations give no logits")


def _is_flat(array: Any) -> bool:
    import pyarrow  # type: ignore[import-untyped]

    return not (pyarrow.types.is_list(array.type) or pyarrow.types.is_large_list(array.type))
