"""What a finished trial leaves on disk: its exported SAE with everything needed to reuse it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from saesweep.evaluation import Densities
from saesweep.experiment import Experiment, TrialSettings, dump_yaml
from saesweep.experiment.saelens_cfg import SAESWEEP_FIELDS
from saesweep.models import names_of_hook, saelens_pair
from saesweep.plugins import loaded_plugins
from saesweep.runs import RunDirectory, copy_export, finite, replace_folder, write_json, write_text
from saesweep.runs.runner_cfg import largest_dataset, runner_cfg
from saesweep.saes import ExportedSAE, save_sae_folder, write_checksums, write_sparsity
from saesweep.specs import BaseRun
from saesweep.specs.joint_hooks import hooks_in
from saesweep.version import __version__
from saesweep.worker.measure import Measured


def with_run_metadata(sae: ExportedSAE, run: BaseRun, metrics: Mapping[str, float], dead: int) -> ExportedSAE:
    """Return the SAE with SAELens' metadata of its run: model and hook as SAELens loads them, dataset, L0."""
    is_read_alone = run.hook_head_index is None and not run.sae.is_crosscoder
    if is_read_alone and saelens_pair(run).hook_name.endswith("hook_z"):
        # TransformerLens gives [.., heads, d_head] there, which SAELens flattens where the configuration says so.
        sae = ExportedSAE(sae.architecture, {**sae.cfg, "reshape_activations": "hook_z"}, sae.tensors)
    return sae.with_metadata(
        {**hook_metadata(run), "l0": finite(metrics.get("l0")), "num_dead_features": dead},
    )


def hook_metadata(run: BaseRun) -> dict[str, Any]:
    """Return SAELens' metadata of where an SAE's activations come from.

    Model class, hook and loading arguments are those that SAELens can use; the run's own are in the block `saesweep`,
    which `run_of_metadata` reads back.
    """
    names, pair = names_of_hook(run, run.hook_name), saelens_pair(run)
    metadata: dict[str, Any] = {
        "dataset_path": largest_dataset(run),
        "hook_name": list(hooks_in(run.hook_name)) if run.sae.is_crosscoder else pair.hook_name,
        "model_name": run.model_name,
        "model_class_name": pair.model_class_name,
        "hook_head_index": run.hook_head_index,
        "context_size": run.context_size,
        "seqpos_slice": list(run.seqpos_slice),
        "model_from_pretrained_kwargs": pair.model_from_pretrained_kwargs,
        "prepend_bos": run.prepend_bos,
        "exclude_special_tokens": (
            list(run.exclude_special_tokens)
            if isinstance(run.exclude_special_tokens, tuple)
            else run.exclude_special_tokens
        ),
        "sequence_separator_token": run.sequence_separator_token,
        "disable_concat_sequences": run.disable_concat_sequences,
        "saesweep": {
            "version": __version__,
            "model_class_name": run.model_class_name,
            "hook_name": run.hook_name,
            **_written_without_token(run, {"model_from_pretrained_kwargs": run.model_from_pretrained_kwargs}),
            **run.as_written(run.model_dump(mode="json", include=set(SAESWEEP_FIELDS), exclude_defaults=True)),
            "hook_names": {"hugging_face": names.hugging_face, "transformer_lens": names.transformer_lens},
        },
    }
    if run.hook_name_out is not None:
        names = names_of_hook(run, run.hook_name_out)
        metadata["hook_name_out"] = pair.hook_name_out
        metadata["saesweep"] |= {
            "hook_name_out": run.hook_name_out,
            "hook_names_out": {"hugging_face": names.hugging_face, "transformer_lens": names.transformer_lens},
        }
    return _written_without_token(run, metadata)


