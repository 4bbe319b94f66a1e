"""Slots that train as one batch of operations: the same as one by one, to the bit whoever trains beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from stacked_cases import (
    BATCHTOPK,
    FAMILY,
    HOOK,
    MATRYOSHKA,
    STEPS,
    TOPK,
    WINDOW,
    B,
    D,
    F,
    Way,
    assert_same_bits,
    batches,
    filled,
    make_run,
    new_cohort,
    new_slot,
    trials,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from saesweep.cohort import Slot

OPTIONS: list[dict[str, Any]] = [
    {},
    {"rescale_acts_by_decoder_norm": False},
    {"apply_b_dec_to_input": False},
    {"aux_loss_coefficient": 0.0},
    {"k": 20, "k_start": 40, "k_anneal_steps": 10},
    {"k": F},
    {"aligned": True},
]


@pytest.mark.parametrize(
    ("sae", "dtype", "tolerance"),
    [pytest.param(sae, "float64", 1e-9, id=", ".join(sae) or "plain") for sae in OPTIONS]
    + [pytest.param(BATCHTOPK | sae, "float64", 1e-9, id=f"batchtopk {', '.join(sae)}") for sae in OPTIONS]
    + [pytest.param(MATRYOSHKA, "float64", 1e-9, id="matryoshka_batchtopk")]
    + [pytest.param({}, "float32", 1e-5, id="float32")],
)
def test_training_is_that_of_autograd_in_float64(sae: dict[str, Any], dtype: str, tolerance: float) -> None:
    settings: list[dict[str, Any]] = [{}, {"lr": 1e-3, "adam_beta1": 0.5}, {"adam_beta2": 0.9}]
    slots = [new_slot(make_run(dtype, TOPK | sae, **fields), seed) for seed, fields in enumerate(settings)]
    exact = [new_slot(make_run("float64", TOPK | sae, **fields), seed) for seed, fields in enumerate(settings)]
    together, plain = filled(slots), filled(exact, "reference")
    for batch in batches(STEPS, slots[0].params["W_dec"].dtype):
        together.train_step(batch)
        plain.train_step({HOOK: batch[HOOK].double()})
    for slot, other in zip(slots, exact, strict=True):
        losses = slot.mean_losses()
        assert losses == pytest.approx(other.mean_losses(), rel=tolerance)
        assert bool(slot.firing.silent_F(slot.loss_window_steps).any())
        assert (losses["auxiliary_reconstruction_loss"] > 0) == (sae.get("aux_loss_coefficient") != 0.0)
        if dtype == "float64":
            for name, weight in slot.params.items():
                torch.testing.assert_close(weight, other.params[name], rtol=tolerance, atol=1e-12)
            for name, counts in slot.firing.tensors().items():
                assert torch.equal(counts, other.firing.tensors()[name])


@pytest.mark.parametrize("members", [[0, 1], [1, 0], [4, 2, 0, 1, 3], [3, 2]], ids=str)
@pytest.mark.parametrize("way", ["batched", "each"])
@FAMILY
def test_a_slot_s_bits_do_not_depend_on_its_neighbours(members: list[int], sae: dict[str, Any], way: Way) -> None:
    runs, data = trials(sae), batches(STEPS)
    slots = [new_slot(runs[index], index) for index in members]
    together = filled(slots, way)
    for batch in data:
        together.train_step(batch)
    for slot, index in zip(slots, members, strict=True):
        alone = new_slot(runs[index], index)
        cohort = filled([alone], way)
        for batch in data:
            cohort.train_step(batch)
        assert_same_bits(slot, alone, index)


def test_slots_that_are_not_stacked_train_as_ever() -> None:
    other = make_run(sae={"architecture": "standard", "l1_coefficient": 2.0})
    by_level = make_run(sae={**MATRYOSHKA, "use_matryoshka_aux_loss": True})
    rounded = make_run()

    def not_stacked() -> list[Slot]:
        return [new_slot(other, 1), new_slot(rounded, 2, adam_moments="bfloat16"), new_slot(by_level, 3)]

    slots = [new_slot(make_run(), 0), *not_stacked()]
    mixed = filled(slots)
    singles = not_stacked()
    cohort = filled(singles, "no")
    for batch in batches(STEPS):
        mixed.train_step(batch)
        cohort.train_step(batch)
    for slot, single in zip(slots[1:], singles, strict=True):
        assert_same_bits(slot, single)


@FAMILY
def test_a_trial_that_takes_the_place_of_another_in_mid_run(sae: dict[str, Any]) -> None:
    """Blocks of 4 steps; trial 1 leaves after the first, trial 2 takes its slot, trial 3 has all its steps after 5."""
    runs, data = trials(sae), batches(STEPS)
    runs[3] = make_run(sae=sae, training_tokens=5 * B, lr_warm_up_steps=0, lr_decay_steps=0)
    slots = [new_slot(run, index) for index, run in enumerate(runs)]
    cohort = filled([slots[0], slots[1], slots[3]])
    for number, batch in enumerate(data):
        if number == 4:
            assert cohort.remove(1) is slots[1]
            cohort.place(1, slots[2])
        if number % 4 == 0:
            cohort.begin_block()
        cohort.train_step(batch)
    lives = {0: data, 1: data[:4], 2: data[4:], 3: data}
    for index, mine in lives.items():
        alone = new_slot(runs[index], index)
        single = filled([alone])
        for number, batch in enumerate(mine):
            if number % 4 == 0:
                single.begin_block()
            single.train_step(batch)
        assert_same_bits(slots[index], alone, index)
    shared = slots[0].params["W_dec"].untyped_storage().data_ptr()
    assert slots[2].params["W_dec"].untyped_storage().data_ptr() == shared
    for gone in (slots[1], slots[3]):  # it does not keep the others in memory
        assert gone.params["W_dec"].untyped_storage().nbytes() == 4 * D * F


@pytest.mark.parametrize("stop", [2, WINDOW + 3])
@FAMILY
def test_slots_that_are_restored_continue_bit_for_bit(stop: int, sae: dict[str, Any]) -> None:
    runs, data = trials(sae)[:3], batches(STEPS)
    whole, before, after = ([new_slot(run, index) for index, run in enumerate(runs)] for _ in range(3))
    cohort, interrupted = filled(whole), filled(before)
    for number, batch in enumerate(data):
        if number == stop:
            cohort.begin_block()
        cohort.train_step(batch)
    for batch in data[:stop]:
        interrupted.train_step(batch)
    for slot, saved in zip(after, before, strict=True):
        slot.load({name: tensor.clone().contiguous() for name, tensor in saved.tensors().items()}, saved.meta())
    resumed = filled(after)
    for batch in data[stop:]:
        resumed.train_step(batch)
    for slot, other in zip(after, whole, strict=True):
        assert_same_bits(slot, other)


@FAMILY
def test_what_is_not_a_number_stays_with_its_slot(sae: dict[str, Any]) -> None:
    runs = trials(sae)[:3]
    slots = [new_slot(run, index) for index, run in enumerate(runs)]
    slots[1].params["W_dec"][3] = float("nan")
    cohort = filled(slots)
    healthy = new_slot(runs[2], 2)
    alone = filled([healthy])
    for batch in batches(STEPS):
        cohort.train_step(batch)
        alone.train_step(batch)
    assert [bool(slot.is_finite) for slot in slots] == [True, False, True]
    assert_same_bits(slots[2], healthy)


class Watch(TorchDispatchMode):
    """Counts the operators that do work, and those that a GPU would be waited for in."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")
    VIEWS = (
        "view",
        "expand",
        "unbind",
        "select",
        "slice",
        "transpose",
        "t",
        "detach",
        "split",
        "unsqueeze",
        "alias",
        "reshape",
    )

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put_") else ()
        masks = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)
        if masks or any(wait in name for wait in self.WAITS):
            self.waits.append(name)
        if name not in self.VIEWS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def watched_step(sae: Mapping[str, Any], n_slots: int, number: int, way: Way = "batched") -> Watch:
    """Watch a step of so many slots, counted from 0; the first of a block writes ahead what the others need."""
    runs = trials(sae)
    cohort = filled([new_slot(runs[index % len(runs)], index) for index in range(n_slots)], way)
    data = batches(number + 1)
    for batch in data[:-1]:
        cohort.train_step(batch)
    with Watch() as watch:
        cohort.train_step(data[-1])
    return watch


