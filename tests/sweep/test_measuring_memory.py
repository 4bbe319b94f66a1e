"""Measuring counts in the memory plan, whatever the vocabulary, and running out of memory there says what matters there."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from saesweep.driver.replacing import halve
from saesweep.errors import UserError
from saesweep.experiment import load_experiment
from saesweep.models.base import CPU_PIECE_TOKENS
from saesweep.runs import RunDirectory
from saesweep.specs import EvaluationSpec
from saesweep.worker.device import MeasuringMemoryError, measuring
from saesweep.worker.sizing import largest_run, measuring_bytes, plan_slots
from tests.models.tiny import run_of

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
GIB = 1 << 30
CPU, GPU = torch.device("cpu"), torch.device("cuda")
WEIGHTS = {
    "google/gemma-2-2b": 2_614_341_888,
    "gpt2": 124_439_808,
    "EleutherAI/pythia-70m-deduped": 70_426_624,
    "roneneldan/TinyStories-1Layer-21M": 21_000_000,
    "smollm2": 134_515_008,
}
"""Parameters of the models that shipped experiments read, from their cards."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def wide(**fields: Any) -> Any:
    return run_of(**{"context_size": 256, "sae": {"d_in": 2304, "d_sae": 16384}} | fields)


def test_contexts_and_hooks_count() -> None:
    evaluation = EvaluationSpec(select_tokens=100_000, ce_tokens=100_000)
    small, large = (wide(store_batch_size_prompts=n) for n in (4, 32))
    assert (
        measuring_bytes(large, evaluation, 1, GPU) - measuring_bytes(small, evaluation, 1, GPU)
        == 28 * 256 * 2304 * 40 * 4
    )
    assert CPU_PIECE_TOKENS == 4 * 256  # a CPU takes no more contexts than that at once
    assert measuring_bytes(large, evaluation, 1, CPU) == measuring_bytes(small, evaluation, 1, CPU)
    one, two = (measuring_bytes(small, evaluation, hooks, CPU) for hooks in (1, 2))
    assert two - one == 100_000 * 2304 * 4 + (1 << 28)  # activations, and what clean passes gave, up to its limit
    few = evaluation.model_copy(update={"ce_tokens": 1000})
    assert one - measuring_bytes(small, few, 1, CPU) == (1 << 28) - 2 * 1000 * 2304 * 4
    override = wide(store_batch_size_prompts=32, eval_batch_size_prompts=4)
    assert measuring_bytes(override, evaluation, 1, GPU) == measuring_bytes(small, evaluation, 1, GPU)


def _header_gb(text: str) -> float:
    """Return the memory of the device that the first line names; any GPU has 8 GB, and so has a CPU's machine."""
    stated = re.search(r"(\d+) GB GPU", text.splitlines()[0])
    return float(stated.group(1)) if stated else 8.0


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_experiments_fit_the_device_that_their_header_names(file: Path) -> None:
    experiment = load_experiment(file, env={"SAESWEEP_SHARED": "/somewhere"})
    run, search = experiment.base_run(), experiment.spec.search
    device = GPU if "GPU)" in file.read_text().splitlines()[0] and "no GPU" not in file.read_text() else CPU
    name = str(run.model_name)
    is_small = run.is_synthetic or name.startswith(("builtin:", "/somewhere"))
    weights = (
        0 if is_small else WEIGHTS[name] * BYTES[str((run.model_from_pretrained_kwargs or {}).get("dtype", run.dtype))]
    )
    runs = [largest_run(experiment, name) for name in experiment.architectures]
    runs = [run.model_copy(update={"sae": run.sae.resolve_widths(run.sae.d_in or 64)}) for run in runs]
    hooks = len(experiment.hook_names())
    memory = _header_gb(file.read_text()) * 1e9
    planned = plan_slots(
        experiment.spec.cohort,
        n_trials=experiment.n_trials,
        runs=runs,
        hooks=hooks,
        weight_bytes=0,
        free_bytes=int(memory - weights),
        replicates=search.replicates,
        measuring_bytes=max(measuring_bytes(run, experiment.spec.evaluation, hooks, device) for run in runs),
        device=device,
    )
    assert weights + planned.slots * planned.slot_bytes + planned.shared_bytes <= memory
    assert "memory holds" not in planned.reason  # as many at once as the search wants
    assert planned.measuring_bytes < memory / 3


@pytest.mark.long
def test_the_peak_of_a_run_with_gemmas_vocabulary_is_small_and_as_planned(tmp_path: Path) -> None:
    """At most 3 GB at default settings, and within a tenth of what `plan` says."""
    script = EXPERIMENTS.parent / "benchmarks" / "process_peak.py"
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_memory_that_runs_out_in_measuring_is_reported_as_such(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.save_choices({"slots": 1})
    with pytest.raises(MeasuringMemoryError, match="tried to allocate 17179869184") as caught, measuring():
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: tried to allocate 17179869184 bytes"
        )
    with pytest.raises(UserError) as advice:
        halve(directory, 1, str(caught.value), is_measuring=True)
    assert "base.eval_batch_size_prompts" in str(advice.value)
    assert "d_sae" not in str(advice.value)
    with pytest.raises(UserError, match=r"base\.sae\.d_sae"):
        halve(directory, 1, "out of memory")
    with pytest.raises(ValueError, match="another"), measuring():
        raise ValueError("another mistake")
