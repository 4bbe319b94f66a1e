"""What a cache says of itself: what it holds, and the fields that decide its activations; two runs that agree in them can share it.

`manifest.json` is replaced as a whole after each shard, so that a kill loses one shard at most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saesweep.atomic import write_text
from saesweep.errors import UserError

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun
    from saesweep.specs.experiment import EvaluationSpec

FILE_NAME = "manifest.json"
FORMAT_VERSION = 1
CONTEXTS, SELECT, TEST, WINDOW, TRAIN = "contexts", "select", "test", "window", "train"
PARTS = (CONTEXTS, SELECT, TEST, WINDOW, TRAIN)
"""In the order in which they are written: held-out token ids, held-out rows, the rows that estimate norms, training rows."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One safetensors file; for row parts it holds a tensor [rows, width] per hook."""

    file: str
    """Name in the cache's folder."""
    part: str
    """One of `PARTS`."""
    rows: int
    """Rows of activations; 0 for the token ids."""
    sha256: str
    """Of the file."""
    nbytes: int
    """Size of the file."""
    stream_after: dict[str, Any] | None = None
    """Training shards: the live stream's position after the last row, so that the next shard can be made alone."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a cache but its rows."""

    source: dict[str, Any]
    """The run's fields that decide the activations (`identity.py`), model and dataset among them."""
    hooks: dict[str, int]
    """Width at every hook."""
    dtype: str
    """Type of the rows on disk."""
    model_dtype: str
    """Type in which the model gave them; a narrower `dtype` has rounded them."""
    seed: int
    """Of the data order."""
    batch_tokens: int
    """Every training shard is a multiple of it."""
    shard_tokens: int
    """Rows per training shard; the last one may have fewer."""
    tokens: int
    """Training rows wanted."""
    shuffle: dict[str, Any] = field(default_factory=dict)
    """How the order of the training rows was made, for the reader of this file."""
    shards: tuple[Shard, ...] = ()
    """Finished ones, in the order of `PARTS`."""

    def of(self, part: str) -> tuple[Shard, ...]:
        """Return the finished shards of a part."""
        return tuple(shard for shard in self.shards if shard.part == part)

    def rows(self, part: str) -> int:
        """Return the finished rows of a part."""
        return sum(shard.rows for shard in self.of(part))

    @property
    def is_complete(self) -> bool:
        """Whether every part is there."""
        return all(self.of(part) for part in PARTS) and self.rows(TRAIN) >= self.tokens

    @property
    def is_lossy(self) -> bool:
        """Whether the rows were rounded to fit `dtype`."""
        exact = {("bfloat16", "float32"), ("float16", "float32"), ("float32", "float64")}
        return self.dtype != self.model_dtype and (self.model_dtype, self.dtype) not in exact

    def added(self, *shards: Shard) -> Manifest:
        """Return the manifest with more shards."""
        return replace(self, shards=(*self.shards, *shards))


def read_manifest(folder: Path) -> Manifest | None:
    """Return the folder's manifest, None where there is none.

    Raises:
        UserError: It cannot be read, or another version wrote it.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text())
        version = data.pop("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{folder}: a cache in format {version}, this version reads format {FORMAT_VERSION}; write it again with "
                "`saesweep cache-activations` into another folder"
            )
        shards = tuple(Shard(**shard) for shard in data.pop("shards"))
        return Manifest(**data, shards=shards)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: unreadable ({error}); this is no cache of activations") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically."""
    data = {"format_version": FORMAT_VERSION, **asdict(manifest)}
    write_text(folder / FILE_NAME, json.dumps(data, indent=1) + "\n")


def differences(found: Mapping[str, Any], requested: Mapping[str, Any]) -> list[str]:
    """Return `field: in the cache -> in the run` for every field that differs; a missing one counts as null."""
    return [
        f"{name}: {json.dumps(found.get(name))} in the cache, {json.dumps(requested.get(name))} in this run"
        for name in dict.fromkeys([*requested, *found])
        if found.get(name) != requested.get(name)
    ]


_NOT_THE_DATA = frozenset(
    {
        # Named apart in the manifest, and compared with more sense than equality.
        "hook_name",
        "hook_name_out",
        "seed",
        # How the cache is reached.
        "use_cached_activations",
        "cached_activations_path",
        # The order of the rows, which a cache has fixed, and how they were computed fast.
        "n_batches_in_buffer",
        "buffer_tokens",
        "store_batch_size_prompts",
        "activations_mixing_fraction",
        "prefetch_llm_batches",
        "compile_llm",
        "llm_compilation_mode",
        "n_batches_for_norm_estimate",
        "dataset_trust_remote_code",
        "allow_code_execution",
        # Devices and the training side.
        "device",
        "llm_device",
        "act_store_device",
        "dtype",
        "autocast",
        "compile_sae",
        "sae_compilation_mode",
        "training_tokens",
        "train_batch_size_tokens",
        "lr",
        "lr_scheduler_name",
        "lr_warm_up_steps",
        "lr_decay_steps",
        "lr_end",
        "n_restart_cycles",
        "adam_beta1",
        "adam_beta2",
        "dead_feature_window",
        "feature_sampling_window",
        "from_pretrained_path",
        "sae",
        # Output.
        "eval_batch_size_prompts",
        "n_checkpoints",
        "checkpoint_path",
        "save_final_checkpoint",
        "resume_from_checkpoint",
        "output_path",
        "verbose",
        "synthetic",
        "logger",
    }
)
"""Everything else counts, a field added later too: a cache refused for nothing is better than one that is wrong."""

_NAMED_WHERE_SET = ("dataset_name", "split", "data_files", "data_dir", "column_name", "datasets", "neighbour_pairs")


def source_fields(run: BaseRun, evaluation: EvaluationSpec, *, is_written: bool = True) -> dict[str, Any]:
    """Return the fields that decide the activations, as JSON: model, dataset, tokens, held-out sizes.

    Args:
        run: The run.
        evaluation: Says how much is held out.
        is_written: With references in place of the values of environment variables, as a manifest keeps them.
    """
    dumped = run.model_dump(mode="json", exclude=set(_NOT_THE_DATA))
    if is_written:
        dumped = run.as_written(dumped)
    for name in _NAMED_WHERE_SET:  # so that older caches still fit
        if not getattr(run, name) or dumped[name] == type(run).model_fields[name].default:
            del dumped[name]
    kwargs = dumped["model_from_pretrained_kwargs"] or {}
    dumped["model_from_pretrained_kwargs"] = {k: v for k, v in kwargs.items() if k != "token"}  # who asks
    return {
        **dumped,
        "evaluation.select_tokens": evaluation.select_tokens,
        "evaluation.test_tokens": evaluation.test_tokens,
        **({} if evaluation.dataset is None else {"evaluation.dataset": evaluation.dataset.model_dump(mode="json")}),
    }
