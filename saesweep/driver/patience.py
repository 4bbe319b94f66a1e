"""`search.patience`: once so many trials in a row have ended without a better best, no new one starts; those in training continue.

Among trials that train side by side the best is seldom the first to end, and weak ones are pruned long before it. If one that was
still in training turns out better, the search continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from saesweep.driver.stopping import since_better
from saesweep.driver.trials import Trial
from saesweep.scheduler import Policy, State
from saesweep.specs import ObjectiveSpec, SearchSpec


class Patience:
    """Holds a search back by a policy that wants no more trials than have begun.

    Args:
        search: The file's limits.
        objective: What is optimised.
        ended: Returns the trials that were pruned or finished, in the order in which they ended.
    """

    def __init__(self, search: SearchSpec, objective: ObjectiveSpec, ended: Callable[[], Sequence[Trial]]) -> None:
        self._patience = search.patience
        self._objective = objective
        self._ended = ended
        self.wanted: int | None = None
        """Trials of the whole search while no new one may start; None otherwise."""

    def is_out(self) -> str | None:
        """Return why no new trial may start now; None where one may."""
        if self._patience is None or since_better(self._ended(), self._objective) < self._patience:
            return None
        return f"search.patience: {self._patience} trials in a row brought nothing better"

    def held(self, state: State) -> Policy:
        """Begin to hold the search back; return the policy under which nothing more is asked for."""
        if self.wanted is None:
            self.wanted = state.policy.n_trials
        return replace(state.policy, n_trials=sum(state.trials.tally.suggested.values()))

    def review(self, policy: Policy, stop_reason: str | None) -> tuple[Policy | None, str | None]:
        """Return the policy that lets more trials start, if one that was in training is the new best, and why the search has ended, if it has."""
        reason = self.is_out()
        if reason is not None:
            return None, None if stop_reason is None else reason
        whole, self.wanted = self.in_full(policy), None
        return whole, None

    def in_full(self, policy: Policy) -> Policy:
        """Return a policy that wants all trials."""
        return policy if self.wanted is None else replace(policy, n_trials=self.wanted)

    def like(self, policy: Policy, known: Policy) -> Policy:
        """Return the file's policy, held back as much as the one before it where that one is."""
        if self.wanted is None:
            return policy
        self.wanted = policy.n_trials
        return replace(policy, n_trials=known.n_trials)
