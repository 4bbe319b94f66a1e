"""Which of the trials that have reached a rung are pruned there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from saesweep.scheduler.judge import best_first, n_kept
from saesweep.scheduler.messages import Prune
from saesweep.scheduler.state import State, TrialState

SIMILAR_OCTAVES = 1.5
"""Sparsity settings within a factor of 2.8 are similar."""


def judge_rung(state: State, rung: int) -> tuple[list[TrialState], list[Prune]]:
    """Judge the live trials that have reported a rung and were not judged there yet, all of them together.

    A trial is kept when it is among the best `n_kept` of all values ever reported at the rung by trials comparable
    with it, those of ended trials included. One that lacks comparable trials trains on and is judged when they come,
    or at its next rung; once it has trained to its end it is no longer judged. Trials that are not to be judged as
    early as this are left out of it altogether. The worst go first; `quota` trials of each architecture that have
    passed this rung and are live or complete always remain, because penalty-based architectures meet their sparsity
    late.

    Args:
        state: With the reports of this block recorded.
        rung: Index of the rung.

    Returns:
        The trials that were judged, marked so, and one action for each of them that is pruned, by trial number.
    """
    if state.policy.pruner == "none":
        return [], []
    tokens = state.policy.rungs_tokens[rung]
    candidates: dict[str, list[TrialState]] = {}
    for trial in state.live_trials:
        is_last = rung == max(trial.rung_values, default=None) and trial.tokens_seen < state.policy.total_tokens
        if is_last and rung not in trial.judged and trial.judged_from_tokens <= tokens:
            candidates.setdefault(trial.group, []).append(trial)
    if not candidates:
        return [], []
    reported = [t for t in state.trials.values() if rung in t.rung_values and t.judged_from_tokens <= tokens]
    judged: list[TrialState] = []
    condemned: list[tuple[float, Prune]] = []
    for group, waiting in candidates.items():
        members = [trial for trial in reported if trial.group == group]
        order = best_first({trial.number: trial.rung_values[rung] for trial in members})
        places = {number: place for place, number in enumerate(order)}
        for trial in waiting:
            place, n = _place(trial, members, places)
            if n < state.policy.min_peers:
                continue
            judged.append(replace(trial, judged=(*trial.judged, rung)))
            kept = n_kept(n, state.policy.eta)
            if place > kept:
                reason = f"place {place} of {n} in {group} at {tokens:,} tokens; the best {kept} stay"
                condemned.append((place / n, Prune(number=trial.number, reason=reason, rung=rung)))
    return judged, _but_quota(state, reported, condemned)


def _place(trial: TrialState, members: Sequence[TrialState], places: Mapping[int, int]) -> tuple[int, int]:
    """Return a trial's place among the trials comparable with it, counted from 1, and their number with itself.

    Trials with similar sparsity settings are comparable. Of two others the sparser is expected to reconstruct less
    well: they are comparable only where it does better all the same.
    """
    mine, density = places[trial.number], trial.density
    if density is None:
        return mine + 1, len(members)
    better, n = 0, 0
    for other in members:
        theirs = places[other.number]
        if other.density is not None:
            octaves = other.density - density  # above 0: the other one is denser
            if octaves > SIMILAR_OCTAVES and theirs < mine:
                continue
            if octaves < -SIMILAR_OCTAVES and theirs > mine:
                continue
        n += 1
        better += theirs < mine
    return better + 1, n


def _but_quota(state: State, reported: Sequence[TrialState], condemned: list[tuple[float, Prune]]) -> list[Prune]:
    """Return the prunes that leave every architecture its quota, the relatively worst first, by trial number."""
    if not condemned:
        return []
    survivors = Counter(trial.architecture for trial in reported if trial.status != "pruned")
    pruned: list[Prune] = []
    for _, prune in sorted(condemned, key=lambda item: (item[0], item[1].number), reverse=True):
        architecture = state.trials[prune.number].architecture
        if survivors[architecture] > state.policy.quota:
            survivors[architecture] -= 1
            pruned.append(prune)
    return sorted(pruned, key=lambda action: action.number)
