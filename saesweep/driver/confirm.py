"""The finalists of a search train again, together from the start of the stream and longer; that decides.

A confirmation is a run of its own in `confirm/<fingerprint>/` of the run directory: a fixed list of trials with its own
study, checkpoints and leaderboard, so that it resumes as every run does.
"""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from saesweep.driver.by_stream import copy_stream_exports
from saesweep.driver.finish import Outcome
from saesweep.driver.log import JsonLogListener
from saesweep.driver.matched import best_at_middle, matched_entries, matched_notes
from saesweep.driver.noise import noise_notes
from saesweep.driver.phase import Phase, train
from saesweep.driver.ranking import by_knee_distance, costs, winner
from saesweep.driver.session import preflight
from saesweep.driver.stopping import StopFlag
from saesweep.engines.protocol import Engine
from saesweep.events import BlockDone, BlockProgress, Event, EventBus, Note, Row
from saesweep.experiment import Experiment, are_comparable, dump_yaml, load_experiment, stream_of, streams_of
from saesweep.messages import short_count
from saesweep.runs import RunDirectory, copy_export
from saesweep.specs import ConfirmSpec, ObjectiveSpec, format_count


def confirm(
    experiment: Experiment,
    spec: ConfirmSpec,
    directory: RunDirectory,
    search: Phase,
    engine: Engine,
    bus: EventBus,
    stop: StopFlag,
) -> Phase:
    """Train the finalists of a search again and return the search with their verdict.

    Raises:
        UserError: The data or the memory does not fit a longer run.
    """
    streams = streams_of(experiment)
    chosen = finalists(search.rows, search.objective, spec.top)
    if not are_comparable(streams):
        groups = [[row for row in search.rows if row.stream == stream.label] for stream in streams]
        chosen = [row for group in groups for row in finalists(group, search.objective, spec.top)]
    # A fixed list is run stream by stream.
    chosen.sort(key=lambda row: streams.index(stream_of(streams, row.params)))
    if not chosen:
        outcome = Outcome(None, None, notes=(*search.notes, "no trial finished: there is nothing to confirm"))
        return _concluded(search, outcome, spec, "", ())
    longer = confirm_experiment(experiment, spec, chosen)
    folder = RunDirectory(directory.path / "confirm" / longer.fingerprint()[:12])
    tokens = format_count(longer.base_run().total_steps * longer.base_run().train_batch_size_tokens)
    numbers = ", ".join(str(row.number) for row in chosen)
    bus.emit(
        Note(
            level="info",
            message=f"confirming trials {numbers}: {spec.replicates} seeds each, {tokens} tokens, together",
        )
    )
    with folder:
        facts = preflight(longer, engine)
        folder.save_experiment(dump_yaml(longer.written))
        listeners = EventBus(JsonLogListener(folder), forward(bus.emit, chosen))
        verdict = train(longer, folder, facts, engine, listeners, stop)
    trained_tokens = search.trained_tokens + verdict.trained_tokens
    if not verdict.is_complete:
        search.board.write(
            search.rows, status="interrupted", stream_tokens=search.stream_tokens, matched=search.outcome.matched
        )
        return replace(search, is_complete=False, trained_tokens=trained_tokens)
    rows = renumbered(verdict.rows, chosen)
    found = verdict.outcome
    best = None if found.best is None else chosen[found.best].number
    copy_stream_exports(folder, directory, streams)
    if found.best_dir is not None:
        copy_export(found.best_dir, directory.best, {"trial": best, "confirms": experiment.spec.name})
    for exported, target in ((folder.pareto, directory.pareto), (folder.matched, directory.matched)):
        if exported.exists():
            if target.exists():
                shutil.rmtree(target)
            shutil.copytree(exported, target)
    entries = tuple(replace(entry, trial=chosen[entry.trial].number) for entry in found.matched)
    # The confirmation's own notes about its winner name its own trial numbers.
    about_winner = best_at_middle(entries, search.objective) if entries else winner(rows, search.objective)
    about = [*matched_notes(entries), *about_winner[1], *noise_notes(rows, search.objective)]
    if not are_comparable(streams):
        about = [f"ranks are within a stream, and best/ holds the winner of the first, {streams[0].label}"]
    notes = (*search.notes, *verdict.notes, *verdict_notes(rows, search.objective), *about)
    outcome = Outcome(best, None if best is None else directory.best, found.test_metrics, notes, entries)
    return _concluded(replace(search, trained_tokens=trained_tokens), outcome, spec, str(folder.path.name), rows)


def _concluded(search: Phase, outcome: Outcome, spec: ConfirmSpec, folder: str, rows: Sequence[Row]) -> Phase:
    """Write the final leaderboard: the search's rows, and the finalists' under `confirm`."""
    search.board.write(
        search.rows,
        status="complete",
        stream_tokens=search.stream_tokens,
        best=outcome.best,
        test_metrics=outcome.test_metrics,
        notes=outcome.notes,
        matched=outcome.matched,
        confirm={
            "settings": spec.model_dump(mode="json"),
            "folder": folder,
            "rows": [asdict(row) for row in rows],
        },
    )
    return replace(search, outcome=outcome)


