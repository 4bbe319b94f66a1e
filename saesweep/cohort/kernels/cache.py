"""Where a run's `KernelChoice` comes from: the user, the run directory, this machine's cache, or a measurement.

The cache makes two fresh runs of the same file on one machine choose the same, and so give the same bits.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from saesweep.atomic import write_text
from saesweep.cohort.kernels.backends import choose
from saesweep.cohort.kernels.choice import KernelChoice
from saesweep.cohort.kernels.exactness import is_exact
from saesweep.cohort.kernels.stacked_check import STACKED
from saesweep.errors import UserError

OVERRIDE = "SAESWEEP_KERNELS"
"""Environment variable with a JSON object of `KernelChoice` fields that replaces every other source."""
_STALE_SECONDS = 3600


def kernel_choice(
    d_in: int,
    d_sae: int,
    *,
    device: torch.device | str = "cpu",
    stored: dict[str, Any] | None = None,
    stacked: bool | None = None,
) -> tuple[KernelChoice, str]:
    """Return the settings for a run, and where they come from, as a phrase for the user.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents; for a cohort of mixed widths, the largest.
        device: Where the cohort trains.
        stored: What an earlier start of this run stored (`KernelChoice.to_json`): kept, so that a resumed run uses the same.
        stacked: Whether SAEs of one shape are trained as one where they can be, where the file says it; None: as the source has it.

    Raises:
        UserError: The environment variable is not valid, or what was asked for or stored is not exact on this machine.
    """
    choice, source = _of_source(d_in, d_sae, device, stored)
    if stacked is False:
        choice = replace(choice, stacked="no")
    elif stacked and choice.stacked == "no":
        kinds = [replace(choice, stacked=kind) for kind in STACKED]
        exact = next((each for each in kinds if is_exact(each, d_in, d_sae, device=device)), None)
        if exact is None:
            raise UserError(
                "cohort.kernels: stacked does not give an SAE the same bits alone and among others on this machine; use sparse"
            )
        choice = exact
    return choice, source


def _of_source(
    d_in: int, d_sae: int, device: torch.device | str, stored: dict[str, Any] | None
) -> tuple[KernelChoice, str]:
    if (text := os.environ.get(OVERRIDE)) is not None:
        choice, source = _parsed(text), f"{OVERRIDE} in the environment"
    elif stored is not None:
        try:
            choice, source = KernelChoice.from_json(stored), "kept from this run's first start"
        except (TypeError, ValueError) as error:
            raise UserError(
                f"choices.json of the run: damaged, kernels are no settings of this version ({error}); "
                "restore it, or start a new run with --run-dir"
            ) from None
    else:
        return _cached(d_in, d_sae, torch.device(device))
    if not is_exact(choice, d_in, d_sae, device=device):
        raise UserError(
            f"kernels: {json.dumps(choice.to_json())} ({source}) is not available or not exact in float32 on this "
            f'machine; set {OVERRIDE}=\'{{"gemm": "default", "screen": false, "pairs": "torch", "stacked": "no"}}\' to use the plain ones'
        )
    return choice, source


def cache_file() -> Path:
    """Return this user's cache of measurements."""
    return user_cache_path("saesweep") / "kernels.json"


def _cached(d_in: int, d_sae: int, device: torch.device) -> tuple[KernelChoice, str]:
    path, key = cache_file(), _key(d_in, d_sae, device)
    known = _read(path)
    if key in known:
        try:
            choice = KernelChoice.from_json(known[key])
        except (TypeError, ValueError):
            choice = None
        if choice is not None and choice.to_json() != known[key]:
            # Written by a version with other settings, as what cannot be read is: measured again and replaced.
            choice = None
        if choice is not None and is_exact(choice, d_in, d_sae, device=device):
            return choice, f"measured earlier on this machine ({path})"
    choice = choose(d_in, d_sae, device=device)
    try:
        _write(path, {**_read(path), key: choice.to_json()})
    except OSError as error:
        return choice, f"measured now; not kept, because {path} cannot be written ({error.strerror})"
    return choice, f"measured now, kept in {path}"


def _key(d_in: int, d_sae: int, device: torch.device) -> str:
    """Return what the speeds depend on."""
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        where = f"{_cpu_name()}, {torch.get_num_threads()} threads"
    return f"{where}, torch {torch.__version__}, {d_in} x {d_sae}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        # No cache yet, or a damaged one: it holds nothing that cannot be measured again.
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, known: dict[str, Any]) -> None:
    write_text(path, json.dumps(known, indent=1, sort_keys=True))
    for left_over in path.parent.glob(f".{path.name}.*"):  # of killed processes; one that still writes is young
        if time.time() - left_over.stat().st_mtime > _STALE_SECONDS:
            left_over.unlink(missing_ok=True)


def _parsed(text: str) -> KernelChoice:
    try:
        return KernelChoice.from_json(json.loads(text))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{OVERRIDE}: {text!r} is not a JSON object of kernel settings ({error}); "
            f'for instance {{"gemm": "default", "chunk_elements": 4194304, "dense_above": 0.1}}'
        ) from error
