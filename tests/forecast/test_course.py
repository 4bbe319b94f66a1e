"""What is known of a trial before it begins."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pytest

from saesweep.forecast import Course, kind_of, shipped_table
from saesweep.specs import BaseRun

STOPS = [50, 100, 1000]


def run_with(sae: dict[str, Any], **fields: Any) -> BaseRun:
    base = {"dataset_path": "x", "training_tokens": 64_000, "train_batch_size_tokens": 64, "lr": 1e-3}
    return BaseRun.model_validate({**base, **fields, "sae": {"d_in": 8, "d_sae": 16, **sae}})


def test_leads_fall_to_zero_and_follow_the_learning_rate() -> None:
    constant = Course.of(run_with({"architecture": "topk", "k": 4}), STOPS)
    assert constant.leads == pytest.approx((math.log(20), math.log(10), 0.0))
    # With a warm-up and a decay less has been summed early, and less is left late.
    course = Course.of(run_with({"architecture": "topk", "k": 4}, lr_warm_up_steps="5%", lr_decay_steps="20%"), STOPS)
    assert course.leads[0] > constant.leads[0]
    assert course.leads[-1] == 0.0


@pytest.mark.parametrize(("warm_up", "first"), [(0, 0), ("5%", 0), ("8%", 1), ("100%", 0)])
def test_a_trial_is_judged_after_its_penalty_has_warmed_up_unless_that_takes_the_run(warm_up: Any, first: int) -> None:
    sae = {"architecture": "standard", "l1_coefficient": 2.0, "l1_warm_up_steps": warm_up}
    assert Course.of(run_with(sae), STOPS).first_rung == first


def test_no_trial_is_judged_while_its_learning_rate_warms_up() -> None:
    assert Course.of(run_with({"architecture": "topk", "k": 4}, lr_warm_up_steps=80), STOPS).first_rung == 1


def test_kinds_and_families() -> None:
    tanh = run_with({"architecture": "jumprelu", "jumprelu_sparsity_loss_mode": "tanh"})
    assert kind_of(tanh, steered=False) == "jumprelu tanh"
    steered = Course.of(tanh, STOPS, target_l0=16.0, steered=True)
    assert (steered.kind, steered.family, steered.l0) == ("steered jumprelu tanh", "steered", None)
    topk = Course.of(run_with({"architecture": "topk", "k": 4}), STOPS)
    assert (topk.kind, topk.family, topk.l0) == ("topk", "k", 4.0)


def test_a_kind_that_was_never_recorded_has_the_entry_of_its_family() -> None:
    table = shipped_table()
    assert table.entry("matryoshka_batchtopk", "k", "explained_variance") == table.entry("?", "k", "explained_variance")
    assert table.entry("topk", "k", "kl_div") == table.entry("topk", "k", "delta_ce")
    assert table.entry("topk", "k", "mmcs") is None


def test_a_course_survives_json() -> None:
    course = Course.of(run_with({"architecture": "topk", "k": 4}), STOPS, target_l0=4.0, scope="s / h")
    assert Course.from_json(json.loads(json.dumps(asdict(course)))) == course
