"""Where a model's files are: shipped with the package, a local folder, or the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saesweep import builtin
from saesweep.errors import UserError

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")


@dataclass(frozen=True)
class ModelLocation:
    """A resolved `model_name`."""

    name: str
    """As the user wrote it, for messages."""
    source: str
    """Folder or Hub id, as `from_pretrained` takes it."""
    is_local: bool
    """Whether it is a folder: then nothing may ask the network."""
    gguf_file: str | None = None
    """The GGUF file that holds configuration, weights and tokenizer; None where each has a file of its own."""


def locate_model(name: str, kwargs: Mapping[str, Any] | None = None) -> ModelLocation:
    """Resolve a `model_name`; a local folder is checked for its files, the Hub is not asked.

    Args:
        name: As the user wrote it.
        kwargs: Loading arguments; `subfolder` and `gguf_file` say which files are read.

    Raises:
        UserError: Unknown built-in, missing folder, or a folder without config, weights or tokenizer.
    """
    kwargs = kwargs or {}
    gguf_file = _text("gguf_file", kwargs.get("gguf_file"))
    if name.startswith("builtin:"):
        if name != builtin.MODEL_NAME:
            raise UserError(f"base.model_name: unknown built-in model {name!r}; there is {builtin.MODEL_NAME}")
        folder = builtin.model_path()
    else:
        folder = Path(name).expanduser()
        if not folder.exists():
            if name.startswith((".", "/", "~")) or name.count("/") > 1:
                raise UserError(f"base.model_name: the folder {name!r} does not exist; give a model folder or a Hub id")
            return ModelLocation(name, name, is_local=False, gguf_file=gguf_file)
    if not folder.is_dir():
        raise UserError(f"base.model_name: {name!r} is a file; give the folder that holds it{_how_to_read(folder)}")
    inner = folder / (_text("subfolder", kwargs.get("subfolder")) or "")
    if gguf_file is None:
        _check_folder(name, inner)
    else:
        _check_gguf(name, inner, gguf_file)
    return ModelLocation(name, str(folder), is_local=True, gguf_file=gguf_file)


def _text(argument: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise UserError(f"base.model_from_pretrained_kwargs.{argument}: {value!r} is no file name; give it as text")
    return value


def _how_to_read(file: Path) -> str:
    if file.suffix.lower() != ".gguf":
        return " with config.json and the weights"
    return f", and base.model_from_pretrained_kwargs: {{gguf_file: {file.name}}}"


def _gguf_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.gguf"))


def _check_gguf(name: str, folder: Path, gguf_file: str) -> None:
    if (folder / gguf_file).is_file():
        return
    there = ", ".join(_gguf_files(folder))
    raise UserError(
        f"base.model_from_pretrained_kwargs.gguf_file: the folder {name!r} has no file {gguf_file!r}; "
        + (f"GGUF files there: {there}" if there else "there is no GGUF file in it")
    )


def _check_folder(name: str, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        if files := _gguf_files(folder):
            raise UserError(
                f"base.model_name: the folder {name!r} has no config.json but {', '.join(files)}; to load a GGUF file, set "
                f"base.model_from_pretrained_kwargs: {{gguf_file: {files[0]}}}"
            )
        raise UserError(
            f"base.model_name: the folder {name!r} has no config.json; give a folder in Hugging Face format"
        )
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        raise UserError(
            f"base.model_name: the folder {name!r} has no weights (model.safetensors, its shards, or pytorch_model.bin); "
            "download or save them with save_pretrained"
        )
    if not any((folder / file).is_file() for file in _TOKENIZER):
        raise UserError(
            f"base.model_name: the folder {name!r} has no tokenizer (such as tokenizer.json); "
            "save it there with tokenizer.save_pretrained"
        )