@pytest.mark.parametrize("number", [2, WINDOW + 3], ids=["none can be dead", "auxiliary loss"])
@FAMILY
def test_operators_of_a_step_do_not_grow_with_the_slots(number: int, sae: dict[str, Any]) -> None:
    one = watched_step(sae, 1, number).counts
    assert watched_step(sae, 2, number).counts == one
    assert watched_step(sae, 8, number).counts == one


def test_with_a_product_for_each_the_others_do_not_grow_either() -> None:
    one, eight = (watched_step(TOPK, n_slots, 2, "each").counts for n_slots in (1, 8))
    assert (one.pop("addmm"), eight.pop("addmm")) == (2, 16)  # of two chunks
    assert eight == one


@pytest.mark.parametrize("number", [2, WINDOW + 3], ids=["none can be dead", "auxiliary loss"])
@FAMILY
def test_a_step_waits_for_nothing(number: int, sae: dict[str, Any]) -> None:
    assert not watched_step(sae, 2, number).waits
    assert watched_step(sae, 2, number, "no").waits  # the watch would see it


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["batched", "each"])
@FAMILY
def test_a_gpu_is_not_waited_for_in_a_step(sae: dict[str, Any], way: Way) -> None:
    cohort = new_cohort(2, way, device="cuda")
    for index, run in enumerate(trials(sae)[:2]):
        cohort.place(index, new_slot(run, index, device="cuda"))
    cohort.begin_block()
    data = [{HOOK: batch[HOOK].cuda()} for batch in batches(STEPS)]
    for number, batch in enumerate(data):
        writes_ahead = number in (0, WINDOW + 1)  # at the start, and where latents may be dead from then on
        torch.cuda.set_sync_debug_mode("default" if writes_ahead else "error")
        try:
            cohort.train_step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
