"""Writes a run's report: `report.html`, `features.html` and PNG files, each whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saesweep.report.browser import find_browser, write_pngs
from saesweep.report.data import read_run
from saesweep.report.page import report_page
from saesweep.runs import write_text


@dataclass(frozen=True)
class Report:
    """What was written."""

    page: Path
    features: Path | None
    """The feature page of the winner."""
    pngs: tuple[Path, ...]
    notes: tuple[str, ...]
    """What was left out, and why."""


def write_report(
    run_dir: str | Path,
    *,
    to: str | Path | None = None,
    features: bool = True,
    pngs: bool = True,
    latents: Sequence[int] = (),
    feature_tokens: int = 200_000,
    allow_code_execution: bool = False,
) -> Report:
    """Write the report of a run, finished or still going.

    Args:
        run_dir: The run directory.
        to: Folder for the files; the run directory when left out.
        features: Also make the feature page of the winner, which runs the language model.
        pngs: Also write each plot as PNG, where a Chrome or Chromium is found.
        latents: Latents that come with examples even where not all have room.
        feature_tokens: Held-out activations that the feature page looks at.
        allow_code_execution: Where the run's experiment allows code of the model to run, allow it for the feature page.

    Raises:
        UserError: It is no run directory, or a latent does not exist.
    """
    from saesweep.report.feature_data import gather
    from saesweep.report.feature_page import feature_page
    from saesweep.report.feature_sources import from_run, why_no_features

    run = read_run(Path(run_dir))
    folder = Path(to) if to is not None else run.directory.path
    folder.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    feature_file = folder / "features.html" if features else None
    why_not = "The feature page was not asked for."
    if features:
        why_not = why_no_features(run) or ""
    if feature_file is not None and why_not:
        feature_file = None
        notes.append(why_not)
    if feature_file is not None:
        source = from_run(run, allow_code_execution=allow_code_execution)
        found = gather(source, max_tokens=feature_tokens, latents=latents)
        text = feature_page(found, report_link="report.html")
        write_text(feature_file, text)
    page = folder / "report.html"
    write_text(
        page,
        report_page(run, features_link=None if feature_file is None else feature_file.name, features_note=why_not),
    )
    files: list[Path] = []
    if pngs:
        browser = find_browser()
        if browser is None:
            notes.append(
                "no PNG files: no Chrome or Chromium found (SAESWEEP_BROWSER names one); each plot of the page has a camera button"
            )
        else:
            files = write_pngs(page, folder / "report", browser)
            if not files:
                notes.append(f"no PNG files: {browser} drew none; each plot of the page has a camera button")
    return Report(page, feature_file, tuple(files), tuple(notes))
