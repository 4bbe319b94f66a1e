"""What start-up measurement decides about the kernels: speed alone, never which gradients are computed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from saesweep.cohort.kernels.pairs import PairKernels

Gemm = Literal["default", "onednn", "split_fp16"]
Stacked = Literal["no", "batched", "each"]


@dataclass(frozen=True, kw_only=True)
class KernelChoice:
    """Settings of a `SparseEngine`, stored with a run: sums are taken in an order that depends on them.

    For one choice and one thread count, results are equal bit for bit from run to run.
    """

    gemm: Gemm = "default"
    """Library of the dense matrix products: what `torch.mm` calls; oneDNN for the encoder's (CPUs); or fp32 out of three products
    in fp16 (GPUs)."""
    chunk_elements: int = 1 << 22
    """Pre-activations held at once; the encoder runs in chunks of `chunk_elements // d_sae` tokens."""
    dense_above: float = 0.1
    """Share of active pairs from which the penalised architectures take the dense path."""
    screen: bool = False
    """Find the pairs that may matter by a bf16 product with a proven error bound, and compute only those in fp32 (CPUs)."""
    pairs: PairKernels = "torch"
    """Library of the products at active pairs: PyTorch's operators, or Triton kernels (GPUs alone)."""
    stacked: Stacked = "no"
    """Train SAEs of one shape as one batch of operations (topk, batchtopk, matryoshka_batchtopk): with one batched encoder product, or with
    one for each SAE by the library `gemm`."""

    def __post_init__(self) -> None:
        if self.gemm not in get_args(Gemm):
            raise ValueError(f"gemm: {self.gemm!r} is not one of {', '.join(get_args(Gemm))}")
        if self.pairs not in get_args(PairKernels):
            raise ValueError(f"pairs: {self.pairs!r} is not one of {', '.join(get_args(PairKernels))}")
        if type(self.chunk_elements) is not int or not 1 <= self.chunk_elements <= 1 << 40:
            raise ValueError(f"chunk_elements: {self.chunk_elements!r} must be a positive whole number up to 2**40")
        if self.stacked not in get_args(Stacked):
            raise ValueError(f"stacked: {self.stacked!r} is not one of {', '.join(get_args(Stacked))}")
        if type(self.screen) is not bool:
            raise ValueError(f"screen: {self.screen!r} must be true or false")
        if not isinstance(self.dense_above, (int, float)) or not 0.0 <= self.dense_above <= 1.0:
            raise ValueError(f"dense_above: {self.dense_above!r} is not between 0 and 1")

    def chunk_rows(self, d_sae: int) -> int:
        """Return the tokens of one chunk."""
        return max(self.chunk_elements // d_sae, 16)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> KernelChoice:
        """Return the choice that `to_json` described.

        Raises:
            TypeError: A field that this version does not know.
            ValueError: A value out of range.
        """
        return cls(**stored)
