"""Whole numbers that no integer of 64 bits holds are refused wherever they stand, before anything computes with them."""

import pytest

from saesweep.errors import ExperimentError
from saesweep.experiment import load_experiment

HUGE = 99999999999999999999
TREE = {
    "name": "large",
    "base": {
        "model_name": "builtin:tiny-lm",
        "hook_name": "model.layers.2",
        "dataset_path": "builtin:python-docs",
        "sae": {"architecture": "topk", "d_sae": 64, "k": 8},
    },
    "space": {},
}


@pytest.mark.parametrize(
    ("override", "place"),
    [
        (f"base.context_size={HUGE}", "base.context_size"),
        (f"base.buffer_tokens={HUGE}", "base.buffer_tokens"),
        (f"base.seed={HUGE}", "base.seed"),
        ("base.training_tokens=9999999999T", "base.training_tokens"),
        ("base.train_batch_size_tokens=1e30", "base.train_batch_size_tokens"),
        (f"base.seqpos_slice=[0, {HUGE}]", "base.seqpos_slice"),
        (f"base.exclude_special_tokens=[{HUGE}]", "base.exclude_special_tokens"),
        (f"space={{sae.k: {{int: [1, {HUGE}]}}}}", "space.sae.k.int"),
        (f"search.trials={HUGE}", "search.trials"),
        ("evaluation.select_tokens=9999999999T", "evaluation.select_tokens"),
    ],
)
def test_it_is_named(override: str, place: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(TREE, overrides=[override])
    (problem,) = caught.value.problems
    assert problem.path == place
    assert "is too large; whole numbers go up to 9223372036854775807" in problem.message


@pytest.mark.parametrize("field", ["d_sae", "d_in", "expansion_factor"])
def test_widths_have_a_limit_of_their_own(field: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(TREE, overrides=[f"base.sae.{field}={HUGE}"])
    assert any("must be at most 1099511627776" in problem.message for problem in caught.value.problems)


def test_the_largest_that_fits_is_taken() -> None:
    assert load_experiment(TREE, overrides=["base.seed=9223372036854775807"]).base_run().seed == 2**63 - 1
