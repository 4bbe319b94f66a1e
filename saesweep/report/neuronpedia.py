"""Features as SAEDashboard's batch files, the form in which Neuronpedia takes uploads."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from saesweep.report.feature_data import FeatureData, SAEFeatures
from saesweep.report.features import BINS, INTERVALS, Described, Example, output_logits
from saesweep.runs import write_text
from saesweep.saes import ExportedSAE

BATCH = 128
"""Features per file, as SAEDashboard writes them."""
_LOGIT_BARS = 40
_ALIGNED = 3


def layer_of(hook: str) -> int:
    """Return the layer that a hook names: the first number in it; 0 where it has none."""
    found = re.search(r"\d+", hook)
    return int(found[0]) if found else 0


def write_neuronpedia(folder: Path, data: FeatureData, *, model_id: str, sae_set: str) -> list[Path]:
    """Write the first SAE's described features as `batch-0.json`, `batch-1.json`, ... and return the files.

    What saesweep does not measure is left empty: correlated neurons and features, and the decoder weights of attention heads.

    Args:
        folder: Where the files go; made when missing.
        data: What was gathered.
        model_id: Neuronpedia's name of the model, such as `gpt2-small`.
        sae_set: Name of the set of SAEs, such as `res-topk`.
    """
    one = data.saes[0]
    features = sorted((own for own in one.described if own.examples), key=lambda own: own.number)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, begin in enumerate(range(0, len(features), BATCH)):
        batch = {
            "model_id": model_id,
            "layer": layer_of(one.shown.hook),
            "sae_set": sae_set,
            "sae_id_suffix": None,
            "features": [_feature(data, one, own) for own in features[begin : begin + BATCH]],
        }
        file = folder / f"batch-{number}.json"
        write_text(file, json.dumps(batch, ensure_ascii=False, allow_nan=False))
        written.append(file)
    return written


def _feature(data: FeatureData, one: SAEFeatures, own: Described) -> dict[str, Any]:
    scan, text = one.scan, data.vocabulary
    maximum = float(scan.max_F[own.number])
    logit_values, logit_heights = _logit_histogram(data, one.shown.sae, own.number)
    return {
        "feature_index": own.number,
        **_alignment(one.shown.sae, own.number),
        "correlated_neurons_indices": [],
        "correlated_neurons_l1": [],
        "correlated_neurons_pearson": [],
        "correlated_features_indices": [],
        "correlated_features_l1": [],
        "correlated_features_pearson": [],
        "neg_str": [text[token] for token, _ in own.suppressed],
        "neg_values": [round(value, 5) for _, value in own.suppressed],
        "pos_str": [text[token] for token, _ in own.promoted],
        "pos_values": [round(value, 5) for _, value in own.promoted],
        "frac_nonzero": float(scan.density_F[own.number]),
        "freq_hist_data_bar_values": [round(maximum * (i + 0.5) / BINS, 5) for i in range(BINS)],
        "freq_hist_data_bar_heights": own.histogram,
        "logits_hist_data_bar_heights": logit_heights,
        "logits_hist_data_bar_values": logit_values,
        "n_prompts_total": scan.n_contexts,
        "n_tokens_in_prompt": data.context_size,
        "dataset": data.dataset,
        "decoder_weights_dist": [],
        "activations": [_activation(data, own, example, maximum) for example in own.examples],
        "vector": [],
    }


def _alignment(sae: ExportedSAE, number: int) -> dict[str, list[Any]]:
    """Return the dimensions of the residual stream that a decoder direction has most of, with their share of its L1 norm."""
    row_D = sae.tensors["W_dec"][number].float().cpu()
    top = row_D.topk(min(_ALIGNED, len(row_D)))
    whole = float(row_D.abs().sum()) or 1.0
    return {
        "neuron_alignment_indices": top.indices.tolist(),
        "neuron_alignment_values": [round(value, 5) for value in top.values.tolist()],
        "neuron_alignment_l1": [round(abs(value) / whole, 5) for value in top.values.tolist()],
    }


def _logit_histogram(data: FeatureData, sae: ExportedSAE, number: int) -> tuple[list[float], list[int]]:
    """Return middles and heights of the bars of a feature's logits over the vocabulary; empty without an unembedding."""
    if data.unembedding_VD is None or data.unembedding_VD.shape[1] != sae.d_in:
        return [], []
    logits_V = output_logits(sae, number, data.unembedding_VD).cpu()
    low, high = float(logits_V.min()), float(logits_V.max())
    heights = torch.histc(logits_V, _LOGIT_BARS, low, high).long().tolist()
    step = (high - low) / _LOGIT_BARS
    return [round(low + (i + 0.5) * step, 5) for i in range(_LOGIT_BARS)], heights


def _activation(data: FeatureData, own: Described, example: Example, maximum: float) -> dict[str, Any]:
    ids = data.contexts[example.context][example.begin : example.end]
    low, high, share = _interval(own.histogram, example.interval, maximum)
    return {
        "bin_min": low,
        "bin_max": high,
        "bin_contains": share,
        "tokens": [data.vocabulary[token] for token in ids],
        "values": [round(example.activations.get(example.begin + i, 0.0), 5) for i in range(len(ids))],
        "qualifying_token_index": example.peak - example.begin,
    }


def _interval(histogram: Sequence[int], interval: int | None, maximum: float) -> tuple[float, float, float]:
    """Return bounds of an interval and the share of the firing tokens in it; -1 marks the strongest contexts."""
    if interval is None:
        return -1.0, round(maximum, 5), -1.0
    bars = BINS // INTERVALS
    share = sum(histogram[interval * bars : (interval + 1) * bars]) / max(1, sum(histogram))
    return round(maximum * interval / INTERVALS, 5), round(maximum * (interval + 1) / INTERVALS, 5), round(share, 5)
