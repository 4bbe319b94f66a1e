"""`saesweep.pretokenize`: a dataset tokenised and packed, saved as both saesweep and SAELens read it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saesweep.activations.cache.manifest import differences
from saesweep.activations.keys import key_permutation
from saesweep.activations.pretokenize.metadata import (
    SAELENS_FILE,
    SAESWEEP_FILE,
    content_fields,
    saelens_metadata,
    upload,
    vocabulary_sha256,
)
from saesweep.activations.pretokenize.parts import Part, finished_parts, write_part
from saesweep.activations.pretokenize.rows import Cells, Tokens, open_cells, packed_batches, read_tokenizer
from saesweep.atomic import remove_leftovers, write_json
from saesweep.errors import UserError
from saesweep.lock import held
from saesweep.specs.pretokenize import PretokenizeSpec

PART_TOKENS = 8_000_000
"""Tokens between two moments from which an interrupted run resumes."""
_FILE_BYTES = 500_000_000
"""Maximum number of bytes per file of the result, as `save_to_disk` has it."""


@dataclass(frozen=True)
class PretokenizeProgress:
    """How far a dataset is."""

    documents: int
    total_documents: int | None
    tokens: int


@dataclass(frozen=True)
class Pretokenized:
    """A finished dataset."""

    path: Path
    rows: int
    tokens: int
    documents: int
    skipped: int
    """Documents that could not be used: empty, or unreadable."""
    notes: tuple[str, ...] = ()
    """What to know about how the dataset was opened."""


def pretokenize(
    spec: PretokenizeSpec,
    *,
    on_progress: Callable[[PretokenizeProgress], None] = lambda progress: None,
    part_tokens: int | None = None,
) -> Pretokenized:
    """Write a pre-tokenised dataset, or resume one; the result is the same however often it was interrupted.

    Args:
        spec: What to do.
        on_progress: Told after each batch of documents.
        part_tokens: Tokens between two moments from which an interrupted run resumes; `PART_TOKENS` when left out.

    Raises:
        UserError: A field, the dataset or the tokenizer has a mistake, the folder holds something else, or the disk is
            full.
    """
    problems = spec.problems()
    if problems:
        raise UserError("\n".join(f"{field}: {message}" for field, message in problems))
    target = Path(spec.save_path).expanduser()
    done = _finished(target, spec)
    if done is None:
        work = target.with_name(f".{target.name}.partial")
        work.mkdir(parents=True, exist_ok=True)
        with held(
            work / ".lock",
            lambda holder: UserError(f"save_path: {holder} writes {work}; wait for it or choose another folder"),
        ):
            remove_leftovers(work)
            seed = _continue(work, spec)
            tokenizer = read_tokenizer(spec)
            cells = open_cells(spec)
            parts = _write_parts(work, spec, cells, tokenizer, on_progress, part_tokens or PART_TOKENS)
            done = replace(_assemble(target, work, spec, seed, tokenizer, parts), notes=cells.notes)
        shutil.rmtree(work)
    if spec.hf_repo_id is not None:
        upload(spec, target)
    return done


def _finished(target: Path, spec: PretokenizeSpec) -> Pretokenized | None:
    """Return what an earlier run left, None where there is nothing.

    Raises:
        UserError: The folder holds something else.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    file = target / SAESWEEP_FILE
    if not file.is_file():
        raise UserError(f"save_path: {target} holds other files; choose an empty or new folder")
    data = json.loads(file.read_text())
    _same(target, data, spec)
    return Pretokenized(target, data["rows"], data["rows"] * spec.context_size, data["documents"], data["skipped"])


def _continue(work: Path, spec: PretokenizeSpec) -> int:
    """Note what is being made, or check that it is the same; return the seed of the shuffle."""
    file = work / "spec.json"
    if file.is_file():
        data = json.loads(file.read_text())
        _same(work, data, spec)
        return int(data["seed"])
    seed = secrets.randbits(31) if spec.seed is None else spec.seed
    write_json(file, {"fields": content_fields(spec), "seed": seed})
    return seed


