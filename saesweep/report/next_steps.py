"""What to do next: what the run itself says about whether its answer would change with more training, space or seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from saesweep.display.text import setting
from saesweep.driver.matched import still_improving, trend_points
from saesweep.errors import UserError
from saesweep.experiment import AsWritten, Experiment, Parameter, load_experiment
from saesweep.messages import short_count
from saesweep.report.data import RunData
from saesweep.report.figures import has_dead_fraction
from saesweep.report.winner import comparisons
from saesweep.specs import ObjectiveSpec
from saesweep.specs.architectures import spec_class
from saesweep.status import is_live

_EDGE = 0.05
"""Share of a range at either end that counts as its edge."""
_MANY_DEAD = 0.2
_FEW_TRIALS = 3


@dataclass(frozen=True)
class Step:
    """One thing to do."""

    finding: str
    """What was found."""
    advice: str
    yaml: str = ""
    """The lines to write into the experiment file."""


def next_steps(run: RunData) -> list[Step]:
    """Return what to do next, most important first; empty where nothing speaks against the result."""
    experiment = _experiment(run)
    steps = [
        *_unfinished(run),
        *_failed(run, experiment),
        *(_improving(run, experiment) if experiment is not None else ()),
        *(_edges(run, experiment) if experiment is not None else ()),
        *_seeds(run, experiment),
        *_few(run),
        *_dead(run),
    ]
    return steps


def _experiment(run: RunData) -> Experiment | None:
    """Return the run's experiment; None where its file is missing or is no longer read by this version."""
    if not run.directory.experiment_file.exists():
        return None
    try:
        return load_experiment(run.directory.experiment_file, env=AsWritten())
    except UserError:
        return None


def _unfinished(run: RunData) -> list[Step]:
    if run.board.ended and run.board.status != "interrupted":
        return []
    left = sum(is_live(row.status) for row in run.rows)
    return [
        Step(
            f"The run has not ended: {left} trial{'s' * (left != 1)} of this table {'are' if left != 1 else 'is'} unfinished.",
            "Where it is not training now, run the same command again: it resumes from its checkpoint.",
        )
    ]


def _failed(run: RunData, experiment: Experiment | None) -> list[Step]:
    again = {row.retry_of for row in run.rows if row.status != "failed"}
    failed = [
        row for row in run.rows if row.status == "failed" and {row.number, row.retry_of}.isdisjoint(again - {None})
    ]
    if not failed:
        return []
    return [
        Step(
            f"{len(failed)} trial{'s' * (len(failed) != 1)} failed: {', '.join(str(row.number) for row in failed[:8])}.",
            "The leaderboard below says why. Where chance may help, try them again: this continues the run.",
            f"search: {{retry_failed: {1 + (0 if experiment is None else experiment.spec.search.retry_failed)}}}",
        )
    ]


def _improving(run: RunData, experiment: Experiment) -> list[Step]:
    """Return advice to train longer, where a result was still improving before its learning rate decayed."""
    if run.board.matched:
        names = list(dict.fromkeys(entry.architecture for entry in run.board.matched if entry.still_improving))
        who = ", ".join(names)
    else:
        who = f"trial {run.best.number}, the best," if run.best is not None and _loss_improves(run, experiment) else ""
    if not who:
        return []
    tokens = max(row.total_tokens for row in run.rows)
    return [
        Step(
            f"Still improving: {who} improved by more than 3% over the last 15% of the run before the learning rate decayed.",
            "A longer run may change the verdict.",
            f"base: {{training_tokens: {short_count(4 * tokens)}}}",
        )
    ]


def _loss_improves(run: RunData, experiment: Experiment) -> bool:
    """Return whether the training loss of the best trial was still falling, by the rule of matched runs."""
    best = run.best
    assert best is not None
    try:
        ends = trend_points(experiment.resolve(best.params))
    except UserError:  # the file has changed since
        return False
    losses = [
        (line["tokens"], line["losses/mse_loss"])
        for line in run.metrics[best.number]
        if line["kind"] == "train" and math.isfinite(line.get("losses/mse_loss", math.nan))
    ]
    known = [[point for point in losses if point[0] <= end] for end in ends]
    if not all(known) or known[0][-1] == known[1][-1]:
        return False  # blocks are longer than the stretch
    trend = [list(map(float, points[-1])) for points in known]
    return bool(still_improving(replace(best, trend=trend), ObjectiveSpec(minimize="mse")))


