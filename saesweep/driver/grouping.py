"""How the scheduler sees a trial: who its rivals are, and what its schedule has ahead of it."""

from __future__ import annotations

from saesweep.driver.trials import Trial
from saesweep.forecast import Course
from saesweep.scheduler import Ask, Asked, Policy


def answer(ask: Ask, trial: Trial, policy: Policy) -> Asked:
    """Return what the scheduler needs to know of the trial that answers an ask."""
    place = f"{trial.stream} / " if trial.stream else ""  # rivals and quotas are of one stream
    scope = place + trial.run.target_hook
    return Asked(
        number=ask.number,
        stratum=ask.stratum,
        retry_of=ask.retry_of,
        group=scope if trial.target_l0 is None else f"{scope} / L0 {trial.target_l0:g}",
        architecture=place + trial.run.sae.architecture,
        course=Course.of(
            trial.run,
            [tokens // trial.run.train_batch_size_tokens for tokens in policy.stops_tokens],
            target_l0=trial.target_l0,
            steered=trial.control is not None,
            scope=scope,
        ),
    )
