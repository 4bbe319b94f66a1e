"""The run directory on disk."""

from saesweep.atomic import finite, replace_folder, write_bytes, write_json, write_table, write_text
from saesweep.costs import read_costs, write_costs
from saesweep.files import read_json, sha256
from saesweep.runs.checkpoint_writer import CheckpointWriter
from saesweep.runs.checkpoints import Checkpoint, CheckpointStore
from saesweep.runs.directory import FORMAT_VERSION, RunDirectory
from saesweep.runs.exports import check_replaceable, copy_export
from saesweep.runs.jsonl import JsonLines, SealedLines, sealed, unsealed
from saesweep.runs.stores import is_url, upload_export

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "CheckpointStore",
    "CheckpointWriter",
    "JsonLines",
    "RunDirectory",
    "SealedLines",
    "check_replaceable",
    "copy_export",
    "finite",
    "is_url",
    "read_costs",
    "read_json",
    "replace_folder",
    "sealed",
    "sha256",
    "unsealed",
    "upload_export",
    "write_bytes",
    "write_costs",
    "write_json",
    "write_table",
    "write_text",
]
