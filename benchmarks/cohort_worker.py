"""One subject of `cohort.py`, in its own process and environment: reads commands from stdin, answers in JSON lines.

Usage: python cohort_worker.py SUBJECT SETUP_JSON. Then per line: a number of steps to train, or `quit`.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cohort_setup import Setup
from cohort_subjects import BATCHES, NOTES, REPORTED, SUBJECTS, TARGETS, synchronise


def resident_bytes() -> int:
    """Return this process's resident memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """Return the largest resident memory since `clear_refs`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def cpu_seconds() -> float:
    """Return this process's CPU time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def answer(value: dict[str, Any]) -> None:
    """Send one JSON line to the parent."""
    os.write(ANSWERS[0], (json.dumps(value) + "\n").encode())


ANSWERS = [1]
"""The file that answers go to."""


def keep_answers_apart() -> None:
    """Let what is printed, such as progress, go where errors go: only answers may reach the pipe."""
    ANSWERS[0] = os.dup(1)
    os.dup2(2, 1)


def main() -> None:
    """Build the subject, then obey the parent."""
    keep_answers_apart()
    subject, setup = sys.argv[1], Setup(**json.loads(sys.argv[2]))
    build, n_saes = SUBJECTS[subject](setup)
    read = setup.batches()
    BATCHES.extend(x_BD.to(setup.device) for x_BD in read)
    if setup.is_transcoder:
        TARGETS.extend(y_BD.to(setup.device) for y_BD in setup.targets(read))
    del read
    gc.collect()
    # On a GPU: what tensors take.
    peak, now = (peak_bytes, resident_bytes)
    if setup.device != "cpu":
        peak, now = torch.cuda.max_memory_allocated, torch.cuda.memory_allocated
        torch.cuda.reset_peak_memory_stats()
    baseline = now()
    Path("/proc/self/clear_refs").write_text("5")
    advance = build()
    advance(1)
    packages = {"saesweep": "saesweep", "sae_lens": "sae-lens", "dictionary_learning": "dictionary-learning"}
    packages |= {"sparsify": "eai-sparsify"}
    imported = [package for module, package in packages.items() if module in sys.modules]
    answer({"saes": n_saes, "notes": NOTES, "versions": {p: version(p) for p in [*imported, "torch"]}})
    for line in sys.stdin:
        if line.strip() == "quit":
            break
        REPORTED.clear()
        start, cpu = time.perf_counter(), cpu_seconds()
        advance(int(line))
        synchronise(setup)
        wall = time.perf_counter() - start
        spent = sum(REPORTED) if REPORTED else wall
        answer(
            {
                "seconds": spent,
                "wall": wall,
                "cpu": cpu_seconds() - cpu,
                "peak_over_baseline": peak() - baseline,
            }
        )


if __name__ == "__main__":
    main()
