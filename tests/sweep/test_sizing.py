from typing import Any

import pytest
import torch

from saesweep.driver.blocks import plan_blocks
from saesweep.saes import architecture_for
from saesweep.specs import BaseRun, CohortSpec, SearchSpec
from saesweep.specs.architectures import architectures, spec_class
from saesweep.worker.sizing import plan_slots, slot_bytes

GIB = 1 << 30


def run_with(sae: dict[str, Any] | None = None, **fields: Any) -> BaseRun:
    base = {"dataset_path": "x", "training_tokens": 4096 * 200, "train_batch_size_tokens": 4096}
    return BaseRun.model_validate(
        {**base, **fields, "sae": {"architecture": "topk", "d_in": 64, "d_sae": 512, **(sae or {})}}
    )


def test_rungs_lie_on_block_boundaries() -> None:
    search = SearchSpec.model_validate({"rungs": ["5%", "22%"], "min_rung_steps": 1})
    blocks = plan_blocks(run_with(), search, CohortSpec())
    assert (blocks.total_steps, blocks.block_steps, blocks.rung_steps) == (200, 10, (10, 40))
    assert blocks.rungs_tokens == (10 * 4096, 40 * 4096)


def test_without_rungs_a_block_is_a_twentieth() -> None:
    blocks = plan_blocks(run_with(), SearchSpec(pruner="none"), CohortSpec())
    assert (blocks.block_steps, blocks.rung_steps) == (10, ())


def test_a_block_holds_the_calibration_batches_of_a_short_run() -> None:
    search = SearchSpec.model_validate({"rungs": ["5%", "20%"], "min_rung_steps": 1})
    blocks = plan_blocks(run_with(training_tokens=4096 * 40), search, CohortSpec())
    assert blocks.block_steps == 10
    assert blocks.rung_steps == (10,)  # 5% and 20% both fall on the first boundary


def test_a_late_first_rung_is_a_whole_number_of_blocks() -> None:
    search = SearchSpec.model_validate({"rungs": ["38%", "60%"]})
    blocks = plan_blocks(run_with(), search, CohortSpec())
    assert (blocks.block_steps, blocks.rung_steps) == (10, (80, 120))


@pytest.mark.parametrize(("warm_up", "first"), [(0, 20), ("40%", 80)])
def test_no_rung_lies_within_warm_up_or_before_a_minimum_of_steps(warm_up: Any, first: int) -> None:
    search = SearchSpec.model_validate({"rungs": ["2%", "5%", "10%", "40%", "60%"]})
    steps = plan_blocks(run_with(lr_warm_up_steps=warm_up), search, CohortSpec()).rung_steps
    assert min(steps) == first


def test_block_tokens_are_obeyed() -> None:
    blocks = plan_blocks(run_with(), SearchSpec(), CohortSpec(block_tokens=4096 * 4))
    assert blocks.block_steps == 4


@pytest.mark.parametrize(
    "architecture", [name for name in architectures() if not hasattr(spec_class(name), "trained_as")]
)
def test_the_parameters_that_are_planned_for_are_those_that_train(architecture: str) -> None:
    widths = {"matryoshka_widths": [128, 512]} if architecture == "matryoshka_batchtopk" else {}
    run = run_with({"architecture": architecture, **widths})
    assert run.sae.n_parameters() == sum(
        weight.numel() for weight in architecture_for(run.sae).init(torch.Generator()).values()
    )
    assert slot_bytes(run) == 12 * run.sae.n_parameters()
    assert slot_bytes(run, "bfloat16") == 8 * run.sae.n_parameters()


def plan(n_trials: int, free_bytes: int, **cohort: Any) -> int:
    runs = [run_with({"d_in": 2304, "d_sae": 16384})]
    return plan_slots(
        CohortSpec(**cohort), n_trials=n_trials, runs=runs, hooks=1, weight_bytes=0, free_bytes=free_bytes
    ).slots


def test_slots_are_a_third_of_the_trials_where_memory_allows() -> None:
    assert plan(12, 200 * GIB) == 4
    assert plan(30, 200 * GIB) == 10
    assert plan(300, 200 * GIB) == 16
    assert plan(2, 200 * GIB) == 2


def test_the_first_cohort_shows_how_the_trials_of_an_architecture_differ() -> None:
    runs = [run_with({"k": k}) for k in range(1, 6)]
    sizes = plan_slots(CohortSpec(), n_trials=15, runs=runs, hooks=1, weight_bytes=0, free_bytes=200 * GIB)
    assert sizes.slots == 10
    assert "2 of each architecture" in sizes.reason


def test_memory_limits_the_slots_and_one_is_always_tried() -> None:
    assert plan(30, 8 * GIB) < 10
    assert plan(30, 1 * GIB) == 1


def test_a_stated_size_is_obeyed() -> None:
    assert plan(30, 1 * GIB, size=7) == 7


@pytest.mark.parametrize(
    ("free_gib", "host_gib", "is_copied"),
    [(200, None, True), (8, None, False), (8, 200, True), (200, 3, False)],
)
def test_a_copy_for_checkpoints_is_planned_and_never_costs_a_slot(
    free_gib: int, host_gib: int | None, is_copied: bool
) -> None:
    """Where SAEs train on the host the copy lies beside them; a GPU's is in main memory."""
    runs = [run_with({"d_in": 2304, "d_sae": 16384})]
    made = plan_slots(
        CohortSpec(size=4),
        n_trials=12,
        runs=runs,
        hooks=1,
        weight_bytes=0,
        free_bytes=free_gib * GIB,
        host_bytes=None if host_gib is None else host_gib * GIB,
    )
    assert made.slots == 4
    assert made.background_checkpoints is is_copied
    assert ("to write checkpoints from" in made.reason) is is_copied
    assert ("training waits" in made.reason) is not is_copied
