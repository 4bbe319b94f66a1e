"""The forms in which SAEs are published: for each architecture that a `cfg.json` can name, its tensors, its rules and what it computes.

The file of an architecture registers the form that is exported under its name.
"""

# Shape suffix legend:  N = tokens (any leading dimensions), D = d_in, O = d_out (of an SAE: d_in), F = d_sae

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

Cfg = Mapping[str, Any]
"""The contents of a `cfg.json`."""
Tensors = Mapping[str, Tensor]
"""Weights by SAELens' names."""


class ExportedForm:
    """One published form; `relu(x~ W_enc + b_enc)` where a subclass says nothing else. Stateless.

    `x~` are raw activations after the per-token normalisation of `cfg`, less `b_dec` where `apply_b_dec_to_input` says so.
    """

    is_transcoder: ClassVar[bool] = False
    """Whether it reconstructs the activations of another hook than the one that it reads."""
    vectors: ClassVar[tuple[str, ...]] = ("b_enc",)
    """Tensors with one number per latent."""

    def shapes(self, cfg: Cfg) -> dict[str, tuple[int, ...]]:
        """Return the tensors that a valid `cfg` calls for: name -> shape."""
        d_in, d_sae = cfg["d_in"], cfg["d_sae"]
        matrices: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
        return matrices | {name: (d_sae,) for name in self.vectors}

    def stored_shapes(self, cfg: Cfg) -> dict[str, tuple[int, ...]]:
        """Return the tensors as a folder holds them: name -> shape, of as many numbers in the same order."""
        return self.shapes(cfg)

    def n_layers(self, cfg: Cfg) -> int:
        """Return the number of hooks whose activations stand side by side in what it reads: one but for crosscoders."""
        return 1

    def problems(self, cfg: Cfg) -> list[str]:
        """Return what is wrong with the fields of `cfg` that this form has beyond the common ones, one sentence each."""
        return []

    def encode(self, cfg: Cfg, tensors: Tensors, x_ND: Tensor) -> Tensor:
        """Return the latents [N, F] of `x~`."""
        return self.pre_acts(tensors, x_ND).relu()

    def decode(self, cfg: Cfg, tensors: Tensors, feature_acts_NF: Tensor) -> Tensor:
        """Return the reconstruction [N, O], before a per-token normalisation is undone."""
        return feature_acts_NF @ tensors["W_dec"] + tensors["b_dec"]

    @staticmethod
    def pre_acts(tensors: Tensors, x_ND: Tensor) -> Tensor:
        """Return `x~ W_enc + b_enc` [N, F]."""
        return x_ND @ tensors["W_enc"] + tensors["b_enc"]


_FORMS: dict[str, ExportedForm] = {}


def register_form(name: str, form: ExportedForm) -> None:
    """Read, write and compute SAEs whose `cfg.json` says `architecture: name` in this form."""
    known = _FORMS.get(name)
    if known is not None and type(known).__qualname__ != type(form).__qualname__:
        raise ValueError(f"a form {name!r} is registered already, by {type(known).__module__}")
    _FORMS[name] = form


def form_of(name: object) -> ExportedForm:
    """Return the form of an architecture's name.

    Raises:
        ValueError: saesweep does not read and write it.
    """
    found = _FORMS.get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"unknown architecture {str(name)!r}; known: {', '.join(_FORMS)}")
    return found


def positive_int_problem(cfg: Cfg, field: str, *, max_field: str | None = None) -> list[str]:
    """Return the sentence about a field that must be a whole number from 1 (to another field); none where it is one."""
    value, maximum = cfg.get(field), cfg.get(max_field) if max_field is not None else None
    if type(value) is int and value >= 1 and not (type(maximum) is int and value > maximum):
        return []
    wanted = "a positive whole number" if max_field is None else f"a whole number from 1 to {max_field}"
    return [f"{field} must be {wanted}, got {value!r}"]
