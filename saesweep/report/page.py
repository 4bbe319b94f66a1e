"""The report of a run as one HTML page: what its template shows, section by section."""

from __future__ import annotations

from collections import Counter
from typing import Any

from saesweep.display.text import duration, short_rate
from saesweep.messages import short_count
from saesweep.report.curves import curve_figures
from saesweep.report.data import RunData
from saesweep.report.figures import dead_figure, density_figure, has_dead_fraction, rate_figure, timeline_figure
from saesweep.report.fronts import better_corner, front_figures, front_pairs, goals_in_words
from saesweep.report.html import Plots, render
from saesweep.report.matched import WORDS as MATCHED_WORDS
from saesweep.report.matched import matched_figure, matched_table
from saesweep.report.next_steps import next_steps
from saesweep.report.parameters import importance_figure, parallel_figure
from saesweep.report.rungs import pruned_rows, pruned_table, rung_figures
from saesweep.report.tables import Table, board_section, cost_table, counted_on, read_log10_densities, row_of
from saesweep.report.winner import winner_section
from saesweep.study import MIN_TRIALS

SECTIONS = {
    "winner": "What won",
    "next": "What to do next",
    "matched": "At the same L0",
    "fronts": "Front",
    "rungs": "Pruned on the way",
    "curves": "Training curves",
    "search": "Search",
    "slots": "Slots",
    "latents": "Latents",
    "cost": "Cost",
    "leaderboard": "Leaderboard",
}
"""The sections in their order; one that has nothing to show is left out."""


def report_page(run: RunData, *, features_link: str | None, features_note: str = "") -> str:
    """Return the page.

    Args:
        run: The run.
        features_link: Address of the feature page, relative to this one; None where there is none.
        features_note: Why there is none.
    """
    plots = Plots()
    sections = {
        "winner": {**winner_section(run), "features_link": features_link, "features_note": features_note},
        "next": {"steps": next_steps(run)},
        "matched": _matched(run, plots),
        "fronts": _fronts(run, plots),
        "rungs": _rungs(run, plots),
        "curves": _curves(run, plots),
        "search": _search(run, plots),
        "slots": _slots(run, plots),
        "latents": _latents(run, plots),
        "cost": _cost(run, plots),
        "leaderboard": board_section(run),
    }
    return render(
        "report.html",
        title=f"{run.board.name}: report",
        run=run,
        goals=goals_in_words(run),
        titles=SECTIONS,
        sections={key: section for key, section in sections.items() if section is not None},
        figures=plots.data,
    )


def _matched(run: RunData, plots: Plots) -> dict[str, Any] | None:
    entries = run.board.matched
    if not entries:
        return None
    return {
        "plot": plots.add("matched", matched_figure(entries, run.architectures), MATCHED_WORDS),
        "table": matched_table(entries),
    }


def _fronts(run: RunData, plots: Plots) -> dict[str, Any]:
    corner = better_corner(run, *front_pairs(run)[0])
    words = (
        f"Finished trials in the objective's own metrics; better is to the {corner}. The solid line joins the trials that no "
        "other beats in both, a dotted one those of its architecture."
    )
    return {"plot": plots.add("front", front_figures(run), words, menu="metrics")}


def _rungs(run: RunData, plots: Plots) -> dict[str, Any] | None:
    if not pruned_rows(run):
        return None
    words = (
        "What each trial measured at its rungs. A dotted line leads from where a trial was pruned to what it was expected to "
        "end with (open mark)."
    )
    found = rung_figures(run)
    return {"plot": plots.add("rungs", found, words, menu="metric") if found else None, "table": pruned_table(run)}


def _curves(run: RunData, plots: Plots) -> dict[str, Any]:
    found = curve_figures(run)
    words = (
        "One line per trial: dotted where it has not finished, thick for the best. Rungs may be measured on a part of the held-out "
        "tokens (evaluation.rung_share) and the end on all of them: then the last step of a line is that too."
    )
    return {"plot": plots.add("curves", found, words, menu="quantity") if found else None}


def _search(run: RunData, plots: Plots) -> dict[str, Any] | None:
    parallel, importance = parallel_figure(run), importance_figure(run)
    if parallel is None and importance is None:
        return None
    words = (
        f"Optuna's importance (PED-ANOVA) of each parameter for reaching the better part of each goal, from "
        f"{len(run.complete)} finished trials: over all of them where all have the parameter, else within an architecture "
        f"(named in brackets) with {MIN_TRIALS} or more. Below a few dozen trials this is a hint, no finding."
    )
    return {
        "parallel": None
        if parallel is None
        else plots.add(
            "parallel",
            parallel,
            "A line for each finished trial, the best one thick; it passes by the axes of parameters that its architecture "
            "does not have.",
        ),
        "importance": None if importance is None else plots.add("importance", importance, words),
        "min_trials": MIN_TRIALS,
        "is_short": len(run.complete) < MIN_TRIALS,
    }


def _slots(run: RunData, plots: Plots) -> dict[str, Any] | None:
    if not run.stays:
        return None
    words = (
        "Which trial trained in which slot, and when: a trial that ends makes room at the next block. Pale bars were pruned or "
        "interrupted. Pauses between two starts of the run are left out."
    )
    return {"plot": plots.add("slots", timeline_figure(run), words)}


def _latents(run: RunData, plots: Plots) -> dict[str, Any] | None:
    log10_densities = read_log10_densities(run.directory.best)
    dead = any(map(has_dead_fraction, run.rows))
    if not dead and not log10_densities:
        return None
    return {
        "dead": plots.add(
            "dead_latents",
            dead_figure(run),
            "Of trials that have trained for at least one window (hover for it). Pale: not finished.",
        )
        if dead
        else None,
        "density": plots.add(
            "density",
            density_figure(log10_densities),
            f"Counted on {counted_on(run.directory.best)}.",
        )
        if log10_densities
        else None,
    }


def _cost(run: RunData, plots: Plots) -> dict[str, Any]:
    total = sum(row.tokens for row in run.rows)
    spared = sum(row.total_tokens - row.tokens for row in run.rows if row.status == "pruned")
    full = sum(row.total_tokens for row in run.rows)
    pruning = (
        f" Pruning saved {100 * spared / full:.0f}% of what {len(run.rows)} full trials would have cost."
        if spared
        else ""
    )
    by_status = Counter(row.status for row in run.rows)
    tokens = {status: sum(row.tokens for row in run.rows if row.status == status) for status in by_status}
    rows = [
        row_of([status, str(count), short_count(tokens[status]), f"{100 * tokens[status] / max(1, total):.0f}%"])
        for status, count in by_status.most_common()
    ]
    stream = int(run.board.data.get("stream_tokens", 0))
    spent = sum(stay.end_seconds - stay.begin_seconds for stay in run.stays)
    slots = len({(stay.worker, stay.slot) for stay in run.stays})
    busy = f", slots filled {100 * spent / (slots * run.seconds):.0f}% of the time" if slots and run.seconds else ""
    words = (
        f"{duration(run.seconds)} of running time in {run.starts} start{'s' * (run.starts != 1)}{busy}; "
        f"{short_count(total)} SAE tokens trained ({short_rate(total / run.seconds) if run.seconds else '-'} per second) from "
        f"{short_count(stream)} tokens of the stream: each activation was used {total / max(1, stream):.1f} times."
        f"{pruning}"
    )
    return {
        "words": words,
        "table": Table(heads=["trials", "number", "SAE tokens", "share"], rows=rows, text_columns={0}),
        "where": cost_table(run.directory.costs_file),
        "plot": plots.add("rate", rate_figure(run)) if run.rates else None,
    }
