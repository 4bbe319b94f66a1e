"""The logger block of a run: Weights & Biases, in SAELens' names."""

from __future__ import annotations

from pydantic import Field

from saesweep.specs.model import Spec


class LoggerSpec(Spec):
    """Where a run's metrics go besides the run directory, which always has them as JSON lines."""

    log_to_wandb: bool = False
    """Log to Weights & Biases. SAELens' default is true; here a run logs nowhere unless asked to."""
    log_weights_to_wandb: bool = True
    """Upload each finished trial's exported SAE and each snapshot as W&B artifacts; without, only the SAE's configuration."""
    wandb_project: str = "sae_lens_training"
    """W&B project."""
    wandb_id: str | None = None
    """W&B run id; with several trials `<wandb_id>-<trial>`. One that lasts as long as the run directory when left out."""
    run_name: str | None = None
    """W&B run name; before each trial's own name where there are several. The experiment's name, or none, when left out."""
    wandb_entity: str | None = None
    """W&B user or team."""
    wandb_log_frequency: int = Field(10, ge=1)
    """Minimum number of training steps between two logged points. saesweep logs at the end of a block of steps."""
