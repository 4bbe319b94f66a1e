"""Which of the trials that reached a rung in this block are pruned there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from saesweep.scheduler.judge import best_first, n_kept
from saesweep.scheduler.messages import Prune
from saesweep.scheduler.state import State


def losers(state: State, rung: int, arrived: Collection[int]) -> list[Prune]:
    """Judge the trials that reported a rung in this block, all of them together.

    A trial is kept when it is among the best `n_kept` of all values ever reported at the rung in its group, those of
    ended trials included. Trials that are not to be judged as early as this are left out of it altogether. The worst go
    first; `quota` trials of each architecture that have passed this rung and are live or complete always remain, because
    penalty-based architectures meet their sparsity late.

    Args:
        state: With the reports of this block recorded.
        rung: Index of the rung.
        arrived: Numbers of the trials that reported it in this block and are still live.

    Returns:
        One action for each pruned trial, by trial number.
    """
    policy = state.policy
    if policy.pruner == "none" or not arrived:
        return []
    tokens = policy.rungs_tokens[rung]
    reported = [t for t in state.trials.values() if rung in t.rung_values and t.judged_from_tokens <= tokens]
    condemned: list[tuple[float, int, str]] = []
    for group in {state.trials[number].group for number in arrived}:
        order = best_first({trial.number: trial.rung_values[rung] for trial in reported if trial.group == group})
        if len(order) < policy.min_peers:
            continue
        kept = n_kept(len(order), policy.eta)
        for place, number in enumerate(order):
            if place >= kept and number in arrived:
                where = f"{group} at {tokens:,} tokens"
                reason = f"place {place + 1} of {len(order)} in {where}; the best {kept} stay"
                condemned.append((place / len(order), number, reason))
    survivors = Counter(trial.architecture for trial in reported if trial.status != "pruned")
    pruned: list[Prune] = []
    # Groups of one architecture share its quota; the relative place makes their members comparable.
    for _, number, reason in sorted(condemned, reverse=True):
        architecture = state.trials[number].architecture
        if survivors[architecture] > policy.quota:
            survivors[architecture] -= 1
            pruned.append(Prune(number=number, reason=reason, rung=rung))
    return sorted(pruned, key=lambda action: action.number)
