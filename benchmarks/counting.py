"""Counts what PyTorch is asked to do: operators started, reads that make the host wait for a device, bytes alive.

    with Counting() as counted:
        cohort.train_step(batch)
    print(counted.launches, counted.host_reads)

It sees each operator after composite ones are taken apart, on any device, and on tensors without memory too
(`pretended_gpu.py`). One operator may be several kernels of a GPU, a sort for instance; how many, a profiler says there.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_MAKES_NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias"}
_MAKES_NOTHING |= {"_unsafe_view", "_reshape_alias", "lift_fresh", "lift", "set_", "resize_", "device"}
"""Operators that start no work: they make, name or view memory."""
_SIZED_BY_VALUES = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
_SIZED_BY_VALUES |= {"repeat_interleave", "equal", "is_nonzero"}
"""Operators whose result has a size, or is a Python value, that the host reads from the device."""
_ROUND = 512
"""Bytes to which CUDA's allocator rounds every tensor up."""


class Counting(TorchDispatchMode):
    """Counts while it is entered; it changes no result.

    Attributes:
        launches: Operators that start work on a device.
        operators: How often each of them was called, by name.
        host_reads: How often the host read a value or a size from a device, or handed over one, by operator.
        live_bytes: Bytes of the dense tensors that were made while it was entered and are still alive, as CUDA's allocator rounds them.
        peak_bytes: The most of them at a time.
    """

    def __init__(self, device_type: str = "cpu") -> None:
        """Start at 0.

        Args:
            device_type: Device whose memory is counted, and between which and others copies count as reads.
        """
        super().__init__()
        self._device_type = device_type
        self._alive: dict[int, weakref.ref[Any]] = {}
        self.live_bytes = 0
        self.peak_bytes = 0
        self.restart()

    @property
    def launches(self) -> int:
        """Operators that start work on a device."""
        return sum(self.operators.values())

    def restart(self) -> None:
        """Forget operators and reads, and let the peak begin at what is alive."""
        self.operators: Counter[str] = Counter()
        self.host_reads: Counter[str] = Counter()
        self.peak_bytes = self.live_bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count an operator and run it."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        reads = self._reads(name, args, kwargs)
        found = func(*args, **kwargs)
        if reads:
            self.host_reads[name] += 1
        if name == "_local_scalar_dense":
            return found
        if not (func.is_view or name in _MAKES_NOTHING or func.namespace == "prim"):
            self.operators[name] += 1
        self._remember(found)
        return found

    def _reads(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if name == "_local_scalar_dense" or name in _SIZED_BY_VALUES:
            return True
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if name == "copy_":
            return bool(args[0].device != args[1].device)
        if name == "_to_copy":
            to = kwargs.get("device")
            return to is not None and torch.device(to).type != args[0].device.type
        return False

    def _remember(self, made: Any) -> None:
        for tensor in made if isinstance(made, (list, tuple)) else (made,):
            is_dense = isinstance(tensor, Tensor) and tensor.layout is torch.strided
            if is_dense and tensor.device.type == self._device_type:
                storage = tensor.untyped_storage()
                if storage._cdata not in self._alive:
                    size = -(-storage.nbytes() // _ROUND) * _ROUND
                    self._alive[storage._cdata] = weakref.ref(storage, self._forget(storage._cdata, size))
                    self.live_bytes += size
                    self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _forget(self, key: int, size: int) -> Callable[[object], None]:
        def forget(_: object) -> None:
            del self._alive[key]
            self.live_bytes -= size

        return forget
