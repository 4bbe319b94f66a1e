"""What of a run directory is published, and its upload to the Hub in one commit: nothing is visible there before everything is."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from saesweep.errors import UserError, first_line
from saesweep.files import no_run_directory, refuse_links_in_run
from saesweep.publish.card import MARK, model_card, read_entry
from saesweep.publish.hub import Hub
from saesweep.runs import RunDirectory
from saesweep.saes import ExportedSAE, load_sae_folder, save_sae_folder
from saesweep.saes.folder import CFG_FILE
from saesweep.specs.joint_hooks import as_name


def collect_run(run: Path, *, pareto: bool = False, matched: bool = False, trial: int | None = None) -> dict[str, Path]:
    """Return the SAEs to publish: name in the repository (`<hook>/<label>`) to exported folder.

    Args:
        run: A run directory, or the folder of one exported SAE.
        pareto: The Pareto front in place of the best one.
        matched: The winner at each L0 in place of the best one.
        trial: This trial in place of the best one.

    Raises:
        UserError: There is no such SAE.
    """
    if run.is_dir():
        refuse_links_in_run(run)
    if (run / CFG_FILE).is_file():
        return {name_of(load_sae_folder(run), run.resolve().name): run}
    directory = RunDirectory(run)
    if not directory.path.is_dir():
        raise no_run_directory(run)
    if pareto:
        return _all_in(directory.pareto, "no Pareto front; the run has not ended, or its objective has one goal")
    if matched:
        return _all_in(directory.matched, "no winners at an L0; the run has not ended, or has no objective.matched")
    folder = directory.best if trial is None else directory.trial_sae(trial)
    label = "best" if trial is None else f"trial-{trial:04d}"
    if not (folder / CFG_FILE).is_file():
        raise UserError(f"{folder}: no exported SAE; wait for the run to end, or name a finished trial with --trial")
    return {name_of(load_sae_folder(folder), label): folder}


def _all_in(parent: Path, otherwise: str) -> dict[str, Path]:
    folders = sorted(path.parent for path in parent.glob(f"*/{CFG_FILE}"))
    if not folders:
        raise UserError(f"{parent}: {otherwise}")
    return {name_of(load_sae_folder(folder), folder.name): folder for folder in folders}


def _check_name(repo: str) -> None:
    """Refuse a name that no repository of the Hub can have, before anything is read or sent.

    Raises:
        UserError: It is none.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UserError(f"{repo!r} is no repository; write user/name")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{repo!r} is no repository: {first_line(error)}") from None


def name_of(sae: ExportedSAE, label: str) -> str:
    """Return `<hook>/<label>`, both safe as folder names."""
    own: Any = sae.metadata.get("saesweep")
    hook = sae.metadata.get("hook_name") or (own.get("hook_name") if isinstance(own, dict) else None) or "sae"
    return f"{safe_name(str(as_name(hook)))}/{safe_name(label)}"


def safe_name(text: str) -> str:
    """Return text that is a file name on every system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "sae"


CARD = "README.md"
PUBLISHED = (
    "cfg.json",
    "checksums.json",
    "sae_weights.safetensors",
    "sparsity.safetensors",
    "runner_cfg.json",
    "experiment.yaml",
    "provenance.json",
)
"""Files of an exported folder that are uploaded, where they exist; anything else in it stays."""
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")


@dataclass(frozen=True)
class Pushed:
    """What was uploaded, or would be."""

    repo: str
    files: tuple[tuple[str, int], ...]
    """Path in the repository and size in bytes."""
    url: str | None
    """The commit; None for a dry run."""
    notes: tuple[str, ...] = ()
    card: str | None = None
    """The model card as it was written, or would be; None where the repository's own is left as it is."""


