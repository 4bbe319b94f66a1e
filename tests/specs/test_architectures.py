from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import pytest

from saesweep.errors import UserError
from saesweep.experiment import load_experiment
from saesweep.specs.architectures import SAESpec, architectures, base, register_spec, spec_class


@pytest.fixture
def third_party() -> Iterator[str]:
    """An architecture that a user's own module registers."""

    @register_spec("mine")
    class MineSpec(SAESpec):
        """A third-party architecture."""

        saved_as: ClassVar[str] = "standard"
        architecture: Literal["mine"] = "mine"
        """Name."""
        shine: float = 1.0
        """Its own field."""

    yield "mine"
    del base._REGISTRY["mine"]


def test_a_registered_architecture_can_be_swept(third_party: str, experiment_tree: dict[str, object]) -> None:
    assert third_party in architectures()
    experiment_tree["space"] = {
        "sae.architecture": {"choice": ["topk", "mine"]},
        "sae.shine": {"float": [0.5, 2.0]},
    }
    experiment = load_experiment(experiment_tree)
    assert {p.path: p.when for p in experiment.parameters()}["sae.shine"] == {"sae.architecture": ("mine",)}
    run = experiment.resolve({"sae.architecture": "mine", "sae.shine": 0.7})
    assert run.sae.model_dump()["shine"] == 0.7


@pytest.fixture
def experiment_tree() -> dict[str, object]:
    return {"name": "t", "base": {"dataset_path": "x", "sae": {"d_sae": 128}}}


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="registered already"):

        @register_spec("topk")
        class OtherSpec(SAESpec):
            """Another."""


def test_widths() -> None:
    spec = spec_class("topk").model_validate({"expansion_factor": 4})
    resolved = spec.resolve_widths(16)
    assert (resolved.d_in, resolved.d_sae, resolved.expansion_factor) == (16, 64, None)
    with pytest.raises(UserError, match="the activations at this hook are 16 wide"):
        spec_class("topk").model_validate({"d_in": 8, "d_sae": 64}).resolve_widths(16)
    with pytest.raises(UserError, match="give the number of latents"):
        spec_class("topk").model_validate({}).resolve_widths(16)


def test_inner_widths_leave_out_the_last_level() -> None:
    spec = spec_class("matryoshka_batchtopk").model_validate({"d_sae": 64, "matryoshka_widths": [8, 64]})
    assert spec.problems() == [("k", "100 is more than d_sae 64; at most d_sae latents can be active")]
    assert spec.inner_widths == (8,)  # type: ignore[attr-defined]
