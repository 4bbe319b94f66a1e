"""One side of `gpu.py`, ours or the peers', in a process and environment of its own: builds trainers and lets them step.

Usage: python gpu_worker.py ours|peers. Then a JSON object per line: {"build": NAME, "subject": ..., "setup": {...}} keeps a
trainer under a name, {"steps": N, "of": NAME} trains it, {"drop": true} forgets all, {"look": FUNCTION, "setup": {...}} calls
one of `gpu_ours.LOOKS`. Each is answered by a JSON line, a failure by {"error": ...}.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import cohort_subjects
from cohort_setup import Setup
from cohort_subjects import synchronise
from cohort_worker import answer, keep_answers_apart

PACKAGES = {"ours": ("saesweep", "torch", "triton"), "peers": ("sae-lens", "dictionary-learning", "torch")}


class Side:
    """The trainers of this process."""

    def __init__(self, side: str) -> None:
        self._side = side
        self._trainers: dict[str, tuple[Callable[[int], None], int, Setup]] = {}
        self._read: tuple[str, str] | None = None

    def about(self) -> dict[str, Any]:
        """Return versions, and the GPU if there is one."""
        found: dict[str, Any] = {"versions": {}}
        for package in PACKAGES[self._side]:
            try:
                found["versions"][package] = version(package)
            except PackageNotFoundError:
                found["versions"][package] = None
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
        return found

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command."""
        if "drop" in command:
            self._drop()
            return {}
        if "steps" in command:
            advance, n_saes, setup = self._trainers[command["of"]]
            synchronise(setup)
            start = time.perf_counter()
            advance(command["steps"])
            synchronise(setup)
            return {"ms": 1e3 * (time.perf_counter() - start) / command["steps"] / n_saes}
        setup = Setup(**command["setup"])
        self._read_batches(setup)
        if "look" in command:
            from gpu_ours import LOOKS

            found: dict[str, Any] = LOOKS[command["look"]](setup)
            self._collect()
            return found
        if self._side == "ours":
            from gpu_ours import choice_for

            # As the cache of a machine would have it, measured for a bounded time.
            os.environ["SAESWEEP_KERNELS"] = json.dumps(choice_for(setup).to_json())
        build, n_saes = cohort_subjects.SUBJECTS[command["subject"]](setup)
        advance = build()
        advance(1)
        self._trainers[command["build"]] = (advance, n_saes, setup)
        return {"saes": n_saes, **cohort_subjects.NOTES}

    def _read_batches(self, setup: Setup) -> None:
        """Make the activations of a size, if they are not there yet; trainers of another size go with them."""
        key = (setup.size, setup.device)
        if key != self._read:
            self._drop()
            cohort_subjects.BATCHES[:] = [x_BD.to(setup.device) for x_BD in setup.batches()]
            self._read = key

    def _drop(self) -> None:
        self._trainers.clear()
        self._collect()

    def _collect(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def main() -> None:
    """Obey the parent."""
    keep_answers_apart()
    side = Side(sys.argv[1])
    if sys.argv[1] == "peers":
        import sae_lens  # noqa: F401
    answer(side.about())
    for line in sys.stdin:
        if line.strip() == "quit":
            break
        try:
            answer(side.obey(json.loads(line)))
        except Exception as error:  # whatever a trainer can raise: the other cases are still to be measured
            traceback.print_exc()
            text = (str(error) or "").strip().splitlines()
            answer({"error": f"{type(error).__name__}: {text[0] if text else ''}"})
            gc.collect()


if __name__ == "__main__":
    main()
