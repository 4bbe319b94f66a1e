"""Architectures whose sparsity is a count: topk, batchtopk, matryoshka_batchtopk, abstopk, multi_k."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from saesweep.specs.architectures.base import AlignableSpec, register_spec
from saesweep.specs.units import Duration, Steps

_WIDTHS = ("d_in", "d_sae", "expansion_factor")


class TopKFamilySpec(AlignableSpec):
    """What the TopK-type architectures share."""

    sparsity_field: ClassVar[str | None] = "k"

    k: float = Field(100, gt=0)
    """Active latents per token (for batchtopk types: on average over the batch)."""
    k_start: float | None = Field(None, gt=0)
    """k at the first step, where `k_anneal_steps` says how long it takes to `k`; `d_in` when left out."""
    k_anneal_steps: Steps = Duration(0)
    """k goes linearly from `k_start` to `k` over this time: steps, tokens (`5Mtok`) or share of the run (`20%`)."""
    aux_loss_coefficient: float = Field(1.0, ge=0)
    """Weight of the auxiliary loss, in which dead latents reconstruct the residual."""
    rescale_acts_by_decoder_norm: bool = True
    """Select latents by activation times decoder norm."""

    def problems(self) -> list[tuple[str, str]]:
        """Return cross-field mistakes as (field, message)."""
        found = super().problems()
        if self.d_sae is not None and self.k > self.d_sae:
            found.append(("k", f"{self.k:g} is more than d_sae {self.d_sae}; at most d_sae latents can be active"))
        if self.d_sae is not None and self.k_start is not None and self.k_start > self.d_sae:
            found.append(
                ("k_start", f"{self.k_start:g} is more than d_sae {self.d_sae}; at most d_sae latents can be active")
            )
        if self.k_start is not None and self.k_anneal_steps == Duration(0):
            found.append(
                ("k_start", "says where k starts, and k_anneal_steps is 0; set it, such as 20%, or leave this out")
            )
        if self.aux_loss_coefficient > 0 and self.normalize_activations in ("layer_norm", "constant_norm_rescale"):
            found.append(
                (
                    "normalize_activations",
                    f"{self.normalize_activations} cannot be combined with the auxiliary loss, whose residual is in the un-normalised space; "
                    "use expected_average_only_in, or set aux_loss_coefficient: 0",
                )
            )
        return found


@register_spec("topk")
class TopKSpec(TopKFamilySpec):
    """TopK SAE (arXiv 2406.04093)."""

    saved_as: ClassVar[str] = "topk"

    architecture: Literal["topk"] = "topk"
    """Name of the architecture."""
    k: int = Field(100, ge=1)
    """Active latents per token."""


@register_spec("batchtopk")
class BatchTopKSpec(TopKFamilySpec):
    """BatchTopK SAE (arXiv 2412.06410), exported as a jumprelu with a calibrated threshold."""

    saved_as: ClassVar[str] = "jumprelu"

    architecture: Literal["batchtopk"] = "batchtopk"
    """Name of the architecture."""


@register_spec("matryoshka_batchtopk")
class MatryoshkaBatchTopKSpec(BatchTopKSpec):
    """Matryoshka BatchTopK SAE (arXiv 2503.17547): nested prefixes of the latents each reconstruct."""

    read_together: ClassVar[dict[str, tuple[str, ...]]] = {"matryoshka_widths": (*_WIDTHS, "architecture")}

    architecture: Literal["matryoshka_batchtopk"] = "matryoshka_batchtopk"  # type: ignore[assignment]
    """Name of the architecture."""
    matryoshka_widths: tuple[int, ...] = ()
    """Inner widths, ascending; d_sae is added as the last level."""
    use_matryoshka_aux_loss: bool = False
    """Apply the auxiliary loss at every level instead of the outermost alone."""
    temporal_coefficient: float = Field(0.0, ge=0)
    """Weight of the contrastive loss between neighbouring tokens' latents of the first width (Temporal SAE, arXiv 2511.05541)."""

    @field_validator("matryoshka_widths", mode="before")
    @classmethod
    def _list_to_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def problems(self) -> list[tuple[str, str]]:
        """Return cross-field mistakes as (field, message)."""
        found = super().problems()
        widths = self.matryoshka_widths
        if not widths:
            found.append(
                (
                    "matryoshka_widths",
                    "missing; give the inner widths, such as a quarter and a half of d_sae, ascending",
                )
            )
        elif list(widths) != sorted(set(widths)) or any(w < 1 for w in widths):
            found.append(("matryoshka_widths", f"{list(widths)} must be positive and strictly ascending"))
        elif widths and self.d_sae is not None and widths[-1] > self.d_sae:
            found.append(("matryoshka_widths", f"{widths[-1]} is more than d_sae {self.d_sae}"))
        return found

    @property
    def inner_widths(self) -> tuple[int, ...]:
        """The widths below `d_sae`."""
        return tuple(w for w in self.matryoshka_widths if self.d_sae is None or w < self.d_sae)


@register_spec("abstopk")
class AbsTopKSpec(TopKSpec):
    """AbsTopK SAE (arXiv 2510.00404): the k latents of largest magnitude, with their signs."""

    saved_as: ClassVar[str] = "abstopk"

    architecture: Literal["abstopk"] = "abstopk"  # type: ignore[assignment]
    """Name of the architecture."""


@register_spec("multi_k")
class MultiKSpec(TopKSpec):
    """HierarchicalTopK SAE (arXiv 2505.24473): one topk SAE whose reconstructions at several k are trained together."""

    trained_in_saelens_as: ClassVar[str | None] = "topk"
    read_together: ClassVar[dict[str, tuple[str, ...]]] = {"ks": ("k", *_WIDTHS, "architecture"), "k": ("ks",)}

    architecture: Literal["multi_k"] = "multi_k"  # type: ignore[assignment]
    """Name of the architecture."""
    ks: tuple[int, ...] = ()
    """Active latents per token at which reconstructions are trained, ascending; left out: an eighth, a quarter, a half and all of `k`."""
    k: int = Field(100, ge=1)
    """Active latents per token of the exported SAE; left out beside `ks`: the largest of them."""

    @field_validator("ks", mode="before")
    @classmethod
    def _list_to_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="before")
    @classmethod
    def _export_the_largest(cls, data: Any) -> Any:
        ks = data.get("ks") if isinstance(data, dict) else None
        if isinstance(ks, (list, tuple)) and ks and "k" not in data and all(type(k) is int for k in ks):
            return {**data, "k": max(ks)}
        return data

    def floats_per_token(self) -> int:
        """Return the family's numbers, and for each further k the latents that it keeps."""
        assert self.d_sae is not None
        return super().floats_per_token() + (len(self.levels) - 1) * self.d_sae

    def problems(self) -> list[tuple[str, str]]:
        """Return cross-field mistakes as (field, message)."""
        found = super().problems()
        if not self.ks:
            return found
        if list(self.ks) != sorted(set(self.ks)) or self.ks[0] < 1:
            found.append(("ks", f"{list(self.ks)} must be positive and strictly ascending"))
        elif self.d_sae is not None and self.ks[-1] > self.d_sae:
            found.append(("ks", f"{self.ks[-1]} is more than d_sae {self.d_sae}; at most d_sae latents can be active"))
        elif self.k > self.ks[-1]:
            found.append(("k", f"{self.k} is more than the largest of ks, {self.ks[-1]}, which is what trains"))
        return found

    @property
    def levels(self) -> tuple[int, ...]:
        """The k that train, ascending."""
        return self.ks or tuple(sorted({max(1, self.k // part) for part in (8, 4, 2, 1)}))
