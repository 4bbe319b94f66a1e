"""From a run with `use_cached_activations` to its activations: checked against the run, without a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from saesweep.activations.cache.hub import download_cache, is_repo_id
from saesweep.activations.cache.manifest import (
    CONTEXTS,
    SELECT,
    TEST,
    TRAIN,
    WINDOW,
    Manifest,
    differences,
    read_manifest,
    source_fields,
)
from saesweep.activations.cache.read import CachedHeldOut, CachedStream
from saesweep.activations.cache.saelens import is_saelens_cache, open_saelens_cache, read_saelens_cache
from saesweep.activations.cache.shards import ShardRows, check_shard
from saesweep.errors import UserError
from saesweep.models.device import resolve_device

if TYPE_CHECKING:
    from saesweep.activations.held_out import HeldOut
    from saesweep.activations.stream import BatchStream
    from saesweep.specs.base_run import BaseRun
    from saesweep.specs.experiment import EvaluationSpec

PLACE = "base.cached_activations_path"


@dataclass(frozen=True, kw_only=True)
class CacheFacts:
    """What is known about a cache before training."""

    d_in: dict[str, int]
    """Width at every hook that the run reads."""
    tokens: int
    """Rows to train on."""
    warnings: tuple[str, ...]
    """What the user should know, and may well want."""


@dataclass(frozen=True, kw_only=True)
class CachedParts:
    """What training and evaluation read."""

    stream: BatchStream
    select: HeldOut
    test: HeldOut
    has_tokens: bool
    """Whether the held-out parts have their token ids, to measure cross-entropy with."""


def check_cache(run: BaseRun, evaluation: EvaluationSpec, hooks: Sequence[str], *, training_tokens: int) -> CacheFacts:
    """Compare a run with its cache; nothing but the manifest is read.

    Raises:
        UserError: There is no cache, it is not finished, or it was made from other data; the message says what differs.
    """
    folder = cache_folder(run)
    if is_saelens_cache(folder):
        return _check_saelens(folder, run, evaluation, hooks, training_tokens)
    manifest = _matching(folder, run, evaluation, hooks)
    tokens = manifest.rows(TRAIN)
    warnings = _epochs(folder, tokens, training_tokens)
    if manifest.is_lossy:
        warnings.append(f"{PLACE}: the rows were rounded from {manifest.model_dtype} to {manifest.dtype}")
    if manifest.seed != run.seed:
        warnings.append(
            f"base.seed: the cache's data order was made with seed {manifest.seed}; {run.seed} seeds the SAEs alone"
        )
    return CacheFacts(d_in={hook: manifest.hooks[hook] for hook in hooks}, tokens=tokens, warnings=tuple(warnings))


def open_cache(run: BaseRun, evaluation: EvaluationSpec, hooks: Sequence[str]) -> CachedParts:
    """Open the cache of a run.

    Raises:
        UserError: As `check_cache`, or the file of held-out tokens is damaged.
    """
    folder = cache_folder(run)
    if is_saelens_cache(folder):
        live = open_saelens_cache(folder, run, evaluation, hooks)
        return CachedParts(stream=live.stream, select=live.select, test=live.test, has_tokens=False)
    manifest = _matching(folder, run, evaluation, hooks)
    device = resolve_device(run.device)
    d_in = {hook: manifest.hooks[hook] for hook in hooks}
    contexts = manifest.of(CONTEXTS)[0]
    problem = check_shard(folder, contexts)
    if problem is not None:
        raise UserError(
            f"{folder / contexts.file}: the shard {problem}; run the `saesweep cache-activations` command that wrote it "
            "again, which makes it anew"
        )
    tokens = load_file(folder / contexts.file)

    def rows(part: str) -> ShardRows:
        return ShardRows(folder, manifest.of(part), manifest.hooks)

    def held_out(part: str) -> CachedHeldOut:
        return CachedHeldOut(
            rows=rows(part),
            tokens_NT=tokens[f"{part}_tokens_NT"],
            mask_NT=tokens[f"{part}_mask_NT"],
            forward_contexts=run.eval_batch_size_prompts or run.store_batch_size_prompts,
            batch_tokens=run.train_batch_size_tokens,
            device=device,
        )

    cached = CachedStream(
        train=rows(TRAIN),
        window=rows(WINDOW),
        d_in=d_in,
        batch_tokens=run.train_batch_size_tokens,
        seed=manifest.seed,
        dtype=getattr(torch, run.dtype),
        device=device,
        name=str(folder),
    )
    return CachedParts(stream=cached, select=held_out(SELECT), test=held_out(TEST), has_tokens=True)


def _check_saelens(
    folder: Path, run: BaseRun, evaluation: EvaluationSpec, hooks: Sequence[str], training_tokens: int
) -> CacheFacts:
    cache = read_saelens_cache(folder, run, hooks)
    if evaluation.dataset is not None:
        raise UserError(f"evaluation.dataset: {folder} was cached by SAELens, and its rows are held out; leave it out")
    held_out = evaluation.select_tokens + evaluation.test_tokens
    if cache.rows <= held_out:
        raise UserError(
            f"evaluation: {folder} holds {cache.rows} rows, not more than select_tokens ({evaluation.select_tokens}) and "
            f"test_tokens ({evaluation.test_tokens}) together, and training needs the rest; lower them"
        )
    tokens = cache.rows - held_out
    warnings = (
        f"{PLACE}: {folder} was cached by SAELens, which does not note its model and text: make sure that they are "
        f"{run.model_name} and the text you mean",
        *_epochs(folder, tokens, training_tokens),
    )
    return CacheFacts(d_in=cache.d_in, tokens=tokens, warnings=warnings)


def _epochs(folder: Path, tokens: int, training_tokens: int) -> list[str]:
    if tokens >= training_tokens:
        return []
    return [
        f"{PLACE}: {folder} holds {tokens} rows to train on, so {training_tokens} training tokens take "
        f"{training_tokens / tokens:.1f} epochs; later ones take them in another order"
    ]


def cache_folder(run: BaseRun) -> Path:
    """Return the folder of a run's cache, downloaded where the path is no folder and can be a Hub id.

    Raises:
        UserError: It does not exist.
    """
    path = run.cached_activations_path or ""
    folder = Path(path).expanduser()
    if not folder.exists() and is_repo_id(path):
        return download_cache(path)
    if not folder.is_dir():
        raise UserError(
            f"{PLACE}: the folder {run.cached_activations_path!r} does not exist; make it with `saesweep cache-activations`"
        )
    return folder


def _matching(folder: Path, run: BaseRun, evaluation: EvaluationSpec, hooks: Sequence[str]) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{PLACE}: {folder} holds no cache of activations (no manifest.json)")
    if not manifest.is_complete:
        raise UserError(
            f"{PLACE}: {folder} is not finished ({manifest.rows(TRAIN)} of {manifest.tokens} rows); run the "
            "`saesweep cache-activations` command that began it again: it resumes where it stopped"
        )
    written, filled = (source_fields(run, evaluation, is_written=is_written) for is_written in (True, False))
    # The cache may be of an experiment that names the same place by a variable, or without one.
    same = {name for name, value in filled.items() if name in manifest.source and manifest.source[name] == value}
    changed = differences(manifest.source, {**written, **{name: filled[name] for name in same}})
    missing = [hook for hook in hooks if hook not in manifest.hooks]
    if missing:
        changed.append(f"hook_name: {', '.join(manifest.hooks)} in the cache, {', '.join(missing)} in this run")
    for hook in hooks:
        width = manifest.hooks.get(hook)
        if width is not None and run.sae.d_in not in (None, width):
            changed.append(f"sae.d_in: {width} at {hook} in the cache, {run.sae.d_in} in this run")
    if changed:
        raise UserError(
            f"{PLACE}: {folder} was made for another run; what differs:\n"
            + "\n".join(f"  {change}" for change in changed)
            + "\nchange the experiment, or make a cache for it with `saesweep cache-activations`"
        )
    return manifest
