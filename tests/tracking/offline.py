"""Reads what an offline W&B run wrote: LevelDB log records of protocol buffers."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK, _HEADER = 32768, 7


@dataclass
class OfflineRun:
    id: str = ""
    name: str = ""
    group: str = ""
    project: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    versions: list[tuple[str, dict[str, Any], list[str]]] = field(default_factory=list)
    exit_code: int | None = None

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.history if name in row]


def _records(data: bytes) -> Iterator[bytes]:
    position, parts = _HEADER, b""
    while position + _HEADER <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        if kind in (1, 4):
            yield parts
            parts = b""


def _item(item: Any) -> tuple[str, Any]:
    return item.key or "/".join(item.nested_key), json.loads(item.value_json)


def read_offline_run(file: Path) -> OfflineRun:
    from wandb.proto import wandb_internal_pb2

    found = OfflineRun()
    for raw in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(raw)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.id, found.name, found.group, found.project = run.run_id, run.display_name, run.run_group, run.project
            found.tags, found.job_type = list(run.tags), run.job_type
            found.config |= dict(_item(item) for item in run.config.update)
        elif kind == "config":
            found.config |= dict(_item(item) for item in record.config.update)
        elif kind == "history":
            found.history.append(dict(_item(item) for item in record.history.item))
        elif kind == "summary":
            found.summary |= dict(_item(item) for item in record.summary.update)
        elif kind == "artifact":
            artifact = record.artifact
            found.artifacts[artifact.name] = [entry.path for entry in artifact.manifest.contents]
            found.versions.append((artifact.name, json.loads(artifact.metadata or "{}"), list(artifact.aliases)))
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found