def push(
    saes: Mapping[str, str | Path | ExportedSAE],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    licence: str | None = None,
    dry_run: bool = False,
    token: str | None = None,
) -> Pushed:
    """Upload SAEs and a model card to a model repository of the Hub; the repository is made if need be.

    Weights go first and are not sent again where an interrupted upload left them; one commit then makes all files visible.

    Args:
        saes: Folder in the repository (`<hook>/<label>`) to exported folder or SAE.
        repo: `user/name`.
        private: Make a new repository private; an existing one stays as it is.
        revision: Branch to commit to, made if need be; the main branch when left out.
        licence: Licence id for the card, such as `mit`.
        dry_run: Only list the files and make the card; no network.
        token: Access token; the one of `hf auth login` or $HF_TOKEN when left out. Never printed.

    Raises:
        UserError: An SAE is damaged or holds an access token, there is no token or it has no right, or the Hub cannot be
            reached after several attempts.
    """
    _check_name(repo)
    if not saes:
        raise UserError("nothing to push")
    for name in saes:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise UserError(f"{name!r} is no folder inside a repository; write <hook>/<label>")
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: _folder(name, sae, Path(scratch)) for name, sae in saes.items()}
        entries = [read_entry(name, load_sae_folder(folder), folder) for name, folder in folders.items()]
        files: dict[str, Path | bytes] = {
            f"{name}/{file}": folder / file
            for name, folder in folders.items()
            for file in PUBLISHED
            if (folder / file).is_file()
        }
        _refuse_secrets(files)
        if dry_run:
            card = model_card(repo, entries, licence=licence)
            files[CARD] = _encoded(card)
            return Pushed(repo, _listed(files), None, card=card)
        hub = Hub(repo, token)
        hub.open(private=private, revision=revision)
        existing = hub.read_text(CARD, revision)
        notes, new_card = [], None
        if existing is None or MARK in existing or _is_empty_card(existing):
            new_card = model_card(repo, entries, licence=licence, existing=existing or "")
            files[CARD] = _encoded(new_card)
        else:
            notes.append(f"{CARD} of {repo} was not written by saesweep and is left as it is")
        url = hub.commit(files, message=f"Add {', '.join(saes)}", revision=revision)
        return Pushed(repo, _listed(files), url, tuple(notes), new_card)


def _folder(name: str, sae: str | Path | ExportedSAE, scratch: Path) -> Path:
    if isinstance(sae, ExportedSAE):
        folder = scratch / name
        save_sae_folder(folder, sae, sparsity_F=None)
        return folder
    return Path(sae)


def _encoded(card: str) -> bytes:
    try:
        return card.encode()
    except UnicodeEncodeError as error:  # JSON can name half of a character, such as \\ud800
        part = card[max(0, error.start - 40) : error.start]
        raise UserError(
            f"the model card cannot be written as UTF-8 after {part!r}: cfg.json or provenance.json of an SAE is damaged; export it again"
        ) from None


def _is_empty_card(text: str) -> bool:
    """The Hub makes a card of its own, of front matter alone, for a repository made on its pages."""
    return not re.sub(r"\A---\n.*?\n---\n?", "", text, flags=re.DOTALL).strip()


def _listed(files: Mapping[str, Path | bytes]) -> tuple[tuple[str, int], ...]:
    return tuple(
        (path, len(content) if isinstance(content, bytes) else content.stat().st_size)
        for path, content in sorted(files.items())
    )


def _refuse_secrets(files: Mapping[str, Path | bytes]) -> None:
    """An experiment may hold a token, written out by its author; it must not become public."""
    known = [value for name in ("HF_TOKEN", "WANDB_API_KEY") if len(value := os.environ.get(name, "")) >= 8]
    for content in files.values():
        if isinstance(content, bytes) or content.suffix not in (".json", ".yaml"):
            continue
        text = content.read_bytes().decode("utf-8", errors="replace")
        if _TOKEN.search(text) or any(value in text for value in known):
            raise UserError(f"{content}: holds an access token, which would become public; remove it from the file")
