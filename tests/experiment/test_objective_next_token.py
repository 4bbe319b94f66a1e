"""Where `seqpos_slice` selects the last position alone, no metric of the objective may compare with a next token."""

from typing import Any

import pytest

from saesweep.errors import UserError
from saesweep.experiment import Experiment, load_experiment


def loaded(seqpos_slice: list[int | None], **tree: Any) -> Experiment:
    base = {
        "model_name": "builtin:tiny-lm",
        "hook_name": "model.layers.1",
        "dataset_path": "builtin:python-docs",
        "context_size": 64,
        "training_tokens": 100_000,
        "train_batch_size_tokens": 256,
        "seqpos_slice": seqpos_slice,
        "sae": {"d_sae": 256, "d_in": 128},
    }
    return load_experiment({"name": "t", "base": base, **tree})


@pytest.mark.parametrize("objective", [{"minimize": "delta_ce"}, {"maximize": "ce_loss_score"}])
@pytest.mark.parametrize("last", [[-1, None], [63, 64]])
def test_a_stated_objective_is_refused_with_what_to_write(objective: dict[str, str], last: list[int | None]) -> None:
    with pytest.raises(UserError, match=r"selects the last position alone, which has none; use kl_div"):
        loaded(last, objective=objective)
    assert loaded([-2, None], objective=objective)


def test_a_limit_is_refused_too() -> None:
    with pytest.raises(UserError, match=r"objective\.subject_to\.delta_ce"):
        loaded([-1, None], objective={"minimize": "l0", "subject_to": {"delta_ce": {"max": 0.1}}})


def test_the_default_objective_takes_the_divergence() -> None:
    assert loaded([-1, None]).objective(True).metric_names() == ("l0", "kl_div")
    assert loaded([-1, None]).objective(False).metric_names() == ("l0", "explained_variance")
    assert loaded([0, -1]).objective(True).metric_names() == ("l0", "delta_ce")
