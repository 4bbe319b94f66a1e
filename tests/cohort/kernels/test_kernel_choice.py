"""Start-up measurement, its cache, and what is kept with a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from saesweep.cohort import kernels as kernels_package
from saesweep.cohort.kernels import (
    KernelChoice,
    cache,
    choose,
    gemm_error,
    is_exact,
    kernel_choice,
    screen_error,
    stacked_check,
    triton_or_none,
)
from saesweep.cohort.kernels import backends as backends_module
from saesweep.cohort.kernels import exactness as exactness_module
from saesweep.cohort.kernels.exactness import pairs_error
from saesweep.cohort.kernels.pairs import PairKernels
from saesweep.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(cache.OVERRIDE, raising=False)
    return tmp_path / "saesweep" / "kernels.json"


def test_json_round_trip() -> None:
    choice = KernelChoice(gemm="onednn", chunk_elements=12345, dense_above=0.07)
    assert KernelChoice.from_json(json.loads(json.dumps(choice.to_json()))) == choice


@pytest.mark.parametrize(
    "bad", [{"gemm": "magic"}, {"chunk_elements": 0}, {"dense_above": 1.5}, {"pairs": "magic"}, {"stacked": True}]
)
def test_values_out_of_range(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        KernelChoice.from_json(bad)


def test_measurement_keeps_its_budget_and_gives_usable_settings() -> None:
    choice = choose(32, 256, budget_seconds=0.5)
    assert choice.chunk_rows(256) >= 16
    assert 0 < choice.dense_above <= 0.5


def test_no_time_means_the_defaults() -> None:
    assert choose(32, 256, budget_seconds=0.0) == KernelChoice()


@pytest.mark.parametrize("d_in", [3, 64, 700])
def test_the_screen_stays_within_its_bound_here(d_in: int) -> None:
    assert 0 < screen_error(d_in, 2048) <= 1


def test_a_screen_that_breaks_its_bound_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (backends_module, exactness_module):
        monkeypatch.setattr(module, "screen_error", lambda d_in, d_sae: 1.5)
    assert not choose(64, 2048, budget_seconds=0.5).screen
    with pytest.raises(UserError, match="not exact"):
        kernel_choice(64, 2048, stored={"screen": True})


@pytest.mark.parametrize("d_in", [3, 64, 700])
def test_products_at_pairs_are_float32(d_in: int) -> None:
    assert pairs_error("torch", d_in) < 1e-6


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize("d_in", [3, 64, 700])
def test_products_at_pairs_are_float32_on_a_gpu(d_in: int, kernels: PairKernels) -> None:
    assert pairs_error(kernels, d_in, device="cuda") < 1e-6


@pytest.mark.gpu
def test_what_a_gpu_chooses() -> None:
    choice = choose(512, 8192, device="cuda")
    assert choice.gemm == "split_fp16"
    assert choice.pairs == "triton"
    assert not choice.screen
    assert is_exact(choice, 512, 8192, device="cuda")


def test_where_triton_cannot_compile_other_operators_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe() -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setitem(sys.modules, "saesweep.cohort.kernels.triton_kernels", SimpleNamespace(probe=probe))
    monkeypatch.setattr(kernels_package, "triton_kernels", SimpleNamespace(probe=probe), raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    triton_or_none.cache_clear()
    try:
        with pytest.warns(UserWarning, match="Triton does not work here.*C compiler"):
            assert triton_or_none() is None
        assert pairs_error("triton", 8, device="cuda") == float("inf")
    finally:
        triton_or_none.cache_clear()


def test_triton_is_refused_on_a_cpu() -> None:
    with pytest.raises(UserError, match="not exact"):
        kernel_choice(64, 2048, stored={"pairs": "triton"})


def test_the_default_product_is_float32() -> None:
    assert gemm_error("default", 512, 4096) < 3e-7


def test_a_library_is_checked_at_the_widths_that_it_is_used_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that takes a way of its own for large products cannot hide behind small ones."""

    def sloppy_when_wide(
        gemm: str, x: torch.Tensor, W: torch.Tensor, b: torch.Tensor, *, out: object = None
    ) -> torch.Tensor:
        if gemm == "onednn" and W.shape[0] >= 512:
            return (x.bfloat16() @ W.bfloat16().t()).float() + b
        return x @ W.t() + b

    for module in (backends_module, exactness_module):
        monkeypatch.setattr(module, "linear", sloppy_when_wide)
    assert is_exact(KernelChoice(gemm="onednn"), 64, 511)
    assert not is_exact(KernelChoice(gemm="onednn"), 64, 512)
    with pytest.raises(UserError, match="not exact"):
        kernel_choice(64, 512, stored={"gemm": "onednn"})


