"""The Optuna adapter: the only room that knows Optuna.

with Study.open("study.db", name=..., directions=("minimize",), space=..., sampler="tpe", seed=0, ...) as study:
    params = study.ask(0)
    study.report(0, step_tokens=5_000_000, values=[0.3])
    study.tell(0, "complete", [0.2], constraints={"l0_max": -4.0})
"""

from saesweep.study.catch_up import Ahead, KeptTrial, ahead_of, catch_up
from saesweep.study.encoding import ExpectedEnd, TrialRecord
from saesweep.study.history import EarlierTrial, read_study
from saesweep.study.importance import MIN_TRIALS, Effect, Importance, Marginal, importances, marginals
from saesweep.study.move import check_inside, named, trials_of
from saesweep.study.rewrite import rewind_in_database, rewind_study
from saesweep.study.samplers import check_sampler
from saesweep.study.storage import load_plain_study
from saesweep.study.study import Study

__all__ = [
    "MIN_TRIALS",
    "Ahead",
    "EarlierTrial",
    "ExpectedEnd",
    "Effect",
    "Importance",
    "KeptTrial",
    "Marginal",
    "Study",
    "TrialRecord",
    "ahead_of",
    "catch_up",
    "check_inside",
    "check_sampler",
    "importances",
    "load_plain_study",
    "marginals",
    "named",
    "read_study",
    "rewind_in_database",
    "rewind_study",
    "trials_of",
]
