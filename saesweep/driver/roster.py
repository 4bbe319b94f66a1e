"""All trials of a run as the driver has them: those that train, those that wait, those that have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saesweep.driver.fleet import SlotsLine, folder_of
from saesweep.driver.search import Search
from saesweep.driver.session import Session
from saesweep.driver.standings import Leaderboard
from saesweep.driver.trial_results import tell_arguments
from saesweep.driver.trials import Trial, new_trial, row_of
from saesweep.events import Row
from saesweep.scheduler import Action, Ask, State, Stop
from saesweep.status import EndedStatus, is_live
from saesweep.study import Ahead, KeptTrial, ahead_of, catch_up


class Roster:
    """The trials, and the leaderboard that they make.

    Args:
        session: What was opened and decided.
        search: The study and the scheduler's rules.
    """

    def __init__(self, session: Session, search: Search) -> None:
        self._session = session
        self._search = search
        self.trials: dict[int, Trial] = {}
        self.live: dict[int, Trial] = {}
        """Those that have not ended: all that changes in a block."""
        self.suggested: Counter[str] = Counter()
        """How many trials each stream has had; those that repeat a failed one are not counted."""
        self.ended: list[int] = []
        """Those that were pruned or finished, in that order."""
        self.leaderboard = Leaderboard(session.objective, session.streams)
        self._ended_tokens = 0
        self._ahead: dict[int, Ahead] = {}
        """What the study holds beyond the checkpoint, and has not been repeated yet."""

    def __getitem__(self, number: int) -> Trial:
        return self.trials[number]

    def load(self, saved: Mapping[str, Any], state: State, warn: Callable[[str], None]) -> None:
        """Take over the trials of a checkpoint; what the study lacks of them, it is given, and what it has more is noted.

        Args:
            saved: What the driver had saved.
            state: The scheduler's, of the same moment.
            warn: Tells the user.
        """
        self.ended = list(saved["ended"])
        kept = [self._kept(data) for data in saved["trials"]]
        known, behind = catch_up(self._search.study, kept)
        self._ahead = ahead_of(known, kept)
        if behind:
            warn(f"study.db lacked what the checkpoint holds of {behind} trials; it was made again from there")
        for data in saved["trials"]:
            trial = self.add(data["number"], known[data["number"]].params, data.get("retry_of"))
            trial.load(data)
            trial.worker = state.trials[trial.number].worker
            if trial.slot is not None and trial.slot >= state.workers.get(trial.worker, 0):
                # The cohort has shrunk: as in the scheduler, the trial waits for a slot, and may be pruned before its turn.
                trial.status, trial.slot = "waiting", None
        self.live = {number: trial for number, trial in self.trials.items() if trial.is_live}
        ended = [trial for trial in self.trials.values() if not trial.is_live]
        self._ended_tokens = sum(trial.tokens for trial in ended)
        self.leaderboard = Leaderboard(self._session.objective, self._session.streams, map(row_of, ended))

    def has_caught_up(self) -> bool:
        """Return whether everything has been repeated that the study held beyond the checkpoint."""
        for number, ahead in list(self._ahead.items()):
            trial = self.trials.get(number)
            if trial is not None and (not trial.is_live if ahead.has_ended else len(trial.rungs) >= ahead.n_rungs):
                del self._ahead[number]
        return not self._ahead

    def is_new(self, action: Action) -> bool:
        """Return whether an action goes beyond what the study holds: a further trial, or that there is none."""
        all_suggested = isinstance(action, Stop) and action.reason in ("complete", "tokens_budget")
        return all_suggested or (isinstance(action, Ask) and not self._search.study.has(action.number))

    def _kept(self, data: Mapping[str, Any]) -> KeptTrial:
        """Return what a checkpoint holds of a trial, as the study would."""
        has_ended = not is_live(data["status"])
        result = tell_arguments(data, self._session.objective) if has_ended else {"state": None, "values": None}
        return KeptTrial(number=data["number"], params=data["params"], rungs=dict(data["rungs"]), **result)

    def add(self, number: int, params: dict[str, Any], retry_of: int | None = None) -> Trial:
        """Add a trial that has not begun; with the number of a failed one whose settings it repeats."""
        session = self._session
        label = session.stream_of(params).label
        trial = new_trial(
            number,
            params,
            session.resolve(params),
            objective=session.objective,
            target_l0=session.experiment.target_l0(params),
            is_baseline=retry_of is None and self._search.is_baseline(self.suggested[label]),
            replicates=session.replicates,
            stream=label,
        )
        self.trials[number] = self.live[number] = trial
        trial.retry_of = retry_of
        self.suggested[label] += retry_of is None  # what repeats a failed trial comes on top
        return trial

    def go_back(self, line: SlotsLine) -> dict[int, Trial]:
        """Let the trials of a worker be what its checkpoint holds of them; those whose slot is lost wait.

        Args:
            line: What has become of the worker.

        Returns:
            Its live trials by number.
        """
        own = {trial.number: trial for trial in self.live.values() if trial.worker == line.worker}
        for trial in own.values():
            trial.go_back(line.tokens.get(trial.number), folder_of(line.worker))
            if trial.slot is not None and trial.slot >= line.n_slots:
                trial.status, trial.slot = "waiting", None
        return own

    def end(self, trial: Trial, status: EndedStatus, reason: str) -> None:
        """Take a trial out of those that train."""
        trial.status, trial.slot, trial.reason = status, None, reason
        if status != "failed":
            self.ended.append(trial.number)
        del self.live[trial.number]
        self._ended_tokens += trial.tokens
        self.leaderboard.add(row_of(trial))

    def live_rows(self) -> list[Row]:
        """Return the rows of the trials that have not ended."""
        return [row_of(trial) for trial in self.live.values()]

    def rows(self) -> tuple[Row, ...]:
        """Return the leaderboard, best first."""
        return self.leaderboard.rows(self.live_rows())

    def ended_trials(self) -> Sequence[Trial]:
        """Return the trials that were pruned or finished, in that order."""
        return [self.trials[number] for number in self.ended]

    def sae_tokens(self) -> int:
        """Return the tokens trained on, over all trials and replicates."""
        live = sum(trial.tokens for trial in self.live.values())
        return (self._ended_tokens + live) * self._session.replicates

    def expected_sae_tokens(self) -> int:
        """Return what `sae_tokens` will be at the end if no further trial is pruned."""
        to_come = self._session.experiment.n_trials - sum(self.suggested.values()) + len(self.live)
        return self._session.replicates * (self._ended_tokens + to_come * self._session.blocks.total_tokens)
