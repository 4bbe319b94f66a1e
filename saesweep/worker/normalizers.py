"""What activations are divided by: estimated once for each hook and mode, and kept in the run directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from saesweep.activations import ActivationSource
from saesweep.activations.rows import first_rows
from saesweep.errors import UserError
from saesweep.experiment import Experiment
from saesweep.runs import RunDirectory, read_json, write_bytes, write_json
from saesweep.saes import AllZeroError, Normalizer
from saesweep.specs import BaseRun
from saesweep.specs.joint_hooks import hooks_in, is_joint
from saesweep.worker.sizing import normalize_modes

_log = logging.getLogger("saesweep")

Normalizers = dict[tuple[str, str], Normalizer]
"""By hook and mode."""


def normalizers_of(
    directory: RunDirectory,
    experiment: Experiment,
    source: ActivationSource,
    run: BaseRun,
    d_in: Mapping[str, int],
) -> Normalizers:
    """Estimate each (hook, mode) once from the first shuffle window; a resumed run reads what the first start found.

    Of a run that continues with more hooks or modes, what is missing is estimated from the same window.

    Args:
        directory: The run directory, as the stream sees it.
        experiment: The experiment, as the stream sees it.
        source: The open stream.
        run: What all its trials share.
        d_in: Width of each hook.

    Raises:
        UserError: What was kept is damaged, or no factor scales the only hook: its activations are all zero.
    """
    found = _kept(directory)
    needed = [
        (hook, mode)
        for mode in normalize_modes(experiment)
        for hook in d_in
        if not (is_joint(hook) and mode == "covariance_whitening")  # which crosscoders do not have
    ]
    missing = [key for key in needed if key not in found]
    if not missing and _file(directory).exists():
        return found
    max_tokens = run.n_batches_for_norm_estimate * run.train_batch_size_tokens
    for hook, mode in missing:
        window = (_finite(piece[hook]) for piece in first_rows(source.stream.first_window(), max_tokens))
        layers = len(hooks_in(hook))
        try:
            found[hook, mode] = Normalizer.fit(mode, window, d_in[hook], hook, n_layers=layers)
        except AllZeroError as error:
            if len(d_in) == 1 or layers > 1:
                raise
            _log.warning("%s; its trials train on zeros, the others as they would", error)
            found[hook, mode] = Normalizer(mode=mode, scale=1.0)
    _keep(directory, found)
    return found


def _file(directory: RunDirectory) -> Path:
    return directory.stream_path / "normalizers.json"


def _kept(directory: RunDirectory) -> Normalizers:
    json_file, tensor_file = _file(directory), _file(directory).with_suffix(".safetensors")
    if not json_file.exists():
        return {}
    values = read_json(json_file)
    try:
        tensors = load_file(tensor_file) if tensor_file.exists() else {}
        return {_key(name): _restore(name, data, tensors) for name, data in values.items()}
    except (AttributeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{json_file}: damaged ({type(error).__name__}: {error}); start a new run with --run-dir"
        ) from None


def _keep(directory: RunDirectory, normalizers: Normalizers) -> None:
    tensors, values = {}, {}
    for (hook, mode), normalizer in normalizers.items():
        values[f"{mode} {hook}"], own = normalizer.state_dict()
        tensors.update({f"{mode} {hook} {name}": tensor for name, tensor in own.items()})
    if tensors:
        # Written before the JSON file, which says that both are there; it never holds less than the one before.
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        write_bytes(_file(directory).with_suffix(".safetensors"), save(contiguous))
    write_json(_file(directory), values)


def _key(name: str) -> tuple[str, str]:
    mode, hook = name.split(" ", 1)
    return hook, mode


def _restore(name: str, data: dict[str, Any], tensors: Mapping[str, Tensor]) -> Normalizer:
    hook, mode = _key(name)
    scale, layer_scales = data["scale"], data.get("layer_scales")
    # One factor for a hook; for hooks that are read together one for each; none in the other modes.
    factors = layer_scales if is_joint(hook) else [scale]
    n_factors = len(hooks_in(hook)) if mode == "expected_average_only_in" else 0
    factors = [] if factors in (None, [None]) else factors
    is_whole = isinstance(factors, list) and all(isinstance(f, float) and 0 < f < float("inf") for f in factors)
    if data["mode"] != mode or not is_whole or len(factors) != n_factors:
        raise ValueError(f"{name!r} has mode {data['mode']!r} and scale {layer_scales or scale!r}")
    own_tensors = {key.removeprefix(f"{name} "): t for key, t in tensors.items() if key.startswith(f"{name} ")}
    return Normalizer.from_state_dict(data, own_tensors)


def _finite(rows_ND: Tensor) -> Tensor:
    """Return the rows without NaN or infinities: one bad row would spoil the scale of the whole run."""
    is_finite_N = torch.isfinite(rows_ND).all(-1)
    return rows_ND if bool(is_finite_N.all()) else rows_ND[is_finite_N]