@pytest.mark.parametrize("d_in", [1, 64, 2304, 16_384])
@pytest.mark.parametrize("d_sae", [16, 16_384, 2**20])
def test_the_memory_and_the_time_of_a_check_are_bounded(d_in: int, d_sae: int) -> None:
    latents = exactness_module.checked_latents(d_in, d_sae)
    assert latents * d_in <= max(exactness_module.MAX_WEIGHTS, 64 * d_in)
    assert latents <= max(64, min(d_sae, exactness_module.MAX_LATENTS))
    assert latents == d_sae or d_sae < 64 or latents * d_in > exactness_module.MAX_WEIGHTS / 2 or d_sae > 2**16


def test_an_inexact_library_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def sloppy(gemm: str, x: torch.Tensor, W: torch.Tensor, b: torch.Tensor, *, out: object = None) -> torch.Tensor:
        if gemm == "onednn":
            return (x.bfloat16() @ W.bfloat16().t()).float() + b
        return x @ W.t() + b

    for module in (backends_module, exactness_module):
        monkeypatch.setattr(module, "linear", sloppy)
    assert gemm_error("onednn", 64, 512) > 1e-4
    assert choose(64, 512, budget_seconds=0.5).gemm == "default"
    with pytest.raises(UserError, match="not exact"):
        kernel_choice(64, 512, stored={"gemm": "onednn"})


def test_second_run_on_a_machine_takes_the_first_one_s_choice(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = KernelChoice(chunk_elements=4321, dense_above=0.03)
    monkeypatch.setattr(cache, "choose", lambda *a, **k: measured)
    first, why = kernel_choice(32, 256)
    assert first == measured
    assert str(own_cache) in why
    monkeypatch.setattr(cache, "choose", lambda *a, **k: pytest.fail("measured again"))
    assert kernel_choice(32, 256)[0] == measured


def test_what_a_version_with_fewer_settings_measured_is_measured_again(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "choose", lambda *a, **k: KernelChoice(dense_above=0.03))
    kernel_choice(32, 256)
    known = json.loads(own_cache.read_text())
    ((key, stored),) = known.items()
    own_cache.write_text(json.dumps({key: {name: value for name, value in stored.items() if name != "pairs"}}))
    monkeypatch.setattr(cache, "choose", lambda *a, **k: KernelChoice(dense_above=0.07))
    assert kernel_choice(32, 256)[0].dense_above == 0.07
    assert "pairs" in json.loads(own_cache.read_text())[key]


def test_a_gpu_without_the_product_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("out_dtype is not supported on this device")

    monkeypatch.setattr(exactness_module, "linear", lacks)
    assert gemm_error("onednn", 64, 512) == float("inf")

    def out_of_memory(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(exactness_module, "linear", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        gemm_error("onednn", 64, 512)


def test_another_shape_or_thread_count_is_measured_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(cache, "choose", lambda *a, **k: (asked.append(a), KernelChoice())[1])
    kernel_choice(32, 256)
    kernel_choice(32, 512)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    kernel_choice(32, 256)
    assert len(asked) == 3


def test_a_run_s_own_choice_wins_over_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "choose", lambda *a, **k: pytest.fail("measured"))
    stored = KernelChoice(chunk_elements=999)
    assert kernel_choice(32, 256, stored=stored.to_json())[0] == stored


def test_the_user_wins_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.OVERRIDE, '{"dense_above": 0.2}')
    assert kernel_choice(32, 256, stored=KernelChoice().to_json())[0] == KernelChoice(dense_above=0.2)


@pytest.mark.parametrize("text", ["fast", "[1]", '{"speed": 3}', '{"gemm": "magic"}'])
def test_a_bad_override_is_the_user_s_mistake(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.OVERRIDE, text)
    with pytest.raises(UserError, match=cache.OVERRIDE):
        kernel_choice(32, 256)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}'])
