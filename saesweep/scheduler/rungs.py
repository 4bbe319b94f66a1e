"""Which live trials are pruned: those that will hardly end among what the objective keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from saesweep.forecast import Moments, shipped_table, tie_threshold
from saesweep.scheduler.contender import Numbers
from saesweep.scheduler.dominance import dominates
from saesweep.scheduler.messages import Prune
from saesweep.scheduler.outlook import Field, Outlook, reason_of
from saesweep.scheduler.rivals import kind_of, report_of
from saesweep.scheduler.state import State
from saesweep.scheduler.trial import TrialState

_NO_HOPE = 1e-3
"""Probability of being feasible below which a trial is not kept for want of a better one."""


def with_evidence(state: State, finished: Sequence[TrialState]) -> State:
    """Return the state that has learned from trials that have just finished what happens between a rung and the end."""
    aim, end, evidence = state.policy.aim, state.policy.end_rung, dict(state.evidence)
    for trial in finished:
        for rung in [rung for rung in trial.reports if rung != end and end in trial.reports]:
            for metric in aim.metrics:
                before, after = (report_of(trial, aim, metric, stop) for stop in (rung, end))
                moments = evidence.get(before.key, Moments())
                evidence[before.key] = moments.plus(before.features, after.scaled - before.scaled)
    return replace(state, evidence=evidence) if finished else state


def judge(state: State, worker: int) -> list[Prune]:
    """Return the trials at hand to prune, each with its reason, by trial number.

    At hand are those of a worker that is between two blocks, and those that wait. All of them are judged, by their latest
    reports, whenever some trial has reported: what was learned since counts for those that are between two rungs as well.
    A trial is pruned when the probability that it ends among what the aim keeps is below `min_probability`, unless

    - it has not reached a rung after its warm-up;
    - no trial of its group has finished within the limits, and none that is live is likelier to;
    - a trial of its kind that is kept was dominated by it at its rung: then the forecasts contradict what was measured;
    - its architecture would be left with fewer than `quota` trials.

    Args:
        state: With the reports of this block recorded.
        worker: Who has come to the end of a block.
    """
    if state.policy.pruner == "none":
        return []
    field = Field(state, shipped_table())
    at_hand = [trial for trial in (*state.with_status("waiting"), *state.training_on(worker)) if trial.reports]
    judged = [trial.number for trial in at_hand if max(trial.reports) >= trial.course.first_rung]
    doomed = {found.contender.number: found for found in field.hopeless(judged, state.policy.min_probability)}
    doomed = _sparing_likeliest(state, doomed, field)
    doomed = _without_quota(state, doomed)
    doomed = _without_contradictions(state, doomed, at_hand, field)  # last: whoever is kept for another reason counts
    return [
        Prune(
            number=number,
            reason=reason_of(state, found),
            rung=max(state.trials[number].reports),
            expected=found.contender.expected,
        )
        for number, found in sorted(doomed.items())
    ]


def expected_ends(state: State) -> dict[int, Mapping[str, float]]:
    """Return the metrics that each live, measured trial is expected to end with, by number: what a sampler may learn from."""
    if state.policy.pruner == "none":
        return {}
    return {
        int(number): pack[row].expected
        for pack in Field(state, shipped_table()).live()
        for row, number in enumerate(pack.numbers)
    }


def _sparing_likeliest(state: State, doomed: Mapping[int, Outlook], field: Field) -> dict[int, Outlook]:
    """Return those doomed trials that are not their group's likeliest way to a feasible end, while it has none.

    A trial that cannot be feasible (a k above the limit) is no hope as long as others are still to come.
    """
    kept = dict(doomed)
    more_to_come = state.next_number < state.policy.n_trials
    by_group: dict[str, list[Outlook]] = {}
    for number, found in doomed.items():
        by_group.setdefault(state.trials[number].group, []).append(found)
    for group, own in by_group.items():
        hope = max(own, key=_likelihood_key)
        if hope.contender.feasible <= _NO_HOPE and more_to_come:
            continue
        if not state.rivals.has_finished(group) and not _is_another_likelier(hope, group, field):
            del kept[hope.contender.number]
    return kept


def _is_another_likelier(hope: Outlook, group: str, field: Field) -> bool:
    """Return whether a live trial of a group is likelier to end within the limits, or as likely and likelier to be kept."""
    own = hope.contender
    for number in _likely(hope, group, field):
        other = field.contender(number)
        if number == own.number or (other.feasible, -other.excess) < (own.feasible, -own.excess):
            continue
        if (other.feasible, -other.excess) > (own.feasible, -own.excess):
            return True
        if _likelihood_key(field.outlook(number)) > _likelihood_key(hope):
            return True
    return False


def _likely(hope: Outlook, group: str, field: Field) -> Iterator[int]:
    """Return the live trials of a group that are at least about as likely to end within the limits, the best guess first."""
    if hope.rival is not None and not hope.rival.is_finished:
        yield hope.rival.number
    threshold = tie_threshold(hope.contender.feasible)
    for pack in field.in_group(group):
        if not pack.is_finished:
            about = pack.approx_probability_feasible
            order = np.argsort(-about, kind="stable")
            yield from pack.numbers[order[about[order] >= threshold]].tolist()


def _likelihood_key(found: Outlook) -> tuple[float, ...]:
    own = found.contender
    return own.feasible, -own.excess, found.probability, -own.number


def _without_quota(state: State, doomed: Mapping[int, Outlook]) -> dict[int, Outlook]:
    """Return those doomed trials that leave every architecture its quota, the least probable first."""
    left = dict(state.trials.tally.measured)
    pruned: dict[int, Outlook] = {}
    for number, found in sorted(doomed.items(), key=lambda item: (item[1].probability, -item[0])):
        architecture = state.trials[number].architecture
        if left[architecture] > state.policy.quota:
            left[architecture] -= 1
            pruned[number] = found
    return pruned


def _without_contradictions(
    state: State, doomed: Mapping[int, Outlook], at_hand: Sequence[TrialState], field: Field
) -> dict[int, Outlook]:
    """Return those doomed trials that dominate no comparable trial that is kept, at the rung where they are judged."""
    numbers = np.array(sorted(trial.number for trial in at_hand))
    kept = {n: found for n, found in doomed.items() if not _contradicts_elsewhere(state, found, numbers, field)}
    changed = True
    while changed:  # a trial that is kept after all may itself be dominated by another doomed one
        changed = False
        for number in sorted(kept):
            trial = state.trials[number]
            rung = max(trial.reports)
            own_costs = _costs(trial, rung, state)
            if any(
                dominates(own_costs, _costs(other, rung, state))
                for other in at_hand
                if other.number not in kept
                and rung in other.reports
                and (other.group, other.course.kind) == (trial.group, trial.course.kind)
            ):
                del kept[number]
                changed = True
    return kept


def _contradicts_elsewhere(state: State, found: Outlook, at_hand: Numbers, field: Field) -> bool:
    """Return whether a doomed trial dominates a comparable one that trains elsewhere and has hopes.

    That one is not judged now: it has no hopes where what dooms the trial at hand leaves it less than `min_probability`, too.
    """
    trial, rival = state.trials[found.contender.number], found.rival
    rung, kind = max(trial.reports), kind_of(trial)
    own_costs = np.array(_costs(trial, rung, state))
    for (latest, reported_at), section in state.rivals.sections[kind].items():
        if reported_at != rung:
            continue
        is_worse = (section.costs >= own_costs).all(axis=1) & (section.costs > own_costs).any(axis=1)
        rows = np.flatnonzero(is_worse & (section.groups == state.rivals.groups[trial.group]))
        place = np.searchsorted(at_hand, section.numbers[rows]).clip(max=len(at_hand) - 1)
        rows = rows[at_hand[place] != section.numbers[rows]]
        if not rows.size:
            continue
        pack = field.of_kind(kind)[latest]
        others = pack.taken(np.searchsorted(pack.numbers, section.numbers[rows]))
        stands = others.approx_probability_feasible if rival is None else others.approx_probability_unbeaten(rival)
        has_hopes = (stands >= state.policy.min_probability) | (section.first_rungs[rows] > latest)
        if has_hopes.any() or (rival is not None and (others.numbers == rival.number).any()):
            return True
    return False


def _costs(trial: TrialState, rung: int, state: State) -> tuple[float, ...]:
    return state.policy.aim.costs(trial.reports[rung], trial.course.target_l0)
