import json
from typing import Any

import pytest

from saesweep.specs import BaseRun, CohortSpec, ObjectiveSpec, SearchSpec
from saesweep.sweep.grouping import density_of, group_of
from saesweep.sweep.sizing import first_peers, plan_blocks, plan_slots, slot_bytes, slot_parameters

GIB = 1 << 30


def run_with(sae: dict[str, Any] | None = None, **fields: Any) -> BaseRun:
    base = {"dataset_path": "x", "training_tokens": 4096 * 200, "train_batch_size_tokens": 4096}
    return BaseRun.model_validate(
        {**base, **fields, "sae": {"architecture": "topk", "d_in": 64, "d_sae": 512, **(sae or {})}}
    )


def test_rungs_lie_on_block_boundaries() -> None:
    blocks = plan_blocks(run_with(), SearchSpec.model_validate({"rungs": ["5%", "22%"]}), CohortSpec())
    assert (blocks.total_steps, blocks.block_steps, blocks.rung_steps) == (200, 10, (10, 40))
    assert blocks.rungs_tokens == (10 * 4096, 40 * 4096)


def test_without_rungs_a_block_is_a_twentieth() -> None:
    blocks = plan_blocks(run_with(), SearchSpec(pruner="none"), CohortSpec())
    assert (blocks.block_steps, blocks.rung_steps) == (10, ())


def test_a_block_holds_the_calibration_batches_of_a_short_run() -> None:
    blocks = plan_blocks(run_with(training_tokens=4096 * 40), SearchSpec(), CohortSpec())
    assert blocks.block_steps == 10
    assert blocks.rung_steps == (10,)  # 5% and 20% both fall on the first boundary


def test_block_tokens_are_obeyed() -> None:
    blocks = plan_blocks(run_with(), SearchSpec(), CohortSpec(block_tokens=4096 * 4))
    assert blocks.block_steps == 4


@pytest.mark.parametrize(("architecture", "vectors"), [("topk", 1), ("jumprelu", 2), ("gated", 3)])
def test_parameters_are_counted(architecture: str, vectors: int) -> None:
    run = run_with({"architecture": architecture})
    assert slot_parameters(run) == 2 * 64 * 512 + vectors * 512 + 64
    assert slot_bytes(run) == 12 * slot_parameters(run)
    assert slot_bytes(run, "bfloat16") == 8 * slot_parameters(run)


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


def test_the_first_cohort_can_be_judged_at_its_rungs() -> None:
    """Two trials of each of five architectures could not be; three can."""
    runs = [run_with({"k": k}) for k in range(1, 6)]
    sizes = {
        peers: plan_slots(
            CohortSpec(), n_trials=32, runs=runs, hooks=1, weight_bytes=0, free_bytes=200 * GIB, peers=peers
        )
        for peers in (1, 3)
    }
    assert (sizes[1].slots, sizes[3].slots) == (11, 15)
    assert "3 of each architecture" in sizes[3].reason


def test_a_front_needs_no_peers_at_the_start() -> None:
    assert first_peers(SearchSpec(), SINGLE) == 3
    assert first_peers(SearchSpec(pruner="none"), SINGLE) == 1
    assert first_peers(SearchSpec(), PARETO) == first_peers(SearchSpec(), None) == 1


def test_memory_limits_the_slots_and_one_is_always_tried() -> None:
    assert plan(30, 8 * GIB) < 10
    assert plan(30, 1 * GIB) == 1


def test_a_stated_size_is_obeyed() -> None:
    assert plan(30, 1 * GIB, size=7) == 7


SINGLE = ObjectiveSpec.model_validate({"minimize": "mse"})
PARETO = ObjectiveSpec.model_validate({"pareto": [{"minimize": "l0"}, {"minimize": "mse"}]})


def test_rungs_compare_like_with_like() -> None:
    topk, batchtopk, tanh, step = (
        group_of(run_with(sae))
        for sae in (
            {"k": 32},
            {"architecture": "batchtopk", "k": 32},
            {"architecture": "jumprelu", "jumprelu_sparsity_loss_mode": "tanh"},
            {"architecture": "jumprelu", "jumprelu_sparsity_loss_mode": "step"},
        )
    )
    assert len({topk, batchtopk, tanh, step}) == 4
    assert group_of(run_with({"k": 256})) == topk


def test_density_grows_with_k_and_falls_with_a_penalty() -> None:
    def density(sae: dict[str, Any], objective: ObjectiveSpec = SINGLE) -> float:
        found = density_of(run_with(sae), objective)
        assert found is not None
        return found

    assert density({"k": 64}) - density({"k": 32}) == pytest.approx(1)
    standard = [density({"architecture": "standard", "l1_coefficient": c}) for c in (4.0, 1.0, 0.0)]
    assert standard[1] - standard[0] == pytest.approx(2)
    assert standard[2] > standard[1] + 100
    json.dumps(standard[2], allow_nan=False)
    quadratic = {"architecture": "jumprelu", "jumprelu_sparsity_loss_mode": "quadratic", "target_l0": 32}
    assert density({**quadratic, "l0_coefficient": 0.1}) == density({**quadratic, "l0_coefficient": 10}) == 5
    assert density_of(run_with({"k": 32}), PARETO) is None


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