def _edges(run: RunData, experiment: Experiment) -> list[Step]:
    """Return advice to widen ranges at whose edge the result lies."""
    best = run.best
    if best is None:
        return []
    is_pareto = len(run.board.goals) > 1
    rows = [row for row in run.complete if row.on_front] if is_pareto else [best]
    steps = []
    for path in dict.fromkeys(parameter.path for parameter in experiment.parameters()):
        if is_pareto and path.rpartition(".")[2] in _sparsity_fields(run):
            continue  # a front reaches from one end of it to the other
        found = [
            (row, p) for row in rows for p in experiment.parameters() if p.path == path and p.is_active(row.params)
        ]
        at = [(row, p, _place(p, row.params.get(path))) for row, p in found]
        for name in ("lower", "upper"):
            there = [(row, p) for row, p, place in at if place is not None and _edge_of(place) == name]
            if not there or (is_pareto and 2 * len(there) <= len(at)):
                continue
            row, p = there[0]
            which = (
                f"{len(there)} of the {len(at)} SAEs of the front have"
                if is_pareto
                else f"trial {row.number}, the best, has"
            )
            low, high = _wider(p, name)
            steps.append(
                Step(
                    f"The edge of the space is reached: {which} {path} at the {name} end of "
                    f"[{p.spec.low:g}, {p.spec.high:g}]" + ("." if is_pareto else f", {setting(row.params[path])}."),
                    "A wider range continues this run: change it and run the same command again.",
                    f"space: {{{path}: {{{p.spec.kind}: [{low}, {high}]{', log: true' if p.spec.log else ''}}}}}",
                )
            )
    return steps


def _edge_of(place: float) -> str:
    """Return which end of its range a place lies at; empty where it lies at none."""
    return "lower" if place < _EDGE else "upper" if place > 1 - _EDGE else ""


def _sparsity_fields(run: RunData) -> set[str]:
    found = {"target_l0"}
    for name in run.architectures:
        try:
            found.add(spec_class(name).sparsity_field or "")
        except KeyError:  # of a plug-in that is not loaded here
            continue
    return found


def _place(parameter: Parameter, value: object) -> float | None:
    """Return where in its range a value lies, 0 to 1; None where the range has no ends to widen."""
    spec = parameter.spec
    if spec.kind == "choice" or isinstance(value, bool) or not isinstance(value, (int, float)) or spec.high <= spec.low:
        return None
    if spec.log:
        return math.log(value / spec.low) / math.log(spec.high / spec.low)
    return (value - spec.low) / (spec.high - spec.low)


def _wider(parameter: Parameter, end: str) -> tuple[str, str]:
    """Return a range that reaches as far again beyond one end, at most three times as far in a logarithmic one."""
    spec = parameter.spec
    low, high = float(spec.low), float(spec.high)
    if spec.log:
        factor = min(3.0, high / low)
        low, high = (low / factor, high) if end == "lower" else (low, high * factor)
    else:
        low, high = (low - (high - low), high) if end == "lower" else (low, high + (high - low))
        low = max(0.0, low) if spec.low >= 0 else low
    if spec.kind == "int":
        return str(max(1, round(low)) if spec.low >= 1 else round(low)), str(round(high))
    return f"{low:.3g}", f"{high:.3g}"


def _seeds(run: RunData, experiment: Experiment | None) -> list[Step]:
    """Return advice to train more seeds, where seeds or the evaluation's noise could change the winner."""
    best = run.best
    if best is None:
        return []
    tied = [f"{e.architecture} at L0 {e.target_l0:g}" for e in run.board.matched if e.is_tied]
    close = [f"trial {c.other.number}" for c in comparisons(run) if c.is_noise and c.other.status != "reference"]
    if best.tied_to_rank is not None and best.tied_to_rank > 1:
        close = [f"ranks 1 to {best.tied_to_rank}"]
    confirmed = experiment is not None and experiment.spec.search.confirm is not None
    if tied:
        text = f"Tied with the winner: {', '.join(tied)}."
    elif close:
        text = f"The best is tied with {', '.join(close)}: the difference is within noise."
    elif best.replicates == 1 and not confirmed and len(run.complete) > 1:
        text = "Every trial has one seed: how far seeds alone move a result is not known."
    else:
        return []
    if run.board.matched:
        more = max(3, 2 * best.replicates)
        advice = "More seeds may break the tie." if tied else "More seeds show it."
        return [Step(text, advice, f"search: {{replicates: {more}}}")]
    if confirmed:
        return [Step(text, "More held-out tokens make the measurement sharper.", "evaluation: {select_tokens: 1M}")]
    return [Step(text, "Train the finalists again with several seeds.", "search: {confirm: {top: 3, replicates: 3}}")]


def _few(run: RunData) -> list[Step]:
    if not run.board.ended or run.board.matched or len(run.rows) < 2:
        return []
    few = [
        f"{name} ({n})"
        for name in run.architectures
        if (n := sum(row.architecture == name for row in run.complete)) < _FEW_TRIALS
    ]
    if not few or len(run.architectures) < 2:
        return []
    return [
        Step(
            f"Few finished trials: {', '.join(few)}. What they say of an architecture is what they say of a few settings.",
            "Run more trials: a larger number continues this run.",
            f"search: {{trials: {2 * len(run.rows)}}}",
        )
    ]


def _dead(run: RunData) -> list[Step]:
    best = run.best
    if best is None or not has_dead_fraction(best) or best.metrics["dead_fraction"] <= _MANY_DEAD:
        return []
    return [
        Step(
            f"{100 * best.metrics['dead_fraction']:.0f}% of the latents of the best SAE are dead.",
            "A smaller dictionary, a lower learning rate or a longer warm-up keeps more of them alive.",
        )
    ]
