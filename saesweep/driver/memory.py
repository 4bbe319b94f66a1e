"""Memory that ran out is answered with a cohort of half the size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saesweep.driver.outside import rewind
from saesweep.errors import UserError
from saesweep.experiment import Experiment
from saesweep.runs import CheckpointStore, RunDirectory


def shrink(experiment: Experiment, directory: RunDirectory, error: str, *, is_measuring: bool = False) -> str:
    """Halve the cohort of a run and take its study back to the last checkpoint; return what to tell the user.

    What trained since the checkpoint trains again, with other neighbours: the study must not hold its results.

    Args:
        experiment: The experiment.
        directory: The run.
        error: What ran out of memory.
        is_measuring: Whether it happened while SAEs were measured.

    Raises:
        UserError: There is only one trial in the cohort.
    """
    before, after = halve(directory, experiment.spec.search.replicates, error, is_measuring=is_measuring)
    state = CheckpointStore(directory.checkpoints).latest_state()
    rewind(experiment, directory, {} if state is None else tokens_at(state["driver"]))
    where = "the start" if state is None else "the last checkpoint"
    return f"out of memory with {before} SAEs at once; the run continues with {after} from {where}, no trial is lost"


def halve(directory: RunDirectory, replicates: int, error: str, *, is_measuring: bool = False) -> tuple[int, int]:
    """Halve a worker's cohort; return how many SAEs it held, and how many it will.

    Args:
        directory: The run, as the worker sees it.
        replicates: SAEs per trial.
        error: What ran out of memory.
        is_measuring: Whether it happened while SAEs were measured.

    Raises:
        UserError: There is only one trial in the cohort.
    """
    choices = directory.choices()
    before = int(choices["slots"])
    trials = before // replicates
    if trials <= 1 and is_measuring:
        raise UserError(
            f"out of memory while a single trial was measured ({error}). Make a forward pass over held-out contexts smaller: "
            "base.eval_batch_size_prompts (store_batch_size_prompts where it is not set), or base.context_size; or free "
            "memory. The same command resumes the run"
        )
    if trials <= 1:
        raise UserError(
            f"out of memory with a single trial in the cohort ({error}). Make it smaller: base.sae.d_sae, "
            "base.train_batch_size_tokens, search.replicates; or free memory. The same command resumes"
        )
    choices["slots"] = trials // 2 * replicates
    choices["slots_reason"] = f"memory ran out with {before}"
    directory.save_choices(choices)
    return before, choices["slots"]


def tokens_at(saved: Mapping[str, Any]) -> dict[int, int | None]:
    """Return by trial number the tokens it had seen at a checkpoint of the driver; None for one that had ended."""
    return {
        trial["number"]: trial["tokens"] if trial["status"] in ("training", "waiting") else None
        for trial in saved["trials"]
    }
