"""Published SAEs measured on the sweep's own held-out tokens: what the trials are to be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.errors import UserError
from saesweep.evaluation import HeldOutEvaluator
from saesweep.evaluation.hooks import hook_of
from saesweep.experiment import Experiment
from saesweep.runs import write_json
from saesweep.saes import ExportedSAE, open_sae

if TYPE_CHECKING:
    from saesweep.sweep.setup import Setup

_SHOWN = {"l0": "L0 {:.1f}", "delta_ce": "ΔCE {:.4f}", "explained_variance": "explained variance {:.4f}"}


def open_references(experiment: Experiment, d_in: Mapping[str, int]) -> list[tuple[str, str, ExportedSAE]]:
    """Return (what the file names, hook, SAE) of every `evaluation.references`.

    Raises:
        UserError: One cannot be read, or is of another hook or width than the experiment reads.
    """
    found = []
    for name in experiment.spec.evaluation.references:
        sae = open_sae(name)
        hook = hook_of(sae, experiment, name)
        if hook not in d_in:
            raise UserError(
                f"evaluation.references: {name} belongs to {hook!r}, and this experiment reads {', '.join(d_in)}"
            )
        if sae.d_in != d_in[hook]:
            raise UserError(
                f"evaluation.references: {name} reads activations {sae.d_in} wide, but {hook!r} is {d_in[hook]} wide"
            )
        found.append((name, hook, sae))
    return found


def measure_references(setup: Setup) -> list[str]:
    """Measure the references on `select`, where trials are ranked; write `references.json` and return a line for each."""
    references = open_references(setup.experiment, setup.d_in)
    if not references:
        return []
    evaluator = HeldOutEvaluator(
        setup.source.select,
        setup.source.model,
        ce_tokens=setup.experiment.spec.evaluation.ce_tokens,
        head_index=setup.base.hook_head_index,
        contexts_per_forward=setup.base.eval_batch_size_prompts or setup.base.store_batch_size_prompts,
    )
    lines, rows = [], []
    for name, hook, sae in references:
        (metrics,) = evaluator.measure([sae.to(setup.device)], hook, with_model=True, spread=True)
        architecture = str(sae.metadata.get("training_architecture") or sae.architecture)
        rows.append(
            {"source": name, "hook": hook, "architecture": architecture, "d_sae": sae.d_sae, "metrics": metrics}
        )
        shown = ", ".join(text.format(metrics[key]) for key, text in _SHOWN.items() if key in metrics)
        lines.append(f"reference {Path(name).name} ({architecture}, d_sae {sae.d_sae}): {shown}")
    write_json(setup.directory.path / "references.json", rows)
    return lines
