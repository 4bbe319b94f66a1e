"""Where a model's files are: shipped with the package, a local folder, or the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


def locate_model(name: str) -> ModelLocation:
    """Resolve a `model_name`; a local folder is checked for its files, the Hub is not asked.

    Raises:
        UserError: Unknown built-in, missing folder, or a folder without config, weights or tokenizer.
    """
    if name.startswith("builtin:"):
        if name != builtin.MODEL_NAME:
            raise UserError(f"base.model_name: unknown built-in model {name!r}; there is {builtin.MODEL_NAME}")
        folder = builtin.model_path()
    else:
        folder = Path(name).expanduser()
        if not folder.exists():
            if name.startswith((".", "/", "~")) or name.count("/") > 1:
                raise UserError(f"base.model_name: the folder {name!r} does not exist; give a model folder or a Hub id")
            return ModelLocation(name, name, is_local=False)
    _check_folder(name, folder)
    return ModelLocation(name, str(folder), is_local=True)


def _check_folder(name: str, folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"base.model_name: {name!r} is a file; give the folder that holds config.json and the weights")
    if not (folder / "config.json").is_file():
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