def test_a_damaged_cache_is_measured_anew(text: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text(text)
    monkeypatch.setattr(cache, "choose", lambda *a, **k: KernelChoice())
    assert kernel_choice(32, 256)[0] == KernelChoice()
    assert json.loads(own_cache.read_text())


def test_a_cache_that_cannot_be_written_is_said(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cache.parent.write_text("a file where a folder should be")
    monkeypatch.setattr(cache, "choose", lambda *a, **k: KernelChoice())
    assert "cannot be written" in kernel_choice(32, 256)[1]


def test_stacking_is_what_the_file_says_or_what_was_kept() -> None:
    for kind in ("batched", "each"):
        kept = KernelChoice(stacked=kind).to_json()
        assert kernel_choice(24, 96, stored=kept)[0].stacked == kind
        assert kernel_choice(24, 96, stored=kept, stacked=True)[0].stacked == kind
        assert kernel_choice(24, 96, stored=kept, stacked=False)[0].stacked == "no"
    assert kernel_choice(24, 96, stored=KernelChoice().to_json(), stacked=True)[0] == KernelChoice(stacked="batched")


def spoil(monkeypatch: pytest.MonkeyPatch, *spoilt: str) -> None:
    """Let these ways to stack round otherwise among many."""
    original = stacked_check.stacked_step

    def step(shape: Any, params: Any, *args: Any) -> Any:
        result = original(shape, params, *args)
        if args[-1].stacked in spoilt:
            result.grads["b_dec"].mul_(1.0 + 1e-6 * (len(params["b_dec"]) > 2))
        return result

    monkeypatch.setattr(stacked_check, "stacked_step", step)


def test_stacking_is_refused_where_bits_depend_on_the_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "batched", "each")
    assert not is_exact(KernelChoice(stacked="batched"), 24, 96)
    with pytest.raises(UserError, match="not exact"):
        kernel_choice(24, 96, stored=KernelChoice(stacked="each").to_json())
    with pytest.raises(UserError, match="same bits alone and among others"):
        kernel_choice(24, 96, stored=KernelChoice().to_json(), stacked=True)


def test_where_a_batched_product_rounds_otherwise_each_sae_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "batched")
    assert kernel_choice(24, 96, stored=KernelChoice().to_json(), stacked=True)[0] == KernelChoice(stacked="each")


@pytest.mark.parametrize(
    ("seconds", "keep_bits", "chosen"),
    [
        ({"no": 1.0, "batched": 0.5, "each": 0.6}, ("batched", "each"), "batched"),
        ({"no": 1.0, "batched": 0.5, "each": 0.4}, ("batched", "each"), "each"),
        ({"no": 1.0, "each": 0.6}, ("each",), "each"),
        ({"no": 1.0, "batched": 0.95, "each": 0.95}, ("batched", "each"), "no"),
        ({"no": 1.0}, (), "no"),
        ({}, ("batched", "each"), "no"),
    ],
    ids=["batched", "each", "other bits", "near tie", "no way keeps bits", "no time"],
)
def test_what_is_chosen_on_a_gpu(
    seconds: dict[str, float], keep_bits: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked_check, "keeps_bits", lambda choice, *_, **__: choice.stacked in keep_bits)
    monkeypatch.setattr(stacked_check, "Sample", lambda *_, **__: None)
    monkeypatch.setattr(stacked_check, "taking_a_step", lambda *_: None)

    def timed(rivals: dict[str, None]) -> dict[str, float]:
        assert list(rivals) == ["no", *keep_bits]
        return seconds

    timer = SimpleNamespace(device=torch.device("cuda"), seconds=timed)
    assert stacked_check.fastest_stacked(timer, KernelChoice(), 24, 96) == chosen  # type: ignore[arg-type]


def test_the_clock_compares_steps_that_do_the_same() -> None:
    found = []
    for kind in ("no", "batched", "each"):
        sample = stacked_check.Sample(3, 24, 96, device="cpu", n_tokens=80)
        before = {name: weight.clone() for name, weight in sample.params.items()}
        stacked_check.taking_a_step(KernelChoice(stacked=kind), sample)()
        found.append(sample.params)
        assert all(not torch.equal(weight, before[name]) for name, weight in sample.params.items())
    for name, weight in found[0].items():
        for other in found[1:]:
            torch.testing.assert_close(weight, other[name], rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize(("d_in", "d_sae"), [(64, 1024), (512, 8192)])
def test_stacked_steps_keep_their_bits_on_a_gpu(d_in: int, d_sae: int) -> None:
    assert is_exact(KernelChoice(stacked="each", pairs="triton", gemm="split_fp16"), d_in, d_sae, device="cuda")
