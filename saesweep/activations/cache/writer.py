"""Writes a cache: the live stream's rows in the order in which it serves them, the held-out parts, and the first window."""

# Shape suffix legend: N = contexts, T = tokens per context, M = rows, D = width at a hook

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saesweep.activations.cache.manifest import (
    CONTEXTS,
    PARTS,
    SELECT,
    TEST,
    TRAIN,
    WINDOW,
    Manifest,
    Shard,
    differences,
    read_manifest,
    source_fields,
    write_manifest,
)
from saesweep.activations.cache.shards import check_shard, write_shard
from saesweep.activations.held_out import HeldOut
from saesweep.activations.open import ActivationSource, open_source
from saesweep.activations.preflight import check_source
from saesweep.activations.rows import first_rows
from saesweep.activations.stream import BatchStream
from saesweep.atomic import remove_leftovers
from saesweep.errors import UserError
from saesweep.lock import held

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun
    from saesweep.specs.experiment import EvaluationSpec

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SPARE = 1.02
"""Room asked for beyond the rows, for headers and the manifest."""


@dataclass(frozen=True)
class CacheProgress:
    """How far the training rows are."""

    tokens: int
    total_tokens: int


@dataclass(frozen=True)
class DiskNeed:
    """What the rest of the cache takes."""

    folder: Path
    needed_bytes: int
    free_bytes: int
    rows: int
    dtype: str


def write_cache(
    run: BaseRun,
    evaluation: EvaluationSpec,
    hooks: Sequence[str],
    folder: Path,
    *,
    tokens: int,
    dtype: str | None = None,
    shard_bytes: int = 256 << 20,
    on_disk_need: Callable[[DiskNeed], None] = lambda need: None,
    on_damage: Callable[[str], None] = lambda message: None,
    on_warning: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[CacheProgress], None] = lambda progress: None,
) -> Manifest:
    """Write a cache, resume one, make its damaged shards again, or make it longer.

    Whatever was interrupted, the finished files are the same, bit for bit.

    Args:
        run: The base run whose stream is written; its `use_cached_activations` is not looked at.
        evaluation: Sizes of the held-out parts.
        hooks: Hook names; all of them come from one forward pass.
        folder: Where to; made if need be.
        tokens: Training rows, rounded up to whole batches.
        dtype: `float32`, `bfloat16` or `float16`; None for the type that the model computes in.
        shard_bytes: Maximum number of bytes per training shard.
        on_disk_need: Told once, before anything is computed.
        on_damage: Told of each shard that is missing or damaged and is made again.
        on_warning: Told what the user should know about the data.
        on_progress: Told after each training shard.

    Returns:
        The finished manifest.

    Raises:
        UserError: The model or data cannot be had or do not fit each other, the folder holds something else or another cache, another process
            writes there, or the disk has too little room.
    """
    _check_folder(folder)
    live = run.model_copy(update={"use_cached_activations": False, "dtype": "float32"})
    for warning in check_source(live, evaluation, hooks, training_tokens=tokens).warnings:
        on_warning(warning)
    folder.mkdir(parents=True, exist_ok=True)
    with held(
        folder / ".lock",
        lambda holder: UserError(f"{folder}: {holder} writes this cache; wait for it or choose another folder"),
    ):
        remove_leftovers(folder)
        source = open_source(live, evaluation, hooks)
        try:
            writer = _Writer(run, evaluation, source, folder, tokens=tokens, dtype=dtype, shard_bytes=shard_bytes)
            writer.drop_damaged(on_damage)
            need = writer.disk_need()
            on_disk_need(need)
            if need.needed_bytes > need.free_bytes:
                raise UserError(
                    f"{folder}: the cache needs {need.needed_bytes / 1e9:.2f} GB more and the disk has "
                    f"{need.free_bytes / 1e9:.2f} GB free; make room, choose another disk, fewer tokens, or --dtype bfloat16"
                )
            writer.write_parts()
            writer.write_training(on_progress)
            unreadable = source.stream.unreadable_rows
            if unreadable:
                on_warning(f"{unreadable} of the dataset's rows that were read could not be used and were left out")
        finally:
            source.close()
        return writer.manifest


