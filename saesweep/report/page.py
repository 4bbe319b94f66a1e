"""The report of a run as one HTML page."""

from __future__ import annotations

import math
from collections import Counter

import plotly.graph_objects as go

from saesweep import __version__
from saesweep.display.columns import row_label
from saesweep.display.text import duration, metric_value, setting, short_rate
from saesweep.events import Row
from saesweep.numbers import short_count
from saesweep.report.cost_table import cost_table
from saesweep.report.data import RunData
from saesweep.report.densities import counted_on, read_log10_densities
from saesweep.report.figures import (
    curves_figure,
    dead_figure,
    density_figure,
    front_figure,
    knows_dead,
    rate_figure,
    timeline_figure,
)
from saesweep.report.html import Cells, document, escape, json_script, packed_plotly, table
from saesweep.report.matched import WORDS as MATCHED_WORDS
from saesweep.report.matched import matched_figure, matched_table
from saesweep.report.optuna_figures import study_figures
from saesweep.report.verdict import NOISE_FACTOR, comparisons
from saesweep.study import MIN_TRIALS

_METRICS = ("l0", "delta_ce", "ce_loss_score", "kl_div", "explained_variance", "mse", "dead_fraction")
_SECTIONS = {
    "winner": "What won",
    "matched": "At the same L0",
    "fronts": "Fronts",
    "curves": "Training curves",
    "search": "Search",
    "slots": "Slots",
    "latents": "Latents",
    "cost": "Cost",
    "leaderboard": "Leaderboard",
}


class _Figures:
    """Collects figures with their data elements."""

    def __init__(self) -> None:
        self.data: list[str] = []

    def add(self, key: str, made: go.Figure, words: str = "") -> str:
        """Return the place of a figure in the page."""
        self.data.append(json_script(f"figure-{key}", made.to_json()))
        height = int(made.layout.height or 440)
        note = f'<p class="note">{words}</p>' if words else ""
        return (
            f'{note}<div class="plot" data-figure="figure-{key}" data-name="{key}" style="height:{height}px"></div>\n'
        )


def report_page(run: RunData, *, features_link: str | None, features_note: str = "") -> str:
    """Return the page.

    Args:
        run: The run.
        features_link: Address of the feature page, relative to this one; None where there is none.
        features_note: Why there is none.
    """
    figures = _Figures()
    sections = {
        "winner": _winner(run, features_link, features_note),
        "matched": _matched(run, figures),
        "fronts": _fronts(run, figures),
        "curves": figures.add(
            "curves",
            curves_figure(run),
            "One line per trial; dotted ones were pruned, the thick one is the best. The menu changes the quantity.",
        ),
        "search": _search(run, figures),
        "slots": figures.add(
            "slots",
            timeline_figure(run),
            "Which trial trained in which slot, and when: a trial that ends makes room at the next block. Pale bars were "
            "pruned or interrupted. Pauses between two starts of the run are left out.",
        )
        if run.stays
        else "<p>No events were recorded.</p>",
        "latents": _latents(run, figures),
        "cost": _cost(run, figures),
        "leaderboard": _leaderboard(run),
    }
    sections = {key: content for key, content in sections.items() if content}
    nav = "".join(f'<a href="#{key}">{_SECTIONS[key]}</a>' for key in sections)
    body = "\n".join(
        f'<section id="{key}"><h2>{_SECTIONS[key]}</h2>\n{content}</section>' for key, content in sections.items()
    )
    head = (
        f"<h1>{escape(run.board.name)}</h1>\n<p>{escape(run.board.status)} · {escape(', '.join(run.board.goals))}</p>"
    )
    foot = f'<p class="note">saesweep {__version__} · {escape(run.directory.path.name)}</p>'
    return document(
        f"{run.board.name}: report",
        "\n".join([head, f"<nav>{nav}</nav>", body, foot, *figures.data, packed_plotly()]),
        css=("page.css",),
        scripts=("plots.js",),
    )


def _winner(run: RunData, features_link: str | None, features_note: str) -> str:
    best = run.best
    notes = "".join(f"<p>{escape(note)}</p>" for note in run.board.notes)
    if best is None:
        return f"{notes}<p>No SAE is exported{'' if run.board.ended else ' yet: the run is still going'}.</p>"
    metrics = {**best.metrics, **run.board.test_metrics}
    shown = [name for name in _METRICS if name in metrics]
    cards = "".join(
        f'<div class="card"><span>{escape(_name(name))}</span><b>{_value(name, metrics)}</b></div>' for name in shown
    )
    params = ", ".join(f"{path} = {setting(value)}" for path, value in best.params.items())
    measured = (
        "Measured once on the held-out <i>test</i> part" + (" (dead latents: in training)" if shown else "") + "."
        if run.board.test_metrics
        else "Measured on the held-out <i>select</i> part."
    )
    features = (
        f'<p><a href="{escape(features_link)}">Feature page of the winner</a>: what a sample of its latents fires on. Look at it '
        "before trusting the SAE.</p>"
        if features_link
        else f'<p class="note">{escape(features_note)}</p>'
    )
    return (
        f"<p><b>Trial {best.number}: {escape(best.architecture)} {escape(best.sparsity)}</b> at {escape(best.hook)}, "
        f"{short_count(best.tokens)} tokens"
        f"{f'; {escape(params)}' if params else ''}.</p>{notes}"
        f'<div class="cards">{cards}</div><p class="note">{measured}</p>{features}{_margins(run, best)}'
    )