def _written_without_token(run: BaseRun, dumped: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part of a dump with references in place of secrets, and without the token that the model was loaded with.

    Whoever loads the SAE has access of their own, and SAELens would send a reference as if it were a token.
    """
    found = run.as_written(dumped)
    kwargs = found["model_from_pretrained_kwargs"]
    if kwargs is None:
        return found
    return {**found, "model_from_pretrained_kwargs": {k: v for k, v in kwargs.items() if k != "token"}}


def replicate_folder(directory: RunDirectory, number: int, replicate: int) -> Path:
    """Return where one replicate of a trial is exported: the first is the trial's SAE, the others lie beside it."""
    return directory.trial_sae(number) if replicate == 0 else directory.trial(number) / f"sae-replicate-{replicate}"


@dataclass(frozen=True)
class Ending:
    """How a finished trial trained."""

    tokens: int
    joined_at_tokens: int
    spread: Mapping[str, float]
    """Standard deviation of each metric over the replicates; empty where there is one."""
    dead_window_tokens: int


def save_trial_sae(
    directory: RunDirectory,
    experiment: Experiment,
    trial: TrialSettings,
    ending: Ending,
    measured: Measured,
    replicate: int,
) -> None:
    """Write the exported SAE of one replicate, whole or not at all."""
    run = trial.exported_run(replicate)
    described = with_run_metadata(measured.sae, run, measured.metrics, measured.dead)

    def fill(folder: Path) -> None:
        save_sae_folder(
            folder, described, sparsity_F=measured.densities.share_F, extra_files={"runner_cfg.json": runner_cfg(run)}
        )
        write_text(folder / "experiment.yaml", dump_yaml(single_run_tree(experiment, trial, replicate)))
        write_json(folder / "provenance.json", provenance(experiment, trial, ending, measured, replicate))

    directory.trial(trial.number).mkdir(parents=True, exist_ok=True)
    replace_folder(replicate_folder(directory, trial.number, replicate), fill)


def single_run_tree(experiment: Experiment, trial: TrialSettings, replicate: int = 0) -> dict[str, Any]:
    """Return an experiment that trains this trial's settings alone, at the coefficient that it ended with."""
    run = trial.exported_run(replicate)
    base = run.as_written(run.model_dump(mode="json", exclude_defaults=True))
    base["sae"] = {
        "architecture": run.sae.architecture,
        **run.sae.model_dump(mode="json", exclude_defaults=True),
    }
    tree: dict[str, Any] = {
        "name": f"{experiment.spec.name}-trial-{trial.number}",
        "base": base,
        "space": {},
        **{key: experiment.written[key] for key in ("objective", "evaluation") if key in experiment.written},
    }
    objective = experiment.spec.objective
    if objective is not None and objective.needs_replicates:  # one SAE has no seeds to compare
        del tree["objective"]
    if "objective" in tree:  # one SAE matches nothing
        tree["objective"] = {key: value for key, value in tree["objective"].items() if key != "matched"}
    return tree


def provenance(
    experiment: Experiment, trial: TrialSettings, ending: Ending, measured: Measured, replicate: int
) -> dict[str, Any]:
    """Return where an exported SAE comes from."""
    packages = ("torch", "transformers", "transformer-lens", "datasets", "optuna")
    return {
        "saesweep_version": __version__,
        "experiment": experiment.spec.name,
        "fingerprint": experiment.fingerprint(),
        "trial": trial.number,
        "params": trial.params,
        "seed": trial.run.seed,
        "tokens": ending.tokens,
        "joined_at_tokens": ending.joined_at_tokens,
        "replicate": replicate,
        "replicates": trial.replicates,
        "select_metrics": measured.metrics,
        "select_spread": ending.spread,
        "dead_window_tokens": ending.dead_window_tokens,
        "densities": measured.densities.described(),
        **({} if trial.target_l0 is None else {"target_l0": trial.target_l0}),
        **({} if not trial.coefficient else {"coefficient": trial.coefficient}),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in packages},
        "plugins": loaded_plugins(),
    }


def copy_tested(source: Path, target: Path, extra: Mapping[str, Any], densities: Densities | None) -> None:
    """Copy an exported SAE's folder in one step, adding to its `provenance.json`.

    Args:
        source: The folder.
        target: Where the copy goes; what is there is replaced.
        extra: What to add.
        densities: How often its latents fire, in place of what the folder has of that.
    """
    if densities is None:
        copy_export(source, target, extra)
        return

    def alter(folder: Path) -> dict[str, Any]:
        write_sparsity(folder, densities.share_F)
        write_checksums(folder)
        return {"densities": densities.described()}

    copy_export(source, target, extra, alter)
