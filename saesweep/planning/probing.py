"""What the probes of one SAE take, by the number of operations: no text is read."""

from __future__ import annotations

from collections.abc import Sequence

from saesweep.specs import BaseRun, ProbesSpec

_TOKENS_OF_A_TEXT = 32
"""Where latents are averaged over a text, whose length is not known."""
_REGRESSION_SECONDS = 0.2
"""One probe at one k (1 and 5) on 1,024 texts, its penalty chosen: measured on one core of a busy AMD EPYC."""
_TEXTS_OF_IT = 1024


def probes_seconds(spec: ProbesSpec | None, runs: Sequence[BaseRun], speed: float) -> float:
    """Return the seconds of one SAE's probes: all its tasks have as many texts as they may, in two classes.

    Args:
        spec: The tasks; without any it takes no time.
        runs: Runs of SAEs whose widths are known; the widest counts.
        speed: Operations per second of matrix products.
    """
    if spec is None:
        return 0.0
    weights = max((run.sae.d_in or 0) * (run.sae.d_sae or 0) for run in runs)
    rows = _texts(spec) * (_tokens(runs[0]) if spec.pooling == "mean" else 1)
    regressions = len(spec.ks) * sum(task.max_train for task in spec.tasks) / _TEXTS_OF_IT
    return 2 * rows * weights / speed + regressions * _REGRESSION_SECONDS


def probes_line(spec: ProbesSpec | None, runs: Sequence[BaseRun], gflops: float) -> str:
    """Return the same for people, with what it takes for granted; empty without tasks."""
    if spec is None:
        return ""
    seconds = probes_seconds(spec, runs, gflops * 1e9)
    assumed = f"{len(spec.tasks)} task{'s' * (len(spec.tasks) != 1)} of two classes, {_texts(spec):,} texts"
    if spec.pooling == "mean":
        assumed += f" of {_tokens(runs[0])} tokens"
    return f"probes: about {seconds:.1f} s for each SAE that finishes, as if of {assumed}; --calibrate measures them"


def _texts(spec: ProbesSpec) -> int:
    return sum(task.max_train + task.max_test for task in spec.tasks)


def _tokens(run: BaseRun) -> int:
    return min(_TOKENS_OF_A_TEXT, run.context_size)