def _margins(run: RunData, best: Row) -> str:
    found = comparisons(run)
    if not found:
        return ""
    metric = found[0].metric
    rows = [Cells([f"{best.number} (best)", best.architecture, best.sparsity, *_columns(best), "", ""], "best")]
    for item in found:
        error = f" ± {item.stderr:.2g}" if math.isfinite(item.stderr) else ""
        verdict = "within noise" if item.is_noise else ("worse" if item.is_best_better else "better")
        if len(run.board.goals) > 1 and best.metrics.get("l0", 0) > 0 and "l0" in item.other.metrics:
            verdict += f", at {item.other.metrics['l0'] / best.metrics['l0']:.2g}x its L0"
        rows.append(
            Cells(
                [
                    row_label(item.other),
                    item.other.architecture,
                    item.other.sparsity,
                    *_columns(item.other),
                    f"{item.difference:+.4g}{error}",
                    verdict,
                ]
            )
        )
    which = "with the nearest L0" if len(run.board.goals) > 1 else "that is best by the goal"
    which += "" if best.target_l0 is None else f" at its target, L0 {best.target_l0:g},"
    heads = [
        "trial",
        "architecture",
        "sparsity",
        *map(_name, _COLUMNS),
        f"{_name(metric)}: difference",
        "than the best",
    ]
    return (
        f"<h3>By how much</h3><p class='note'>The best against the finished trial of each architecture {which} and against references, on the "
        f"<i>select</i> part. Standard errors are over contexts; a difference below {NOISE_FACTOR:g} of them is noise.</p>"
        + table(heads, rows, (1, 2, 3 + len(_COLUMNS) + 1))
    )


_COLUMNS = ("l0", "delta_ce", "ce_loss_score", "explained_variance", "dead_fraction")


def _columns(row: Row) -> list[str]:
    # Without standard errors: the table's last columns would be out of sight.
    return [metric_value(name, _known(row).get(name)) for name in _COLUMNS]


def _known(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.metrics.items() if name != "dead_fraction" or knows_dead(row)}


def _name(metric: str) -> str:
    names = {
        "l0": "L0",
        "delta_ce": "ΔCE, nats",
        "ce_loss_score": "CE score",
        "kl_div": "KL, nats",
        "explained_variance": "explained variance",
        "mse": "MSE",
        "dead_fraction": "dead, %",
    }
    return names.get(metric, metric)


def _value(name: str, metrics: object) -> str:
    assert isinstance(metrics, dict)
    text = metric_value(name, metrics.get(name))
    error = metrics.get(f"{name}_stderr")
    return f"{text} ± {error:.2g}" if isinstance(error, float) and math.isfinite(error) else text


def _matched(run: RunData, figures: _Figures) -> str:
    entries = run.board.matched
    if not entries:
        return ""
    return figures.add("matched", matched_figure(entries, run.architectures), MATCHED_WORDS) + matched_table(entries)


def _fronts(run: RunData, figures: _Figures) -> str:
    words = (
        "Finished trials. Up and to the left is better; lines join those that no trial of the same architecture beats in "
        "both. CE score: 1 is the model's own loss, 0 that of zero ablation."
    )
    parts = []
    if run.has("ce_loss_score"):
        parts.append(
            "<h3>L0 against CE score</h3>"
            + figures.add(
                "front_ce_score",
                front_figure(run, "ce_loss_score", "CE score"),
                words,
            )
        )
    if run.has("explained_variance"):
        parts.append(
            "<h3>L0 against explained variance</h3>"
            + figures.add(
                "front_explained_variance",
                front_figure(run, "explained_variance", "explained variance, held out"),
                "" if parts else words,
            )
        )
    return "\n".join(parts) or "<p>No trial has been measured yet.</p>"


