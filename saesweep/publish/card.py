"""The model card of a repository of SAEs: what they are, how they measure, how to load them, where they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saesweep.display.text import metric_value
from saesweep.errors import UserError
from saesweep.files import read_json_object, read_text
from saesweep.saes import ExportedSAE
from saesweep.specs.joint_hooks import as_name
from saesweep.version import __version__

MARK = "<!-- written by saesweep push -->"
"""In every card of ours; a README without it is somebody's own and never replaced."""
_METRICS = {
    "l0": "L0",
    "delta_ce": "ΔCE (nats)",
    "explained_variance": "explained variance",
    "ce_loss_score": "CE score",
}
_ROW = re.compile(r"^\| `(?P<name>[^`]+)` \|.*\|$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """One SAE of the repository."""

    name: str
    sae: ExportedSAE
    provenance: Mapping[str, Any] = field(default_factory=dict)
    experiment: str | None = None
    """Its experiment file."""


def read_entry(name: str, sae: ExportedSAE, folder: Path) -> Entry:
    """Return the entry of an exported folder, with what lies beside the weights.

    Raises:
        UserError: A file beside them is damaged.
    """
    provenance, experiment = folder / "provenance.json", folder / "experiment.yaml"
    fix = "export the SAE again"
    found = read_json_object(provenance, fix=fix) if provenance.is_file() else {}
    text = read_text(experiment, fix=fix) if experiment.is_file() else None
    for part in ("test_metrics", "select_metrics"):
        try:
            _numbers(found.get(part))
        except OverflowError:  # JSON integers have no bound
            raise UserError(f"{provenance}: {part} holds a number beyond every float; export the SAE again") from None
    return Entry(name, sae, found, text)


def model_card(repo: str, entries: list[Entry], *, licence: str | None = None, existing: str = "") -> str:
    """Return the README.md of a repository.

    Args:
        repo: `user/name`.
        entries: What is pushed now.
        licence: Licence id of the Hub, such as `mit`; None: none is stated.
        existing: The repository's card so far; the rows of SAEs that stay are kept.
    """
    metadata = entries[0].sae.metadata
    model = str(metadata.get("model_name") or "")
    first = entries[0]
    is_for_saelens = first.sae.n_layers == 1  # which reads no crosscoders
    front = ["library_name: saelens"] if is_for_saelens else []
    front += [f"license: {licence}"] if licence else []
    front += [f"base_model: {model}"] if re.fullmatch(r"[\w.-]+/[\w.-]+", model) else []
    front += ["tags:", "- sae", *(["- saelens"] if is_for_saelens else ["- crosscoder"])]
    front += ["- saesweep", "- sparse-autoencoder"]
    names = {entry.name for entry in entries}
    kept = [row.group() for row in _ROW.finditer(existing) if MARK in existing and row["name"] not in names]
    kind, stored = ("Sparse autoencoders", "stored in SAELens' format")
    load = f'from sae_lens import SAE\n\nsae = SAE.from_pretrained("{repo}", "{first.name}")'
    if not is_for_saelens:
        kind, stored = ("Crosscoders", "stored with matrices by layer, as its documentation describes")
        load = f'from saesweep.publish import pull\n\nsae = pull("{repo}/{first.name}", "crosscoder")'
    parts = [
        "---\n" + "\n".join(front) + f"\n---\n{MARK}",
        f"# {repo.split('/')[-1]}\n\n{kind}{f' of `{model}`' if model else ''}, trained with saesweep {__version__} and {stored}.",
        "## The SAEs\n\n" + _table(entries, kept),
        f"## Load\n\n```python\n{load}\n```\n\n"
        "With saesweep, as the start of another experiment (`base: {from_cfg: "
        f"{repo}/{first.name}}}`) or on the same tokens as other SAEs:\n\n```\nsaesweep eval {repo}/{first.name}\n```",
        "## Where they come from\n\n" + "\n".join(map(_origin, entries)),
    ]
    parts += [
        f"<details><summary>Experiment of <code>{entry.name}</code></summary>\n\n```yaml\n{entry.experiment}```\n\n</details>"
        for entry in entries
        if entry.experiment is not None
    ]
    return "\n\n".join(parts) + "\n"


def _table(entries: list[Entry], kept: list[str]) -> str:
    heading = ["folder", "architecture", "hook", "d_in", "d_sae", *_METRICS.values(), "measured on", "tokens trained"]
    lines = ["| " + " | ".join(heading) + " |", "|" + " --- |" * len(heading), *kept]
    for entry in entries:
        test = _numbers(entry.provenance.get("test_metrics"))
        metrics = test or _numbers(entry.provenance.get("select_metrics"))
        part = "" if not metrics else "held-out `test`" if test else "held-out `select`"
        metadata = entry.sae.metadata
        cells = [
            f"`{entry.name}`",
            str(metadata.get("training_architecture") or entry.sae.architecture),
            f"`{as_name(metadata.get('hook_name', ''))}`",
            str(entry.sae.d_in),
            str(entry.sae.d_sae),
            *(metric_value(name, metrics.get(name)) for name in _METRICS),
            part,
            str(entry.provenance.get("tokens", "")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _numbers(metrics: Any) -> dict[str, float]:
    found = metrics.items() if isinstance(metrics, dict) else ()
    return {name: float(value) for name, value in found if isinstance(value, (int, float))}


def _counted(densities: Any) -> str | None:
    """Return the tokens that `sparsity.safetensors` was counted on."""
    if not isinstance(densities, dict):
        return None
    return f"{densities.get('tokens')} held-out `{densities.get('part')}` tokens"


def _origin(entry: Entry) -> str:
    found, metadata = entry.provenance, entry.sae.metadata
    packages = found.get("packages")
    facts = {
        "dataset": _dataset(metadata),
        "context size": metadata.get("context_size"),
        "experiment": found.get("experiment"),
        "trial": found.get("trial"),
        "seed": found.get("seed"),
        "firing densities on": _counted(found.get("densities")),
        "saesweep": found.get("saesweep_version"),
        "torch": packages.get("torch") if isinstance(packages, dict) else None,
        "fingerprint": str(found.get("fingerprint", ""))[:12] or None,
    }
    return f"- `{entry.name}`: " + ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)


def _dataset(metadata: Mapping[str, Any]) -> Any:
    """Return the dataset, or the datasets of a mixture with their weights."""
    own = metadata.get("saesweep")
    mixed = own.get("datasets") if isinstance(own, dict) else None
    if not isinstance(mixed, list):
        return metadata.get("dataset_path")
    entries = [each for each in mixed if isinstance(each, dict)]
    return "; ".join(f"{each.get('dataset_path')} (weight {each.get('weight')})" for each in entries)