def _same(folder: Path, data: dict[str, Any], spec: PretokenizeSpec) -> None:
    seed = {"seed": data["seed"] if spec.seed is None else spec.seed}
    changed = differences({**data["fields"], "seed": data["seed"]}, {**content_fields(spec), **seed})
    if changed:
        raise UserError(
            f"save_path: {folder} was begun with other settings; what differs:\n"
            + "\n".join(f"  {change}" for change in changed)
            .replace(" in the cache", " there")
            .replace("this run", "this call")
            + "\ndelete it, or choose another save_path"
        )


def _write_parts(
    work: Path,
    spec: PretokenizeSpec,
    cells: Cells,
    tokenizer: Any,
    on_progress: Callable[[PretokenizeProgress], None],
    part_tokens: int,
) -> list[Part]:
    parts = finished_parts(work)
    first = stop = parts[-1].stop if parts else 0
    rows: list[Tokens] = []
    skipped, n_rows = 0, sum(part.rows for part in parts)
    on_progress(PretokenizeProgress(stop, cells.size, n_rows * spec.context_size))
    for batch in packed_batches(spec, tokenizer, cells.iterate(stop)):
        stop += batch.documents
        skipped += batch.skipped
        n_rows += len(batch.rows_NT)
        rows.append(batch.rows_NT)
        if sum(piece.size for piece in rows) >= part_tokens:
            parts.append(write_part(work, first, stop, rows, skipped))
            first, rows, skipped = stop, [], 0
        on_progress(PretokenizeProgress(stop, cells.size, n_rows * spec.context_size))
    if rows:
        parts.append(write_part(work, first, stop, rows, skipped))
    if not n_rows:
        raise UserError(
            f"context_size: {stop} documents of {spec.dataset_path} do not fill one row of {spec.context_size} tokens; "
            "lower context_size, or raise pretokenize_batch_size (documents are packed together within a batch)"
        )
    return parts


def _assemble(
    target: Path, work: Path, spec: PretokenizeSpec, seed: int, tokenizer: Any, parts: list[Part]
) -> Pretokenized:
    """Join the parts, shuffle the rows, and give the finished folder its name."""
    import datasets

    fields = content_fields(spec)
    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    tmp = work / "result"
    shutil.rmtree(tmp, ignore_errors=True)
    try:
        dataset = datasets.concatenate_datasets([datasets.Dataset.from_file(str(part.path)) for part in parts])
        n_rows = len(dataset)
        order = key_permutation(n_rows, seed, "pretokenize") if spec.shuffle else range(n_rows)
        # A fingerprint of our own: the library's depends on the parts' paths.
        fingerprint = vocabulary_sha256(tokenizer)[:8] + f"{seed:08x}"[-8:]
        shuffled = dataset.select(order, keep_in_memory=True, new_fingerprint=fingerprint)
        files = max(1, -(-n_rows * spec.context_size * 4 // _FILE_BYTES))
        shuffled.save_to_disk(str(tmp), num_shards=files)
    except OSError as error:
        shutil.rmtree(tmp, ignore_errors=True)
        raise UserError(
            f"{target}: cannot be written ({error}). Nothing tokenised is lost: make room and run the same command again"
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    documents, skipped = parts[-1].stop, sum(part.skipped for part in parts)
    write_json(tmp / SAELENS_FILE, saelens_metadata(spec, seed))
    write_json(
        tmp / SAESWEEP_FILE,
        {
            "fields": fields,
            "seed": seed,
            "tokenizer_sha256": vocabulary_sha256(tokenizer),
            "rows": n_rows,
            "documents": documents,
            "skipped": skipped,
        },
    )
    if target.exists():
        target.rmdir()  # empty, as checked
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(tmp, target)
    return Pretokenized(target, n_rows, n_rows * spec.context_size, documents, skipped)