def _search(run: RunData, figures: _Figures) -> str:
    found = study_figures(run)
    if not found:
        return "<p>Too few finished trials, or nothing was searched.</p>"
    words = {
        "importance": "Optuna's importance (PED-ANOVA) of each parameter for reaching the better part of each goal, from "
        f"{len(run.complete)} finished trials: over all of them where all have the parameter, else within an architecture "
        f"(named in brackets) with {MIN_TRIALS} or more. Below a few dozen trials this is a hint, no finding.",
        "parallel": "Optuna's plot of the finished trials. None: the trial's architecture does not have the parameter.",
    }
    parts = []
    for key, title, made in found:
        parts.append(f"<h3>{escape(title)}</h3>{figures.add(key, made, words[key.partition('_')[0]])}")
    if len(run.complete) < MIN_TRIALS:
        parts.append(f"<p>Importances need {MIN_TRIALS} finished trials.</p>")
    return "\n".join(parts)


def _latents(run: RunData, figures: _Figures) -> str:
    parts = []
    if any(map(knows_dead, run.rows)):
        parts.append(
            "<h3>Dead latents</h3>"
            + figures.add(
                "dead_latents",
                dead_figure(run),
                "Of trials that have trained for at least one window (hover for it). Pale: not finished.",
            )
        )
    log10_densities = read_log10_densities(run.directory.best)
    if log10_densities:
        parts.append(
            "<h3>Firing frequencies of the best SAE</h3>"
            + figures.add(
                "density",
                density_figure(log10_densities),
                f"Share of {counted_on(run.directory.best)}; -10 stands for latents that fired on none of them.",
            )
        )
    return "\n".join(parts) or "<p>Nothing has been measured yet.</p>"


def _cost(run: RunData, figures: _Figures) -> str:
    tokens = {row.number: row.tokens for row in run.rows}
    total = sum(tokens.values())
    full = sum(row.total_tokens for row in run.rows)
    rows = [
        Cells(
            [
                status,
                str(count),
                short_count(sum(row.tokens for row in run.rows if row.status == status)),
                f"{100 * sum(row.tokens for row in run.rows if row.status == status) / max(1, total):.0f}%",
            ]
        )
        for status, count in Counter(row.status for row in run.rows).most_common()
    ]
    stream = int(run.board.data.get("stream_tokens", 0))
    spent = sum(stay.end_seconds - stay.begin_seconds for stay in run.stays)
    slots = len({stay.slot for stay in run.stays})
    busy = f", slots filled {100 * spent / (slots * run.seconds):.0f}% of the time" if slots and run.seconds else ""
    words = (
        f"<p>{duration(run.seconds)} of running time in {run.starts} start{'s' * (run.starts != 1)}{busy}; "
        f"{short_count(total)} SAE tokens trained ({short_rate(total / run.seconds) if run.seconds else '-'} per second) from "
        f"{short_count(stream)} tokens of the stream: each activation was used {total / max(1, stream):.1f} times. "
        f"Pruning saved {100 * (1 - total / max(1, full)):.0f}% of what {len(run.rows)} full trials would have cost.</p>"
    )
    body = words + table(["trials", "number", "SAE tokens", "share"], rows, (0,)) + cost_table(run.directory.costs_file)
    return body + (figures.add("rate", rate_figure(run)) if run.rates else "")


def _leaderboard(run: RunData) -> str:
    metrics = [name for name in dict.fromkeys([*run.board.metrics, *_COLUMNS]) if run.has(name)]
    paths = list(dict.fromkeys(path for row in run.rows for path in row.params if path != "sae.architecture"))
    rows = []
    for row in run.board.table_rows:
        is_best = row.number == run.board.best and row.status != "reference"
        css = "best" if is_best else ("" if row.status in ("complete", "reference") else "unfinished")
        state = row.status if row.feasible else "infeasible"
        cells = [
            "" if row.rank is None else str(row.rank),
            row_label(row),
            row.architecture,
            row.sparsity,
            *(metric_value(name, _known(row).get(name)) for name in metrics),
            *(setting(row.params[path]) if path in row.params else "" for path in paths),
            "" if row.status == "reference" else short_count(row.tokens),
            state,
        ]
        rows.append(Cells(cells, css))
    heads = ["rank", "trial", "architecture", "sparsity", *map(_name, metrics), *paths, "tokens", "state"]
    words = "Held-out <i>select</i> part; trials that did not finish show what was measured last. * marks baselines."
    if run.board.references:
        words += " Trials are ranked without references: " + "; ".join(
            f"{row_label(row)} is {escape(row.source)}, {row.d_sae:,} latents" for row in run.board.references
        )
    reasons = "".join(f"<li>trial {row.number}: {escape(row.reason)}</li>" for row in run.rows if row.reason)
    why = f"<details><summary>Why trials were pruned or failed</summary><ul>{reasons}</ul></details>" if reasons else ""
    return f'<p class="note">{words}</p>' + table(heads, rows, (2, 3, len(heads) - 1)) + why
