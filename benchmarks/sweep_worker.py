"""One contender of `sweep.py`, in its own process and environment. Usage: python sweep_worker.py CONTENDER JOB_JSON.

Prints one JSON line: seconds of each phase, and the peak memory over that of the interpreter with its libraries loaded.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cohort_worker import answer, cpu_seconds, keep_answers_apart, peak_bytes, resident_bytes

Found = dict[str, Any]


class Phases:
    """Adds up wall-clock seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def split_off(self, name: str, other: str) -> None:
        """Take what `other` measured inside of `name` out of it."""
        self.seconds[name] -= self.seconds.setdefault(other, 0.0)


def saesweep(job: Found) -> Callable[[], Found]:
    """`saesweep run` of the experiment."""
    import saesweep.driver

    def train() -> Found:
        result = saesweep.driver.run(job["experiment"], run_dir=job["run_dir"])
        return {"status": result.status, "notes": list(result.notes)}

    return train


def saelens_runner(job: Found) -> Callable[[], Found]:
    """What a plain search loop does: SAELens' runner from start to end, one trial after another, in one process."""
    from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner

    def train() -> Found:
        return {"trials": [one(item) for item in job["trials"]]}

    def one(item: Found) -> Found:
        torch.manual_seed(item["seed"])
        phases = Phases()
        with phases.phase("setup"):
            cfg = {**item["cfg"], "output_path": item["folder"]}
            runner = LanguageModelSAETrainingRunner(LanguageModelSAERunnerConfig.from_dict(cfg))
        with phases.phase("train"), norm_estimate_apart(phases):
            runner.run()
        phases.split_off("train", "norm")
        return {**item_id(item), "seconds": phases.seconds}

    return train


def saelens_trainer(job: Found) -> Callable[[], Found]:
    """SAELens' trainer with the model loaded once and all activations in memory."""
    from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner
    from sae_lens.saes.sae import TrainingSAE, TrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    def train() -> Found:
        once = Phases()
        first = job["trials"][0]["cfg"]
        with once.phase("setup"):
            # The runner is the short way to SAELens' model and activations store.
            store = LanguageModelSAETrainingRunner(LanguageModelSAERunnerConfig.from_dict(first)).activations_store
        with once.phase("train"):
            n_batches = max(1, first["training_tokens"] // first["train_batch_size_tokens"])
            batches = [next(store) for _ in range(n_batches)]
        return {"once": once.seconds, "trials": [one(item, batches) for item in job["trials"]]}

    def one(item: Found, batches: list[torch.Tensor]) -> Found:
        torch.manual_seed(item["seed"])
        phases = Phases()
        with phases.phase("setup"):
            cfg = LanguageModelSAERunnerConfig.from_dict(item["cfg"])
            sae = TrainingSAE.from_dict(TrainingSAEConfig.from_dict(cfg.get_training_sae_cfg_dict()).to_dict())
            trainer = SAETrainer(cfg=cfg.to_sae_trainer_config(), sae=sae, data_provider=itertools.cycle(batches))
        with phases.phase("train"), norm_estimate_apart(phases):
            trainer.fit()
        phases.split_off("train", "norm")
        with phases.phase("setup"):
            Path(item["folder"]).mkdir(parents=True)
            sae.save_inference_model(item["folder"])
        return {**item_id(item), "seconds": phases.seconds}

    return train


def saelens_multi(job: Found) -> Callable[[], Found]:
    """SAELens' runner of several SAEs, all trials of the job as one group."""
    from dataclasses import fields

    from sae_lens import LanguageModelSAERunnerConfig
    from sae_lens.multi_sae_training_runner import MultiSAETrainingRunner, MultiSAETrainingRunnerConfig

    def train() -> Found:
        phases = Phases()
        with phases.phase("setup"):
            cfgs = {str(i): LanguageModelSAERunnerConfig.from_dict(t["cfg"]) for i, t in enumerate(job["trials"])}
            # One learning rate for all: its runner has no other way. The cost does not depend on it.
            first = cfgs["0"]
            taken = {f.name for f in fields(MultiSAETrainingRunnerConfig)} & {f.name for f in fields(first)}
            shared = {name: getattr(first, name) for name in taken if not name.startswith("_")}
            shared |= {"output_path": job["folder"], "logger": first.logger}
            runner = MultiSAETrainingRunner(
                MultiSAETrainingRunnerConfig(
                    saes={name: cfg.sae for name, cfg in cfgs.items()}, hook_names=first.hook_name, **shared
                )
            )
        with phases.phase("train"), norm_estimate_apart(phases):
            runner.run()
        phases.split_off("train", "norm")
        return {"once": phases.seconds, "trials": []}

    return train


def item_id(item: Found) -> Found:
    """Return what tells trials apart."""
    return {key: item[key] for key in ("number", "architecture", "seed", "folder")}


@contextmanager
def norm_estimate_apart(phases: Phases) -> Iterator[None]:
    """Measure SAELens' estimate of the activation scale by itself: its length is not the training's."""
    from sae_lens.training.activation_scaler import ActivationScaler

    estimate = ActivationScaler.estimate_scaling_factor

    def measured(*args: Any, **kwargs: Any) -> None:
        with phases.phase("norm"):
            estimate(*args, **kwargs)

    ActivationScaler.estimate_scaling_factor = measured
    try:
        yield
    finally:
        ActivationScaler.estimate_scaling_factor = estimate


CONTENDERS = {f.__name__: f for f in (saesweep, saelens_runner, saelens_trainer, saelens_multi)}


def main() -> None:
    """Load the libraries, note the memory, do the job."""
    keep_answers_apart()
    contender, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    train = CONTENDERS[contender](job)
    gc.collect()
    baseline = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    import_seconds = time.perf_counter() - STARTED
    found = train()
    packages = [p for p in ("saesweep", "sae-lens") if p.replace("-", "_") in sys.modules]
    answer(
        {
            **found,
            "import_seconds": import_seconds,
            "cpu_seconds": cpu_seconds(),
            "peak_over_baseline": peak_bytes() - baseline,
            "threads": torch.get_num_threads(),
            "versions": {p: version(p) for p in [*packages, "torch"]},
        }
    )


if __name__ == "__main__":
    main()
