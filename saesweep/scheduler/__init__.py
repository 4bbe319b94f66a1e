"""The pure core of the search: `decide(state, event) -> (state, actions)`.

The caller keeps one `State`, tells it what happened and carries out the actions:

    state, actions = decide(State.new(policy), Opened())
    # Ask -> suggest, then decide(state, Suggested(...)); Place -> load the slot; after each block:
    state, actions = decide(state, BlockDone(tokens_seen=..., values=...))
"""

from saesweep.scheduler.aim import Aim
from saesweep.scheduler.decide import decide
from saesweep.scheduler.dominance import dominates, fronts, insert
from saesweep.scheduler.messages import (
    Action,
    Ask,
    BlockDone,
    Complete,
    Event,
    Failed,
    Opened,
    Place,
    PolicyChanged,
    Prune,
    SlotsChanged,
    Stop,
    StopRequested,
    Suggested,
)
from saesweep.scheduler.policy import Policy
from saesweep.scheduler.rungs import expected_ends
from saesweep.scheduler.state import State
from saesweep.scheduler.trial import TrialState
from saesweep.scheduler.trials import Trials

__all__ = [
    "Aim",
    "fronts",
    "insert",
    "Policy",
    "State",
    "TrialState",
    "Trials",
    "decide",
    "dominates",
    "Event",
    "Opened",
    "PolicyChanged",
    "Suggested",
    "BlockDone",
    "Failed",
    "SlotsChanged",
    "StopRequested",
    "Action",
    "Ask",
    "Place",
    "Prune",
    "Complete",
    "Stop",
    "expected_ends",
]
