"""Mistakes between the fields of one run: static, nothing is read from disk or network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saesweep.specs.architectures import StandardSpec
from saesweep.specs.joint_hooks import hooks_in, is_joint
from saesweep.specs.model_loading import (
    BRIDGE_CLASSES,
    MODEL_CLASS_ADVICE,
    OPT_IN,
    arguments_that_run_code,
    is_model_class,
)
from saesweep.specs.synthetic import DEFAULT_D_IN, SYNTHETIC, SyntheticSpec
from saesweep.specs.units import Duration

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun

_ELSEWHERE = {
    "resume_from_checkpoint": "run the same command again: it resumes by itself",
    "output_path": "use --run-dir",
}


def _snapshot_problems(run: BaseRun, kind: str) -> list[tuple[str, str]]:
    """Return the fields that ask for snapshots of SAEs that SAELens does not train."""
    message = f"snapshots are in SAELens' training form, which it does not have for {kind}; leave it out"
    return [(field, message) for field in ("n_checkpoints", "save_final_checkpoint") if getattr(run, field)]


def _transcoder_problems(run: BaseRun) -> list[tuple[str, str]]:
    """Return what keeps a run from training a transcoder, or an SAE where it names a second hook."""
    if not run.sae.is_transcoder:
        return []
    name = run.sae.architecture
    if run.is_synthetic:
        return [("sae.architecture", f"{name} needs a language model; builtin:synthetic has one kind of activations")]
    if run.hook_name_out is None:
        return [("hook_name_out", f"missing; {name} reconstructs the activations of this hook from those of hook_name")]
    found = []
    if run.hook_name_out == run.hook_name:
        found.append(("hook_name_out", "is hook_name itself; name another hook, or choose an SAE's architecture"))
    if run.hook_head_index is not None:
        found.append(("hook_head_index", "a transcoder reads and reconstructs whole activations; leave it out"))
    return [*found, *_snapshot_problems(run, "transcoders")]


def _pair_problems(run: BaseRun) -> list[tuple[str, str]]:
    """Return what keeps neighbouring tokens apart, or a loss that compares them from doing so."""
    if not run.neighbour_pairs:
        compares = getattr(run.sae, "temporal_coefficient", 0.0) > 0
        message = "compares neighbouring tokens, which the shuffle separates; set neighbour_pairs: true"
        return [("sae.temporal_coefficient", message)] if compares else []
    found = []
    if run.is_synthetic:
        found.append(("neighbour_pairs", "synthetic activations have no neighbours; leave it out"))
    if run.train_batch_size_tokens % 2:
        found.append(
            ("train_batch_size_tokens", f"{run.train_batch_size_tokens} is odd; neighbour_pairs needs an even number")
        )
    at = range(run.context_size)[slice(*run.seqpos_slice)]
    if len(at) == 1 or (len(at) > 1 and at.step != 1):
        found.append(("seqpos_slice", f"{list(run.seqpos_slice)} selects no neighbours; neighbour_pairs needs them"))
    return found


def _joint_hook_problems(run: BaseRun) -> list[tuple[str, str]]:
    """Return what keeps a run from training a crosscoder, or anything else where it names several hooks at once."""
    name, hooks = run.sae.architecture, hooks_in(run.hook_name)
    found: list[tuple[str, str]] = []
    if run.hook_name_out is not None and is_joint(run.hook_name_out):
        found.append(("hook_name_out", "takes one hook; there are no transcoders to several layers here"))
    if not run.sae.is_crosscoder:
        if len(hooks) > 1:
            found.append(
                (
                    "hook_name",
                    f"{name} reads one hook; to try each, write under space: hook_name: {{choice: [{', '.join(hooks)}]}}; to read "
                    "them together, choose a crosscoder such as topk_crosscoder, which may have the list under by_architecture",
                )
            )
        return found
    if run.is_synthetic:
        return [("sae.architecture", f"{name} needs a language model; builtin:synthetic has one kind of activations")]
    if len(hooks) == 1:
        return [("hook_name", f"{name} reads several hooks together; name them as a list: [{hooks[0]}, ...]")]
    if len(set(hooks)) < len(hooks):
        found.append(("hook_name", "names a hook twice"))
    if (stated := getattr(run.sae, "n_layers", None)) not in (None, len(hooks)):
        found.append(("sae.n_layers", f"{stated}, but hook_name names {len(hooks)} hooks; leave it out"))
    if run.hook_name_out is not None:
        found.append(
            ("hook_name_out", f"{name} reconstructs what it reads; leave it out, and sweep transcoders by themselves")
        )
    if run.hook_head_index is not None:
        found.append(("hook_head_index", "a crosscoder reads whole activations; leave it out"))
    return [*found, *_snapshot_problems(run, "crosscoders")]


def _standard_problems(run: BaseRun) -> list[tuple[str, str]]:
    """Return times of p-annealing and of resampling that do not fit into the run."""
    sae = run.sae
    found: list[tuple[str, str]] = []
    if not isinstance(sae, StandardSpec):
        return found
    if sae.p_end is not None:
        first, last, changes = run.to_steps(sae.anneal_start), run.to_steps(sae.anneal_end), sae.n_sparsity_updates - 1
        if last > run.total_steps:
            found.append(
                ("sae.anneal_end", f"step {last} is after the end of the run ({run.total_steps} steps); use 100%")
            )
        elif last - first < changes:
            found.append(
                (
                    "sae.anneal_start",
                    f"p changes {changes} times from step {first} to step {last}, which are too few; lower "
                    "n_sparsity_updates, or anneal for longer",
                )
            )
    every = run.to_steps(sae.resample_steps)
    if sae.resample_steps.value and not 2 <= every < run.total_steps:
        found.append(
            ("sae.resample_steps", f"{every} steps; it must be at least 2, and less than the run's {run.total_steps}")
        )
    return found


_OF_A_DATASET = ("dataset_name", "split", "data_files", "data_dir", "column_name")


def _mixture_problems(run: BaseRun) -> list[tuple[str, str]]:
    """Return the fields of a single dataset that stand beside a list of several."""
    fields = ("dataset_path", *_OF_A_DATASET)
    given = [name for name in fields if getattr(run, name) != type(run).model_fields[name].default]
    found = [(name, "datasets lists what is read; write it in the entry that it belongs to") for name in given]
    if any(each.dataset_path == SYNTHETIC for each in run.datasets):
        found.append(("datasets", f"{SYNTHETIC} has no text to mix; leave it out"))
    return found


def run_problems(run: BaseRun) -> list[tuple[str, str]]:
    """Return the mistakes between fields of a run, but for those of its SAE alone, as (dotted field, message)."""
    found: list[tuple[str, str]] = []
    for field, advice in _ELSEWHERE.items():
        if getattr(run, field) is not None:
            found.append((field, f"not used by saesweep; {advice}"))
    if run.dataset_trust_remote_code:
        found.append(("dataset_trust_remote_code", "datasets 4 and newer cannot run remote code; leave it out"))
    found.extend(("model_from_pretrained_kwargs", message) for message in run.refused_arguments)
    if run.allow_code_execution and not arguments_that_run_code(run.model_from_pretrained_kwargs):
        found.append((OPT_IN, "no argument of model_from_pretrained_kwargs runs code; leave it out"))
    if run.activations_mixing_fraction != 0.5:
        found.append(
            (
                "activations_mixing_fraction",
                "the shuffle window slides and has no such share; set `buffer_tokens` for a better shuffle",
            )
        )
    if run.datasets:
        found += _mixture_problems(run)
    elif not run.dataset_path and not run.use_cached_activations:
        found.append(("dataset_path", "missing; give a Hub id, a local path, builtin:python-docs or builtin:synthetic"))
    if run.model_class_name not in BRIDGE_CLASSES and not is_model_class(run.model_class_name):
        found.append(("model_class_name", f"{run.model_class_name!r} is not supported; {MODEL_CLASS_ADVICE}"))
    for name in (*BRIDGE_CLASSES, "AutoModelForCausalLM"):
        if run.model_class_name != name and run.model_class_name.lower() == name.lower():
            found.append(("model_class_name", f"{run.model_class_name!r} is no class; did you mean {name!r}?"))
    if run.is_synthetic:
        found.extend(
            (field, "builtin:synthetic is drawn, not read; leave it out")
            for field in _OF_A_DATASET
            if getattr(run, field) != type(run).model_fields[field].default
        )
    if run.is_synthetic and run.model_name is not None:
        found.append(("model_name", "dataset_path: builtin:synthetic has no language model; set model_name: null"))
    if run.use_chat_formatting and run.is_dataset_tokenized:
        found.append(("use_chat_formatting", "is_dataset_tokenized says that the rows are token ids; set one of them"))
    if run.compile_llm and (run.is_synthetic or run.model_class_name in BRIDGE_CLASSES):
        found.append(("compile_llm", "only models of transformers are compiled; leave it out"))
    if run.llm_compilation_mode is not None and not run.compile_llm:
        found.append(("llm_compilation_mode", "says how to compile, and compile_llm is false; set compile_llm: true"))
    if run.sae_compilation_mode is not None and not run.compile_sae:
        found.append(("sae_compilation_mode", "says how to compile, and compile_sae is false; set compile_sae: true"))
    if run.n_checkpoints >= run.total_steps:
        found.append(
            (
                "n_checkpoints",
                f"{run.n_checkpoints} snapshots need more steps between them than the {run.total_steps} of the run",
            )
        )
    if run.checkpoint_path is not None and not run.keeps_snapshots:
        found.append(
            (
                "checkpoint_path",
                "says where snapshots go, and none are kept; set n_checkpoints or save_final_checkpoint",
            )
        )
    if run.synthetic != SyntheticSpec():
        if run.is_synthetic:
            d_in = DEFAULT_D_IN if run.sae.d_in is None else run.sae.d_in
            found += [(f"synthetic.{field}", message) for field, message in run.synthetic.problems(d_in)]
        else:
            found.append(("synthetic", f"only dataset_path: {SYNTHETIC} reads it; leave it out"))
    if run.is_synthetic and run.max_activation_norm_multiple is not None:
        found.append(("max_activation_norm_multiple", "synthetic activations have no sinks; leave it out"))
    if run.model_name is None and not run.is_synthetic:
        found.append(("model_name", "missing; only dataset_path: builtin:synthetic works without a model"))
    if run.use_cached_activations and run.cached_activations_path is None:
        found.append(("cached_activations_path", "missing; use_cached_activations needs the folder of the cache"))
    if run.use_cached_activations and run.is_synthetic:
        found.append(("use_cached_activations", "builtin:synthetic is drawn as it is needed; leave it out"))
    if run.training_tokens < run.train_batch_size_tokens:
        found.append(
            ("training_tokens", f"{run.training_tokens} is less than one batch of {run.train_batch_size_tokens} tokens")
        )
    if run.window_tokens < 2 * run.train_batch_size_tokens:
        found.append(
            (
                "buffer_tokens",
                f"{run.window_tokens} is less than two training batches of {run.train_batch_size_tokens} tokens (train_batch_size_tokens); "
                f"set buffer_tokens to {8 * run.train_batch_size_tokens} or more",
            )
        )
    if run.lr_end is not None and run.lr_scheduler_name == "constant":
        found.append(
            ("lr_end", "only the cosine schedules read it; leave it out or set lr_scheduler_name: cosineannealing")
        )
    warm_up, decay = run.to_steps(run.lr_warm_up_steps), run.to_steps(run.lr_decay_steps)
    if warm_up + decay > run.total_steps:
        found.append(
            (
                "lr_decay_steps" if decay else "lr_warm_up_steps",
                f"warm-up ({warm_up} steps) and decay ({decay} steps) are longer than the run ({run.total_steps} steps); shorten one",
            )
        )
    found += _pair_problems(run)
    found += _transcoder_problems(run)
    found += _joint_hook_problems(run)
    found += _standard_problems(run)
    if run.compile_sae and getattr(run.sae, "k_anneal_steps", Duration(0)) != Duration(0):
        found.append(
            ("sae.k_anneal_steps", "gives each step another k, and compile_sae compiles each anew; leave one out")
        )
    if not len(range(*slice(*run.seqpos_slice).indices(run.context_size))):
        found.append(
            ("seqpos_slice", f"{list(run.seqpos_slice)} selects no position of a context of {run.context_size} tokens")
        )
    return found
