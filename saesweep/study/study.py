"""The Optuna study of a sweep: suggestions that a restart repeats, and results that a replay verifies."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from saesweep.activity import doing
from saesweep.collection import paused_collection
from saesweep.errors import UserError
from saesweep.space import Space, has_settings
from saesweep.status import DecidedStatus
from saesweep.study.encoding import (
    RUNG_PREFIX,
    STATES,
    Encoding,
    ExpectedEnd,
    TrialRecord,
    named_values,
    rung_reports,
    same_values,
    to_record,
    verify_end,
)
from saesweep.study.history import EarlierTrial, as_trials
from saesweep.study.observed import Observations, related_trials
from saesweep.study.opening import open_study
from saesweep.study.outage import Outage, outlasting
from saesweep.study.samplers import Direction, check_sampler, sampler_factory
from saesweep.study.storage import close_storage, open_storage, shown, silence_optuna, translate_damage
from saesweep.study.suggestion import Suggestion, frozen, next_of_grid, suggest

N_STARTUP_TRIALS = 10
"""Random trials before TPE models the space, Optuna's default; half of it in each stratum, which is a smaller space."""


class Study:
    """The trials of one experiment in one storage, for one process at a time.

    A sweep that was killed and is replayed from a checkpoint gives the same study, if each block goes: all reports, all
    tells, then all asks in number order. Whatever the storage already holds is returned or verified, never repeated.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: RDBStorage,
        *,
        space: Space,
        sampler: str,
        seed: int,
        baselines: Sequence[Mapping[str, Any]],
        history: Sequence[EarlierTrial] = (),
        metric_names: Sequence[str] = (),
        warn: Callable[[str], None] = doing,
    ) -> None:
        self._study = study
        self._storage = storage
        self._space = space
        self._encoding = Encoding(space)
        self._sampler = sampler
        self._seed = seed
        self._baselines = tuple(dict(baseline) for baseline in baselines)
        self._observations = Observations(self._encoding, as_trials(self._encoding, history))
        self._metric_names = tuple(metric_names)
        self._warn = warn

    @classmethod
    def open(
        cls,
        path_or_url: str,
        *,
        name: str,
        directions: Sequence[Direction],
        space: Space,
        sampler: str,
        seed: int,
        fingerprint: str,
        known_fingerprints: Collection[str] = (),
        baselines: Sequence[Mapping[str, Any]] = (),
        history: Sequence[EarlierTrial] = (),
        owner: str | None = None,
        metric_names: Sequence[str] = (),
        warn: Callable[[str], None] = doing,
    ) -> Study:
        """Create a study, or open the one that the same experiment has made.

        Args:
            path_or_url: A SQLite file, or any database URL that Optuna takes.
            name: Name of the study in the storage.
            directions: One per objective, in the order of the values.
            space: The search space; empty for a single run.
            sampler: `tpe`, `random`, `grid`, `fixed` (the baselines and nothing else), or the class path of an Optuna
                sampler.
            seed: The search seed; with the trial number it seeds every suggestion.
            fingerprint: Hash of everything that decides results.
            known_fingerprints: Those that the run has had before, with other spaces: where all trials lie in this one, the
                study is moved to it.
            baselines: Settings of the first trials, by path; parameters left out are suggested.
            history: Finished trials of another study for the sampler to learn from; points of `space`, the same ones
                whenever this study is opened.
            owner: The run that writes it, where other runs can reach the same database.
            metric_names: Names of the values, one per objective, for dashboards; none are set where it is empty.
            warn: Is told where the database does not answer for a while.

        Raises:
            UserError: When the storage cannot be opened, the study belongs to another experiment (with what changed),
                or the sampler cannot be used.
        """
        silence_optuna()
        if sampler != "grid":
            check_sampler(sampler, directions)
        search = {
            "directions": list(directions),
            "sampler": sampler,
            "seed": seed,
            "baselines": [dict(baseline) for baseline in baselines],
        }
        storage = open_storage(path_or_url)
        try:
            with translate_damage(shown(path_or_url)):
                study = open_study(
                    storage,
                    name=name,
                    directions=directions,
                    space=space,
                    search=search,
                    fingerprint=fingerprint,
                    known_fingerprints=known_fingerprints,
                    owner=owner,
                    metric_names=metric_names,
                )
        except BaseException:
            close_storage(storage)
            raise
        return cls(
            study,
            storage,
            space=space,
            sampler=sampler,
            seed=seed,
            baselines=baselines,
            history=history,
            metric_names=metric_names,
            warn=warn,
        )

    def outage(self) -> Outage:
        """Return what lets a call wait for the database."""
        return Outage(self._storage, self._warn)

    def close(self) -> None:
        """Close the connections to the storage."""
        close_storage(self._storage)

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @outlasting
    def ask(
        self,
        number: int,
        stratum: Mapping[str, Any] | None = None,
        given: Mapping[str, Any] | None = None,
        expected: Mapping[int, ExpectedEnd] | None = None,
        refuses: Callable[[Mapping[str, Any]], bool] | None = None,
        aim: Collection[str] = (),
    ) -> dict[str, Any]:
        """Return the settings of a trial by dotted path; add the trial where the study does not have it yet.

        Args:
            number: Number of the trial; a new one has the next number of the study.
            stratum: Settings that the trial shares with its stratum, whose trials alone the sampler sees.
            given: Further settings of this trial; those of the baseline of its number when left out.
            expected: What running trials are expected to be worth, by number. The sampler learns from it, as from what it was
                told of pruned ones, so that it leaves settings that will not do before any of their trials has finished.
            refuses: Whether settings by path are not worth a trial: others are suggested instead, where there are any.
            aim: Paths of the stratum that say what its trials aim at. While few of them have finished, the sampler learns from
                trials with another aim too, but nothing about the parameters that decide it.

        Raises:
            UserError: When a baseline does not fit its stratum or the space, or a grid has no points left.
            ValueError: When the number is neither that of a known trial nor the next.
        """
        trials = self._study.get_trials(deepcopy=False)
        if number < len(trials):
            return self._encoding.decode(trials[number].params)
        if number > len(trials):
            raise ValueError(f"trial {number} is asked, but the study's next trial is {len(trials)}")
        settings = self._baseline(number) if given is None else given
        with paused_collection():  # the sampler gets a copy of every trial
            suggestion = self._suggest(trials, dict(stratum or {}), settings, expected or {}, refuses, aim)
        # One transaction: a kill leaves a whole trial or none.
        self._study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=suggestion.named,
                distributions=suggestion.distributions,
                system_attrs=suggestion.system_attrs,
            )
        )
        return suggestion.params

    @outlasting
    def has(self, number: int) -> bool:
        """Return whether the study holds a trial of this number."""
        return number < len(self._study.get_trials(deepcopy=False))

    @property
    def sampler(self) -> str:
        """What suggests trials, as the file names it."""
        return self._sampler

    @outlasting
    def restore(self, number: int, params: Mapping[str, Any]) -> None:
        """Add a running trial that a checkpoint holds and the study does not, with its settings by path; one that is there stays.

        Raises:
            UserError: The study cannot take this trial as its next, or its settings lie outside the space.
        """
        count = len(self._study.get_trials(deepcopy=False))
        if number < count and self._encoding.decode(self._trial(number).params) == dict(params):
            return
        if number != count:
            raise UserError(f"study.db holds {count} trials, so that trial {number} of the checkpoint cannot be added")
        try:
            point = frozen(self._encoding, params)
            trial = optuna.trial.create_trial(
                state=TrialState.RUNNING, params=point.named, distributions=point.distributions
            )
        except (KeyError, ValueError) as error:
            raise UserError(f"trial {number} of the checkpoint does not lie in this space: {error}") from None
        self._study.add_trial(trial)

    @outlasting
    def repeat(self, number: int, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a trial that repeats another one; add it where the study does not have it yet.

        Args:
            number: Number of the trial; a new one has the next number of the study.
            params: The other one's settings by dotted path.

        Raises:
            UserError: The study holds other settings under this number.
        """
        if number == len(self._study.get_trials(deepcopy=False)):
            self.restore(number, params)
        found = self._encoding.decode(self._trial(number).params)
        if found != dict(params):
            raise UserError(
                f"trial {number} repeats one with {dict(params)}, but the study holds {found} under that number; search.retry_failed "
                "was changed before the first checkpoint: undo the change, or start a new run with --run-dir"
            )
        return found

    def _suggest(
        self,
        trials: Sequence[FrozenTrial],
        stratum: dict[str, Any],
        given: Mapping[str, Any],
        expected: Mapping[int, ExpectedEnd],
        refuses: Callable[[Mapping[str, Any]], bool] | None,
        aim: Collection[str],
    ) -> Suggestion:
        """Suggest the next trial."""
        number = len(trials)
        settings = {**given, **stratum}
        if not has_settings(settings, given):
            raise UserError(f"search.baselines[{number}] does not belong to its stratum {stratum}")
        if self._sampler == "grid":
            return next_of_grid(self._encoding, trials, settings)
        related = related_trials(self._space, stratum, aim, until=N_STARTUP_TRIALS)
        sampler = sampler_factory(
            self._sampler,
            # Trials that teach a part of the settings are to a sampler like trials that have no others.
            conditional=related is not None or self._space.is_conditional(tuple(stratum)),
            n_startup_trials=N_STARTUP_TRIALS // 2 if stratum else N_STARTUP_TRIALS,
        )
        return suggest(
            self._encoding,
            self._observations.of(trials, expected),
            directions=self._study.directions,
            sampler=sampler,
            entropy=(self._seed, number),
            settings=settings,
            stratum=stratum,
            related=related,
            n_earlier=self._observations.n_earlier,
            refuses=refuses,
        )

    def _baseline(self, number: int) -> dict[str, Any]:
        """Return the given settings of a trial; none for one that is suggested."""
        return self._baselines[number] if number < len(self._baselines) else {}

    @outlasting
    def report(self, number: int, step_tokens: int, values: Sequence[float]) -> None:
        """Store what a trial measured at a rung; a repeated report is verified.

        Args:
            number: Number of the trial.
            step_tokens: Training tokens of the trial at the rung.
            values: One per objective, in its own direction.

        Raises:
            RuntimeError: When the study holds another report for that rung (the replay is not the run it repeats).
            ValueError: When the number of values is not that of the objectives.
        """
        values = self._checked(number, values)
        trial = self._trial(number)
        known = rung_reports(trial).get(step_tokens)
        if known is not None or trial.state.is_finished():
            if known is None or not same_values(known, values):
                raise RuntimeError(f"trial {number} at {step_tokens} tokens: reported {known} before, now {values}")
            return
        if len(values) == 1:
            self._handle(trial).report(values[0], step_tokens)
        else:
            self._handle(trial).set_user_attr(f"{RUNG_PREFIX}{step_tokens}", named_values(values, self._metric_names))

    @outlasting
    def tell(
        self,
        number: int,
        state: DecidedStatus,
        values: Sequence[float] | None = None,
        *,
        constraints: Mapping[str, float] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """End a trial; one that has ended is verified and left alone.

        Args:
            number: Number of the trial.
            state: `complete` with values, or `pruned` without.
            values: One finite value per objective, in its own direction.
            constraints: Violation by name of a complete trial; above 0 is infeasible.
            attrs: Anything of JSON to keep with the trial.

        Raises:
            RuntimeError: When the trial had ended otherwise (the replay is not the run it repeats).
            ValueError: When values and state do not fit, or a value is not finite.
        """
        if (state == "complete") != (values is not None):
            raise ValueError(f"trial {number}: a complete trial has values, a pruned one none; got {state} {values}")
        checked_values = None if values is None else self._checked(number, values)
        if checked_values is not None and not all(map(math.isfinite, checked_values)):
            raise ValueError(f"trial {number}: {checked_values} is not finite; prune the trial with the reason instead")
        trial = self._trial(number)
        if trial.state.is_finished():
            verify_end(to_record(trial, self._encoding), state, checked_values, constraints or {})
            return
        handle = self._handle(trial)
        for key, value in (attrs or {}).items():
            handle.set_user_attr(key, value)
        for key, violation in (constraints or {}).items():
            # A kill between a constraint and the end of the trial leaves it set, and Optuna warns when it is set again.
            if key not in trial.constraints:
                handle.set_constraint(key, float(violation))
            elif trial.constraints[key] != violation:
                raise RuntimeError(f"trial {number}: {key} was {trial.constraints[key]} before, now {violation}")
        if checked_values is None:
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, list(checked_values))

    @outlasting
    def trials(self) -> list[TrialRecord]:
        """Return all trials in number order."""
        known = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state in STATES]
        return [to_record(trial, self._encoding) for trial in known]

    def _checked(self, number: int, values: Sequence[float]) -> tuple[float, ...]:
        """Return the values as floats, one per objective."""
        if len(values) != len(self._study.directions):
            n = len(self._study.directions)
            raise ValueError(f"trial {number}: {len(values)} values for {n} objectives")
        return tuple(float(value) for value in values)

    def _trial(self, number: int) -> FrozenTrial:
        """Return a known trial."""
        trials = self._study.get_trials(deepcopy=False)
        if not 0 <= number < len(trials):
            raise ValueError(f"trial {number} is not among the {len(trials)} trials of the study")
        return trials[number]

    def _handle(self, trial: FrozenTrial) -> optuna.Trial:
        """Attach to a running trial, perhaps one that another process asked."""
        return optuna.Trial(self._study, trial._trial_id)