class _Writer:
    """One process writing one cache."""

    def __init__(
        self,
        run: BaseRun,
        evaluation: EvaluationSpec,
        source: ActivationSource,
        folder: Path,
        *,
        tokens: int,
        dtype: str | None,
        shard_bytes: int,
    ) -> None:
        self._stream: BatchStream = source.stream
        self._select, self._test = source.select, source.test
        self._folder = folder
        self._norm_rows = run.n_batches_for_norm_estimate * run.train_batch_size_tokens
        self._window_rows = min(self._norm_rows, run.window_tokens)
        self._damaged: list[Shard] = []
        self._start = source.stream.state()
        model_dtype = _model_dtype(source, list(source.stream.d_in))
        stored = dtype or (model_dtype if model_dtype in DTYPES else "float32")
        batch = run.train_batch_size_tokens
        row_bytes = sum(source.stream.d_in.values()) * DTYPES[stored].itemsize
        requested = Manifest(
            source=source_fields(run, evaluation),
            hooks=dict(source.stream.d_in),
            dtype=stored,
            model_dtype=model_dtype,
            seed=run.seed,
            batch_tokens=batch,
            shard_tokens=max(1, shard_bytes // row_bytes // batch) * batch,
            tokens=-(-tokens // batch) * batch,
            shuffle={
                "order": "as the live stream serves the rows: a keyed permutation inside a sliding window",
                "window_tokens": run.window_tokens,
                "store_batch_size_prompts": run.store_batch_size_prompts,
            },
        )
        self.manifest = self._continued(requested)

    def _continued(self, requested: Manifest) -> Manifest:
        found = read_manifest(self._folder)
        if found is None:
            return requested
        changed = differences(_fixed(found), _fixed(requested))
        if changed:
            raise UserError(
                f"{self._folder}: holds another cache; what differs:\n"
                + "\n".join(f"  {change}" for change in changed)
                + "\nundo the changes to resume it, or choose another folder with --to"
            )
        return replace(found, tokens=max(found.tokens, requested.tokens))

    def drop_damaged(self, on_damage: Callable[[str], None]) -> None:
        """Look at every finished shard; those that are not as written are made again."""
        kept: list[Shard] = []
        dropped_parts: set[str] = set()
        for shard in self.manifest.shards:
            problem = check_shard(self._folder, shard)
            if problem is None:
                kept.append(shard)
            else:
                on_damage(f"{self._folder / shard.file} {problem}; it is made again")
                dropped_parts.add(shard.part)
        self._damaged = [s for s in self.manifest.of(TRAIN) if s not in kept]
        # The small parts are made again as a whole; of the training rows only what is damaged.
        for part in dropped_parts - {TRAIN}:
            self._replace(part, [])

    def disk_need(self) -> DiskNeed:
        """Return the bytes still to be written and the bytes free."""
        rows = {SELECT: self._select.n_tokens, TEST: self._test.n_tokens, WINDOW: self._window_rows}
        missing = sum(count for part, count in rows.items() if not self.manifest.of(part))
        missing += self.manifest.tokens - self.manifest.rows(TRAIN) + sum(shard.rows for shard in self._damaged)
        row_bytes = sum(self.manifest.hooks.values()) * DTYPES[self.manifest.dtype].itemsize
        return DiskNeed(
            folder=self._folder,
            needed_bytes=int(missing * row_bytes * _SPARE),
            free_bytes=shutil.disk_usage(self._folder).free,
            rows=missing,
            dtype=self.manifest.dtype,
        )

    def write_parts(self) -> None:
        """Write everything but the training rows, where it is not there yet; the stream stands at its start."""
        contexts = {
            f"{part}_{name}": tensor
            for part, held_out in ((SELECT, self._select), (TEST, self._test))
            for name, tensor in (("tokens_NT", held_out.tokens_NT), ("mask_NT", held_out.mask_NT))
            if tensor is not None
        }
        if not self.manifest.of(CONTEXTS):
            self._finish(CONTEXTS, [write_shard(self._folder, "contexts.safetensors", CONTEXTS, contexts, rows=0)])
        for part, pieces in (
            (SELECT, _held_out_pieces(self._select, self.manifest.hooks)),
            (TEST, _held_out_pieces(self._test, self.manifest.hooks)),
            (WINDOW, first_rows(self._stream.first_window(), self._norm_rows)),
        ):
            if not self.manifest.of(part):
                self._finish(part, self._write_pieces(part, pieces))

    def write_training(self, on_progress: Callable[[CacheProgress], None]) -> None:
        """Make damaged shards again, then resume after the last one."""
        total = self.manifest.tokens
        for shard in self._damaged:
            made = self._write_training_shard(self.manifest.of(TRAIN).index(shard), shard.rows)
            if made.sha256 != shard.sha256:
                raise UserError(
                    f"{self._folder / shard.file}: made again, it is not what was written before, so the model, the data "
                    "or a library has changed since; delete the folder and write the cache anew"
                )
        on_progress(CacheProgress(self.manifest.rows(TRAIN), total))
        while (done := self.manifest.rows(TRAIN)) < total:
            shards = self.manifest.of(TRAIN)
            shard = self._write_training_shard(len(shards), min(self.manifest.shard_tokens, total - done))
            self._finish(TRAIN, [*shards, shard])
            on_progress(CacheProgress(self.manifest.rows(TRAIN), total))
        write_manifest(self._folder, self.manifest)

    def _write_training_shard(self, number: int, rows: int) -> Shard:
        before = self._start if number == 0 else self.manifest.of(TRAIN)[number - 1].stream_after
        assert before is not None
        if self._stream.state() != before:
            self._stream.load_state(before)
        buffers = self._buffers(rows)
        for start in range(0, rows, self.manifest.batch_tokens):
            for hook, rows_BD in self._stream.next_batch().items():
                buffers[hook][start : start + len(rows_BD)].copy_(rows_BD)
        return write_shard(
            self._folder, _file(TRAIN, number), TRAIN, buffers, rows=rows, stream_after=self._stream.state()
        )

    def _write_pieces(self, part: str, pieces: Iterator[Mapping[str, Tensor]]) -> list[Shard]:
        written: list[Shard] = []
        waiting: list[dict[str, Tensor]] = []

        def flush() -> None:
            tensors = {hook: torch.cat([piece[hook] for piece in waiting]) for hook in self.manifest.hooks}
            rows = sum(len(piece[next(iter(self.manifest.hooks))]) for piece in waiting)
            written.append(write_shard(self._folder, _file(part, len(written)), part, tensors, rows=rows))
            waiting.clear()

        dtype = DTYPES[self.manifest.dtype]
        for piece in pieces:
            waiting.append({hook: rows_MD.to("cpu", dtype) for hook, rows_MD in piece.items()})
            if sum(len(next(iter(p.values()))) for p in waiting) >= self.manifest.shard_tokens:
                flush()
        if waiting:
            flush()
        return written

    def _buffers(self, rows: int) -> dict[str, Tensor]:
        dtype = DTYPES[self.manifest.dtype]
        return {hook: torch.empty(rows, width, dtype=dtype) for hook, width in self.manifest.hooks.items()}

    def _replace(self, part: str, shards: Sequence[Shard]) -> None:
        others = [shard for shard in self.manifest.shards if shard.part != part]
        ordered = sorted([*others, *shards], key=lambda shard: PARTS.index(shard.part))  # stable within a part
        self.manifest = replace(self.manifest, shards=tuple(ordered))

    def _finish(self, part: str, shards: Sequence[Shard]) -> None:
        self._replace(part, shards)
        write_manifest(self._folder, self.manifest)


def _model_dtype(source: ActivationSource, hooks: Sequence[str]) -> str:
    """Return the type in which the model gives its activations, from one context."""
    if source.model is None or source.select.tokens_NT is None:
        raise UserError("base.dataset_path: builtin:synthetic is drawn as it is needed; there is nothing to cache")
    acts = source.model.activations(source.select.tokens_NT[:1], hooks)
    found = {str(rows.dtype).removeprefix("torch.") for rows in acts.values()}
    return found.pop() if len(found) == 1 else "float32"


def _held_out_pieces(part: HeldOut, hooks: Mapping[str, int]) -> Iterator[Mapping[str, Tensor]]:
    for pieces in zip(*(part.batches(hook) for hook in hooks), strict=True):
        yield dict(zip(hooks, pieces, strict=True))


def _fixed(manifest: Manifest) -> dict[str, Any]:
    """Return what must stay the same when a cache is continued."""
    data = asdict(manifest)
    source, shuffle = data.pop("source"), data.pop("shuffle")
    for name in ("tokens", "shards", "model_dtype"):
        del data[name]
    return {**source, **data, **{f"shuffle.{name}": value for name, value in shuffle.items()}}


def _file(part: str, number: int) -> str:
    return f"{part}-{number:05d}.safetensors"


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise UserError(f"{folder}: is a file; a cache must be a folder. Choose another with --to")
    if folder.is_dir() and read_manifest(folder) is None:
        # A process killed before the first manifest leaves hidden files and shards of the small parts.
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        foreign = [name for name in names if name != "contexts.safetensors"]
        if foreign:
            raise UserError(
                f"{folder}: holds other files ({foreign[0]}) and is no cache; choose an empty or new folder with --to"
            )
