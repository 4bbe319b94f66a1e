"""The way that code takes on a GPU, without one: tensors have a device `cuda` and shapes, but no memory and no values.

What is started, read back and allocated there can then be counted on any machine and at any size (`counting.py`). Where code
reads a value or a size that depends on values, it gets a stated answer; Triton's kernels are doubles that allocate what the
real ones do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, META = 1, 14
"""Numbers of device types in PyTorch's tables (c10/core/DeviceType.h)."""


@dataclass(frozen=True)
class Answers:
    """What code gets that reads a value.

    Attributes:
        share: Of a mask's entries, those that are true.
        counts: How many are true in masks of a stated number of entries.
        kept: True entries of a mask with which a vector of values is indexed.
        flag: A boolean.
        number: A whole number.
    """

    share: float = 0.01
    counts: Mapping[int, int] = field(default_factory=dict)
    kept: int = 1
    flag: bool = True
    number: int = 0


class _Answering(TorchDispatchMode):
    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            if args[0].dtype == torch.bool:
                return self._answers.flag
            return 1.0 if args[0].dtype.is_floating_point else self._answers.number
        if name == "nonzero":
            size = args[0].numel()
            n_true = self._answers.counts.get(size, max(round(self._answers.share * size), 1))
            return args[0].new_empty(n_true, args[0].dim(), dtype=torch.int64)
        if name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1]):
            (mask,) = args[1]
            args = (args[0], [mask.new_empty(self._answers.kept, dtype=torch.int64)], *args[2:])
        return func(*args, **(kwargs or {}))


def _doubles() -> SimpleNamespace:
    """Return what stands for `triton_kernels`: the same allocations, and one operator for each kernel."""

    def unit_columns(table_RD: Tensor) -> Tensor:
        return table_RD if table_RD.stride(1) == 1 else table_RD.contiguous()

    def dots(rows_P: Tensor, cols_P: Tensor, left_RD: Tensor, right_RD: Tensor) -> Tensor:
        left_RD, right_RD = unit_columns(left_RD), unit_columns(right_RD)
        return left_RD.new_empty(rows_P.shape[0]).fill_(0)

    def weighted_sums(
        index_P: Tensor, weights_P: Tensor, offsets_S1: Tensor, table_RD: Tensor, *, out_SD: Tensor, add: bool
    ) -> Tensor:
        unit_columns(table_RD)
        return out_SD.fill_(0)

    def split(factor_RC: Tensor, scale: Tensor, is_high: object, depth: int, *, out: Tensor) -> None:
        out.fill_(0)

    return SimpleNamespace(dots=dots, weighted_sums=weighted_sums, split=split)


DEVICE = torch.device("cuda", 0)
"""The pretended GPU; without the number PyTorch would ask CUDA which one is meant."""


@contextmanager
def pretended_gpu(answers: Answers | None = None) -> Iterator[None]:
    """Let `DEVICE` make tensors without memory, and code take the ways that it takes on a GPU.

    Autograd does not work there: it starts threads for the devices that CUDA has.

    Args:
        answers: What code gets that reads a value from the device.
    """
    from saesweep.cohort.kernels import gemm, pairs, topk

    doubles = _doubles()
    with ExitStack() as stack:
        topk._bounds.cache_clear()
        stack.callback(topk._bounds.cache_clear)  # what it keeps has no values
        stack.enter_context(_device_guard())
        for module in (gemm, pairs):
            stack.enter_context(patch.object(module, "triton_or_none", lambda: doubles))
        # Several tensors are worked on by one operator on a GPU, where they are plain ones.
        types = [*torch.utils._foreach_utils._foreach_supported_types, FakeTensor]
        stack.enter_context(patch.object(torch.utils._foreach_utils, "_foreach_supported_types", types))
        stack.enter_context(FakeTensorMode())
        stack.enter_context(_Answering(answers or Answers()))
        yield


@contextmanager
def _device_guard() -> Iterator[None]:
    """Let builds without CUDA index tensors that say they are on a GPU: switching the device does nothing."""
    if torch.cuda.is_available():
        yield
        return
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (META + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    before = guards[CUDA]
    guards[CUDA] = before or guards[META]
    try:
        yield
    finally:
        guards[CUDA] = before
