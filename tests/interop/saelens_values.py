"""Records which values SAELens itself takes for every field of its configurations, in tests/specs/saelens_values.json.

    .venv-bench/bin/python tests/interop/saelens_values.py > tests/specs/saelens_values.json

Every field gets values of its declared type: its ends (-1, 0, 1), every member of a literal and one that is none, null. A value
is refused where the configuration raises, or the SAE, the optimiser or the schedule made from it.
`tests/specs/test_saelens_values.py` compares saesweep with that.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import sys
import types
import typing
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal

import sae_lens
import torch
from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig, PretokenizeRunnerConfig, TrainingSAE
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.topk_sae import TopKTrainingSAEConfig
from sae_lens.training.optim import get_lr_scheduler

ARCHITECTURES = (
    "standard",
    "gated",
    "topk",
    "batchtopk",
    "matryoshka_batchtopk",
    "jumprelu",
    "abstopk",
    "matching_pursuit",
)
SAE = {"d_in": 16, "d_sae": 64}
NOT_VALUES = {
    *("sae", "logger", "metadata", "sae_lens_version", "sae_lens_training_version"),
    *("model_kwargs", "model_from_pretrained_kwargs"),
}
"""Configurations of their own, records, and what is handed on to other libraries."""
MORE: dict[str, list[Any]] = {
    "matryoshka_widths": [[], [64], [8, 64], [8, 8, 64], [64, 8], [0, 64], [8, 128]],
    "seqpos_slice": [
        [None],
        [0],
        [8],
        [1, None],
        [0, -10],
        [1, 5, 2],
        [5, 2],
        [0, 10**6],
        [None, None, 0],
        [None, None, -1],
    ],
    "exclude_special_tokens": [[], [0, 1]],
    "data_files": [[], ["a.jsonl"]],
    "k": [64, 65, 0.5],
    "lr_scheduler_name": ["constant", "cosineannealing", "cosineannealingwarmrestarts", "CONSTANT"],
    "dtype": ["float32", "float64", "bfloat16", "float16", "torch.float32"],
    "normalize_activations": [
        "none",
        "expected_average_only_in",
        "constant_norm_rescale",
        "layer_norm",
        "constant_scalar_rescale",
    ],
    "reshape_activations": ["none", "hook_z"],
    "adam_beta1": [0.999],
    "adam_beta2": [0.999],
    "hook_head_index": [7],
}


def values_for(name: str, declared: Any) -> list[Any]:
    """Return what to try: values of the declared type."""
    found: list[Any] = []
    if typing.get_origin(declared) in (typing.Union, types.UnionType):
        for part in typing.get_args(declared):
            found += values_for("", part)
    elif typing.get_origin(declared) is Literal:
        found += [*typing.get_args(declared), "none of them"]
    elif declared is bool:
        found += [True, False]
    elif declared is int:
        found += [-1, 0, 1]
    elif declared is float:
        found += [-1.0, 0.0, 1.0]
    elif declared is type(None):
        found += [None]
    elif declared is str:
        found += ["", "text"]
    found += MORE.get(name, [])
    return [value for i, value in enumerate(found) if (type(value), value) not in [(type(v), v) for v in found[:i]]]


def tried(build: Callable[[], Any]) -> str | None:
    """Return the message of what `build` raises; None where it works."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            build()
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:160]
    return None


def table(config: type, build: Callable[[dict[str, Any]], Any]) -> dict[str, list[list[Any]]]:
    """Return for every field [value, message of the refusal or null]."""
    hints = typing.get_type_hints(config)
    found: dict[str, list[list[Any]]] = {}
    for field in fields(config):
        if field.name not in NOT_VALUES:
            found[field.name] = [
                # A copy: SAELens appends d_sae to the list of widths that it is given.
                [value, tried(lambda: build({field.name: copy.deepcopy(value)}))]  # noqa: B023
                for value in values_for(field.name, hints[field.name])
            ]
    return found


def runner(given: dict[str, Any]) -> None:
    """Build a runner's configuration, and what its trainer makes of it first: the optimiser and the schedule."""
    sae = TopKTrainingSAEConfig(**SAE, k=4)
    fixed = {"sae": sae, "is_dataset_tokenized": False, "checkpoint_path": None, "output_path": None, "verbose": False}
    cfg = LanguageModelSAERunnerConfig(**fixed | as_tuple(given))
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    get_lr_scheduler(
        cfg.lr_scheduler_name,
        lr=cfg.lr,
        optimizer=torch.optim.Adam(parameters, lr=cfg.lr, betas=(cfg.adam_beta1, cfg.adam_beta2)),
        warm_up_steps=cfg.lr_warm_up_steps,
        decay_steps=cfg.lr_decay_steps,
        training_steps=cfg.total_training_steps,
        lr_end=cfg.lr_end,
        num_cycles=cfg.n_restart_cycles,
    )


def as_tuple(given: dict[str, Any]) -> dict[str, Any]:
    """A slice is a tuple in Python and a list in JSON."""
    return {key: tuple(value) if key == "seqpos_slice" else value for key, value in given.items()}


def main() -> None:
    """Print the tables as JSON."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    found = {
        "LanguageModelSAERunnerConfig": table(LanguageModelSAERunnerConfig, runner),
        "LoggingConfig": table(LoggingConfig, lambda given: LoggingConfig(**given)),
        "PretokenizeRunnerConfig": table(PretokenizeRunnerConfig, lambda given: PretokenizeRunnerConfig(**given)),
    }
    for name in ARCHITECTURES:
        config = get_sae_training_class(name)[1]
        needed = {**SAE, "architecture": name} | ({"k": 4} if "topk" in name else {})
        needed |= {"matryoshka_widths": [8, 64]} if name.startswith("matryoshka") else {}
        found[config.__name__] = table(
            config,
            lambda given: TrainingSAE.from_dict({**copy.deepcopy(needed), **given}),  # noqa: B023
        )
    command = "tests/interop/saelens_values.py > tests/specs/saelens_values.json"
    lines = [f"{json.dumps(name)}: {_lines(part)}" for name, part in found.items()]
    body = ",\n".join(lines)
    sys.stdout.write(
        f'{{"version": "{sae_lens.__version__}", "command": "{command}",\n"configurations": {{\n{body}\n}}}}\n'
    )


def _lines(part: dict[str, Any]) -> str:
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in part.items()) + "\n}"


if __name__ == "__main__":
    main()
