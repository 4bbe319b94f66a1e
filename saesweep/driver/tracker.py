"""The tracker that an experiment asks for."""

from __future__ import annotations

from saesweep.events import EventBus
from saesweep.experiment import Experiment
from saesweep.runs import RunDirectory
from saesweep.runs.runner_cfg import runner_cfg
from saesweep.tracking import WandbTracker, check_wandb


def make_tracker(experiment: Experiment, directory: RunDirectory, bus: EventBus) -> WandbTracker | None:
    """Return the experiment's tracker; None where it asks for none.

    Raises:
        UserError: It cannot work: no key for Weights & Biases.
    """
    logger = experiment.base_run().logger
    if not logger.log_to_wandb:
        return None
    check_wandb()
    return WandbTracker(
        run_dir=directory.path,
        experiment=experiment.spec.name,
        logger=logger,
        n_trials=experiment.n_trials,
        config_of=lambda params: runner_cfg(experiment.resolve(params)),
        batch_tokens_of=lambda params: experiment.resolve(params).train_batch_size_tokens,
        sae_folder=directory.trial_sae,
        say=bus.emit,
    )
