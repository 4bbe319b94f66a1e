"""`search.patience`: no further trial begins while so many have ended in a row without a better best; those in training go on.

Among several that train side by side the best is seldom the first to end, and weak ones are pruned long before it: what is in
training decides whether the search goes on.
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
        """Trials of the whole search, while no further one begins; None while they may."""

    def is_out(self) -> str | None:
        """Return why no further trial begins now; None where more may."""
        if self._patience is None or since_better(self._ended(), self._objective) < self._patience:
            return None
        return f"search.patience: {self._patience} trials in a row brought nothing better"

    def held(self, state: State) -> Policy:
        """Begin to hold the search back; return the policy under which nothing more is asked for."""
        if self.wanted is None:
            self.wanted = state.policy.n_trials
        return replace(state.policy, n_trials=sum(state.trials.tally.suggested.values()))

    def released(self, policy: Policy) -> Policy:
        """Hold nothing back any more; return the policy that wants all trials."""
        found, self.wanted = self.in_full(policy), None
        return found

    def in_full(self, policy: Policy) -> Policy:
        """Return a policy that wants all trials."""
        return policy if self.wanted is None else replace(policy, n_trials=self.wanted)

    def like(self, policy: Policy, known: Policy) -> Policy:
        """Return the file's policy, held back as much as the one before it where that one is."""
        if self.wanted is None:
            return policy
        self.wanted = policy.n_trials
        return replace(policy, n_trials=known.n_trials)
