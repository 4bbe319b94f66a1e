"""Writes the feature page of any exported SAE, and its features in Neuronpedia's form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saesweep.errors import UserError
from saesweep.report.data import read_run
from saesweep.report.feature_data import MAX_DESCRIBED, gather
from saesweep.report.feature_page import feature_page
from saesweep.report.feature_sources import from_paths, from_run
from saesweep.report.neuronpedia import write_neuronpedia
from saesweep.runs import write_text

FEATURE_TOKENS = 200_000


@dataclass(frozen=True)
class Features:
    """What was written."""

    page: Path
    neuronpedia: tuple[Path, ...]
    notes: tuple[str, ...]


def write_features(
    sources: Sequence[str | Path],
    *,
    to: str | Path | None = None,
    experiment: str | Path | None = None,
    overrides: Sequence[str] = (),
    hook: str | None = None,
    latents: Sequence[int] = (),
    max_tokens: int = FEATURE_TOKENS,
    neuronpedia: str | Path | None = None,
    neuronpedia_model: str | None = None,
    neuronpedia_set: str | None = None,
    allow_code_execution: bool = False,
) -> Features:
    """Write the feature page of one SAE, or of two side by side.

    Args:
        sources: What `saesweep eval` reads: a run directory (its best SAE, and another of the front), the folder of an
            exported SAE, a `params.npz`, or a Hub id; or two of them.
        to: The page; `features.html` in the run directory or the SAE's folder when left out, else here.
        experiment: Model, dataset and held-out tokens; by default those that the first SAE names.
        overrides: `path=value` texts over the experiment.
        hook: Read every SAE here.
        latents: Latents that come with examples even where not all have room.
        max_tokens: Held-out activations to look at.
        neuronpedia: Also write every feature of the first SAE into this folder, in the form of Neuronpedia's uploads.
        neuronpedia_model: Neuronpedia's name of the model; the last part of the model's own when left out.
        neuronpedia_set: Name of the set of SAEs there; the architecture and width when left out.
        allow_code_execution: Where a run's experiment allows code of the model to run, allow it.

    Raises:
        UserError: An SAE, the model or the text cannot be had, or they do not fit together.
    """
    first = Path(sources[0]).expanduser()
    is_run = len(sources) == 1 and (first / "leaderboard.json").is_file()
    if is_run and (experiment is not None or hook is not None or overrides):
        raise UserError(f"{first}: a run's own file says where its SAEs are read; name {first / 'best'} to change that")
    if is_run:
        source = from_run(read_run(first), allow_code_execution=allow_code_execution)
    else:
        source = from_paths(sources, experiment=experiment, overrides=overrides, hook=hook)
    if neuronpedia is not None and source.shown[0].sae.n_layers > 1:
        raise UserError(
            f"--neuronpedia: {source.shown[0].name} is a crosscoder, and Neuronpedia's uploads are of one hook; leave it out"
        )
    everything = source.shown[0].sae.d_sae * len(source.shown)
    found = gather(
        source,
        max_tokens=max_tokens,
        latents=latents,
        max_described=MAX_DESCRIBED if neuronpedia is None else max(MAX_DESCRIBED, everything),
    )
    page = Path(to) if to is not None else (first if first.is_dir() else Path()) / "features.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    has_report = is_run and page.parent == first and (first / "report.html").exists()
    write_text(page, feature_page(found, report_link="report.html" if has_report else None))
    files: list[Path] = []
    if neuronpedia is not None:
        one = source.shown[0]
        files = write_neuronpedia(
            Path(neuronpedia),
            found,
            model_id=neuronpedia_model or found.model.rsplit("/", 1)[-1].rsplit(":", 1)[-1].lower(),
            sae_set=neuronpedia_set or f"{one.architecture}-{one.sae.d_sae}",
        )
    return Features(page, tuple(files), source.notes)
