"""What the driver knows of one run: its experiment, its rules, what its preflight found, and what a worker said when it opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saesweep.driver.blocks import BlockPlan, plan_blocks
from saesweep.driver.fleet import Member, folder_of
from saesweep.driver.progress import Board
from saesweep.driver.search import Rules, rules_of
from saesweep.driver.trial_results import cannot_keep_limits
from saesweep.driver.visits import Attempt, Visit, suggested_per_stream, trials_per_stream, visit_of
from saesweep.engines.protocol import Engine
from saesweep.engines.records import Opened, StreamFacts, WorkerPlan
from saesweep.errors import UserError
from saesweep.experiment import SAMPLERS, Experiment, Stream, stream_of, streams_of, with_widths
from saesweep.runs import RunDirectory
from saesweep.specs import BaseRun, ObjectiveSpec
from saesweep.study import check_sampler


@dataclass(frozen=True)
class Session:
    """A run while a worker is open."""

    experiment: Experiment
    """The whole experiment."""
    streams: tuple[Stream, ...]
    """Its activation streams."""
    visit: Visit
    """The one that is open."""
    directory: RunDirectory
    objective: ObjectiveSpec
    blocks: BlockPlan
    rules: Rules
    """What the scheduler goes by."""
    facts: Facts
    opened: Opened
    """What the first worker said."""
    saved: Mapping[str, Any] | None
    """What the driver had saved; None at the start."""
    board: Board
    notes: tuple[str, ...]
    """What was chosen and why, and warnings."""

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        directory: RunDirectory,
        facts: Facts,
        stream: Stream,
        opened: Opened,
        saved: Mapping[str, Any] | None = None,
    ) -> Session:
        """Return the session of an opened worker.

        Args:
            experiment: The whole experiment.
            directory: The run directory as the stream sees it.
            facts: What the preflight found.
            stream: The open stream.
            opened: What the worker said.
            saved: What the driver of several workers had saved; left out with one, whose checkpoint has it.

        Raises:
            UserError: `search.stratify` names no unconditional choice of the space.
        """
        streams = streams_of(experiment)
        saved = opened.driver if saved is None else saved
        own, suggested = stream.experiment, suggested_per_stream(saved_attempts(saved))
        visit = visit_of(experiment, streams, stream, suggested)
        objective = own.objective(has_lm_head=opened.has_lm_head)
        blocks = plan_blocks(own.base_run(), own.spec.search, own.spec.cohort)
        return cls(
            experiment=experiment,
            streams=streams,
            visit=visit,
            directory=directory,
            objective=objective,
            blocks=blocks,
            rules=rules_of(experiment, objective, blocks, opened.n_slots, visit),
            facts=facts,
            opened=opened,
            saved=saved,
            board=Board.of(directory.leaderboard_file, experiment.spec, objective, opened),
            notes=(*own.warnings, *facts[streams.index(stream)].warnings, *opened.notes),
        )

    @property
    def label(self) -> str:
        """Label of the open stream; empty where all trials share one."""
        return self.visit.stream.label

    @property
    def replicates(self) -> int:
        """SAEs per trial."""
        return self.experiment.spec.search.replicates

    def stream_of(self, params: Mapping[str, Any]) -> Stream:
        """Return the stream that a trial belongs to."""
        return stream_of(self.streams, params)

    def resolve(self, params: Mapping[str, Any]) -> BaseRun:
        """Return the full run of a trial, of whichever stream, with its widths."""
        widths = self.facts[self.streams.index(self.stream_of(params))].d_in
        return with_widths(self.experiment.resolve(params), widths)

    def cannot_keep_limits(self, params: Mapping[str, Any]) -> bool:
        """Return whether a trial with these settings has an L0 beyond the objective's limits by construction."""
        return cannot_keep_limits(self.resolve(params), self.objective)


def saved_attempts(saved: Mapping[str, Any] | None) -> list[Attempt]:
    """Return the trials of a checkpoint of the driver."""
    found = () if saved is None else saved["trials"]
    return [Attempt(data["number"], data.get("retry_of"), data["status"], data["stream"]) for data in found]


def _without_storage(written: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an experiment as workers get it: the study, and the password of its database, are none of their business."""
    if "storage" not in written.get("search", {}):
        return written
    return {**written, "search": {key: value for key, value in written["search"].items() if key != "storage"}}


def worker_plan(
    experiment: Experiment, directory: RunDirectory, stream: Stream, member: Member | None = None, sharing: int = 1
) -> WorkerPlan:
    """Return what a worker opens.

    Args:
        experiment: The whole experiment.
        directory: The run directory.
        stream: What it opens.
        member: Who it is; the only one when left out.
        sharing: How many workers there are.
    """
    n_trials = trials_per_stream(experiment, streams_of(experiment))[stream.label]
    member = member or Member(number=0)
    return WorkerPlan(
        experiment=_without_storage(experiment.written),
        run_dir=str(directory.path),
        stream=stream.label,
        stream_folder=stream.folder,
        n_trials=max(1, -(-n_trials // sharing)),
        measures_references=member.number == 0,
        folder=folder_of(member.number),
        device=member.requested_device,
        sharing=sharing,
        first_block=member.first_block,
    )


Facts = tuple[StreamFacts, ...]
"""What the preflight found, for every stream in its order."""


def preflight(experiment: Experiment, engine: Engine) -> Facts:
    """Run the preflight of every stream: model, hooks, dataset, weights to start from; no language model is loaded.

    Raises:
        UserError: Something does not fit together.
    """
    found = engine.preflight(experiment)
    heads = {facts.has_lm_head for facts in found if facts.has_lm_head is not None}
    if len(heads) > 1 and experiment.spec.objective is None:
        raise UserError(
            "objective: missing; it would be another one for the models with a language-model head than for those "
            "without one. State one that all can be measured by, such as {maximize: explained_variance}"
        )
    objectives = [experiment.objective(has_lm_head) for has_lm_head in heads]  # a metric that no model can give
    objective = next(iter(objectives), None) or experiment.spec.objective or experiment.objective(False)
    if experiment.spec.search.sampler not in SAMPLERS:
        check_sampler(experiment.spec.search.sampler, [goal.direction for goal in objective.goals])
    return found