def finalists(rows: Sequence[Row], objective: ObjectiveSpec, top: int) -> list[Row]:
    """Return the trials to confirm, best first: the top of the ranking, or the points of the front nearest its knee.

    With matched L0 they are the best architectures, each with its best trial at every target, so that the confirmation
    interpolates as the search does.

    Args:
        rows: The leaderboard of a search, best first.
        objective: What is optimised.
        top: How many at most; of architectures with matched L0.
    """
    if objective.matched is not None:
        return _matched_finalists(rows, objective, top)
    finished = [row for row in rows if row.status == "complete"]
    on_front = [row for row in finished if row.on_front]
    if objective.is_pareto and on_front:
        order = by_knee_distance({row.number: costs(row.metrics, objective) for row in on_front}, objective)
        finished = sorted(on_front, key=lambda row: order.index(row.number))
    return finished[:top]


def _matched_finalists(rows: Sequence[Row], objective: ObjectiveSpec, top: int) -> list[Row]:
    places: dict[tuple[str, str], list[int]] = {}
    entries = matched_entries(rows, objective)
    for entry in entries:
        here = [e for e in entries if (e.target_l0, e.hook) == (entry.target_l0, entry.hook)]
        places.setdefault((entry.hook, entry.architecture), []).append(here.index(entry))
    order = sorted(places, key=lambda key: (-len(places[key]), sum(places[key]), key))[:top]
    chosen = [e.trial for key in order for e in entries if (e.hook, e.architecture) == key]
    by_number = {row.number: row for row in rows}
    return [by_number[number] for number in chosen]


def confirm_experiment(experiment: Experiment, confirm: ConfirmSpec, chosen: Sequence[Row]) -> Experiment:
    """Return the experiment that trains the finalists side by side, with nothing pruned."""
    tree = copy.deepcopy(experiment.written)
    tree["name"] = f"{experiment.spec.name[:72]}-confirm"
    tree["base"].pop("checkpoint_path", None)  # the search's; the finalists keep theirs in their own folders
    tree["base"]["training_tokens"] = confirm.tokens_of(experiment.base_run().training_tokens)
    search = experiment.spec.search
    settings = [{**row.params, **_frozen(row)} for row in chosen]
    if experiment.spec.objective is not None and experiment.spec.objective.matched is not None:
        tree["objective"]["matched"]["steer"] = False
        for path in dict.fromkeys(path for row in chosen for path in _frozen(row)):
            # Architectures that have this field and are not steered keep the value that they had.
            kept = [experiment.resolve(row.params).sae for row in chosen]
            for setting, sae in zip(settings, kept, strict=True):
                if hasattr(sae, path[4:]):
                    setting.setdefault(path, getattr(sae, path[4:]))
            values = dict.fromkeys(setting[path] for setting in settings if path in setting)
            tree.setdefault("space", {})[path] = {"choice": list(values)}
            for own in tree.get("by_architecture", {}).values():  # every finalist states its own now
                own.pop(path, None)
                own.get("sae", {}).pop(path.removeprefix("sae."), None)
    tree["search"] = {
        "sampler": "fixed",
        "fixed": settings,
        "pruner": "none",
        "replicates": confirm.replicates,
        **({} if search.max_failed is None else {"max_failed": search.max_failed}),
    }
    tree["cohort"] = {**tree.get("cohort", {}), "size": len(chosen) * confirm.replicates}
    return load_experiment(tree, env=experiment.environment)


def _frozen(row: Row) -> dict[str, float]:
    """Return the coefficient that a steered trial ended with, by path: the geometric mean over its replicates."""
    if not row.coefficient:
        return {}
    logs = [math.log(value) for value in row.coefficient["frozen"]]
    return {row.coefficient["field"]: math.exp(sum(logs) / len(logs))}


def verdict_notes(rows: Sequence[Row], objective: ObjectiveSpec) -> list[str]:
    """Return one line per finalist, best first."""
    lines = []
    for row in rows:
        values = []
        for goal in objective.goals:
            value, spread = row.metrics.get(goal.metric), row.spread.get(goal.metric)
            if value is not None:
                values.append(f"{goal.metric} {value:.5g}" + (f" ± {spread:.2g}" if spread is not None else ""))
        result = ", ".join(values) if row.status == "complete" else f"{row.status}: {row.reason}"
        seeds = f"{row.replicates} seed{'s' * (row.replicates != 1)}"
        stability = row.metrics.get("seed_stability", math.nan)
        seeds += f" that share {100 * stability:.0f}% of their latents" if math.isfinite(stability) else ""
        lines.append(
            f"confirmed trial {row.number} ({row.architecture} {row.sparsity}): {result} ({seeds}, {short_count(row.tokens)} tokens)"
        )
    return lines


def renumbered(rows: Sequence[Row], chosen: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows of a confirmation under the numbers that its trials have in the search."""
    return tuple(replace(row, number=chosen[row.number].number) for row in rows)


def forward(emit: Callable[[Event], None], chosen: Sequence[Row]) -> Callable[[Event], None]:
    """Return a listener that shows a confirmation's progress to the listeners of the search."""

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            emit(event)
        elif isinstance(event, BlockProgress):
            emit(replace(event, tokens={chosen[number].number: tokens for number, tokens in event.tokens.items()}))
        elif isinstance(event, BlockDone):
            losses = {chosen[number].number: loss for number, loss in event.losses.items()}
            best = None if event.best is None else chosen[event.best].number
            emit(replace(event, rows=renumbered(event.rows, chosen), losses=losses, best=best))

    return listen
