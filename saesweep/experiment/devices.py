"""What `cohort.devices` asks for, as far as the file alone says."""

from __future__ import annotations

import re
from collections import Counter

_DEVICE = re.compile(r"cpu|mps|cuda(:[0-9]{1,3})?")
_COUNT = re.compile(r"cpu x [1-9][0-9]{0,3}")
_TAKES = "takes auto, a number of GPUs, a list such as [cuda:0, cuda:1], or a number of CPU workers such as cpu x 2"


def device_names(devices: str | int | list[str]) -> list[str] | None:
    """Return the device of each worker; None where the visible GPUs decide: `auto`, or a number of them."""
    if isinstance(devices, list):
        return list(devices)
    if isinstance(devices, str) and devices != "auto":
        device, _, count = devices.partition(" x ")
        return [device] * int(count)
    return None


def devices_problem(devices: str | int | list[str], base_device: str) -> str:
    """Return what is wrong with `cohort.devices` beside `base.device`; nothing where both go together."""
    if devices == []:
        return f"names no device; it {_TAKES}"
    unknown = [name for name in devices if not _DEVICE.fullmatch(name)] if isinstance(devices, list) else []
    if isinstance(devices, str) and devices != "auto" and not _COUNT.fullmatch(devices):
        unknown = [devices]
    if unknown:
        return f"{_TAKES}, not {unknown[0]!r}"
    names = device_names(devices)
    if names is None:
        if isinstance(devices, int) and devices > 1 and base_device not in ("auto", "cuda"):
            return f"{devices} GPUs are asked for, but base.device is {base_device}; leave base.device at auto"
        return ""
    kinds = {name.partition(":")[0] for name in names}
    if len(kinds) > 1:
        return f"workers train the same trials and must be on devices of one kind, but these are {', '.join(sorted(kinds))}"
    twice = [name for name, count in Counter(names).items() if count > 1 and name != "cpu"]
    if twice:
        return f"{twice[0]} is named twice; each worker has a device of its own"
    if len(names) > 1 and "cuda" in names:
        return "write cuda:0, cuda:1 and so on, or a number of GPUs"
    (kind,) = kinds
    if base_device != "auto" and base_device.partition(":")[0] != kind:
        return f"{kind} contradicts base.device, which is {base_device}; leave base.device at auto"
    return ""
