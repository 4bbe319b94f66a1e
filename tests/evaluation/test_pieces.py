"""Measuring in pieces of contexts and tokens gives what whole logits give, whatever the model does to its logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from saesweep.evaluation import ByContext, SplicedMetrics, predictions
from saesweep.evaluation.splice import ablation, replacement
from saesweep.models import LanguageModel, load_model
from saesweep.saes import ExportedSAE
from tests.evaluation.test_paired import sae
from tests.models.tiny import D_VOCAB, HIDDEN, run_of, save_gpt2, save_llama, save_tokenizer

SHAPE = {
    "vocab_size": D_VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
}
MAKE: dict[str, Callable[[], Any]] = {
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SHAPE, final_logit_softcapping=2.0)),  # type: ignore[arg-type]
    "cohere": lambda: CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.3)),  # type: ignore[arg-type]
    "granite": lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=3.0)),  # type: ignore[arg-type]
}


def opened(folder: Path, name: str) -> tuple[LanguageModel, str]:
    """Return a model and a hook; of the names that end in -bridge through TransformerLens."""
    family, _, library = name.partition("-")
    hook = "blocks.1.hook_resid_post" if library else "model.layers.1"
    if family == "tiny":
        return load_model(run_of(model_name="builtin:tiny-lm", hook_name=hook)), hook
    if family == "llama":
        save_llama(folder)
    elif family == "gpt2":
        save_gpt2(folder)
        hook = hook if library else "transformer.h.1"
    else:
        torch.manual_seed(0)
        MAKE[family]().save_pretrained(folder)
        save_tokenizer(folder)
    fields = {"model_class_name": "TransformerBridge"} if library else {}
    return load_model(run_of(model_name=str(folder), hook_name=hook, **fields)), hook


def plain(
    model: LanguageModel, hook: str, saes: list[ExportedSAE], tokens: torch.Tensor, mask: torch.Tensor
) -> list[dict[str, float]]:
    """The metrics from whole logits of all contexts at once, nothing skipped, by their definitions."""
    short = mask[:, :-1]

    def losses(logits: torch.Tensor) -> tuple[float, float]:
        log_q = logits.double().log_softmax(-1)
        ce = cross_entropy(log_q[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(short.shape)
        kl = (clean.exp() * (clean - log_q)).sum(-1)
        return float(ce[short].mean()), float(kl[mask].mean())

    clean = model.logits(tokens).double().log_softmax(-1)
    clean_ce, _ = losses(clean)
    zeros = model.logits(tokens, replace=(hook, lambda a: ablation(a, head_index=None, mean_D=None)))
    ablated_ce, ablated_kl = losses(zeros)
    found = []
    for one in saes:
        ce, kl = losses(model.logits(tokens, replace=(hook, replacement(one, mask, head_index=None))))
        found.append(
            {
                "delta_ce": ce - clean_ce,
                "ce_loss_with_sae": ce,
                "ce_loss_without_sae": clean_ce,
                "ce_loss_with_ablation": ablated_ce,
                "ce_loss_score": (ablated_ce - ce) / (ablated_ce - clean_ce),
                "kl_div": kl,
                "kl_div_with_ablation": ablated_kl,
                "kl_div_score": 1 - kl / ablated_kl,
            }
        )
    return found


def sample(n_contexts: int = 5, context: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, D_VOCAB, (n_contexts, context), generator=generator)
    return tokens, torch.rand(tokens.shape, generator=generator) < 0.8


@pytest.mark.parametrize("rows", [7, 10_000])
@pytest.mark.parametrize(
    "name", ["tiny", "llama", "gpt2", "gemma2", "cohere", "granite", "llama-bridge", "gpt2-bridge", "gemma2-bridge"]
)
def test_figures_are_those_of_whole_logits(
    name: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, hook = opened(tmp_path, name)
    tokens, mask = sample()
    width = model.activations(tokens[:1], [hook])[hook].shape[-1]
    saes = [sae(1, width), sae(2, width)]
    expected = plain(model, hook, saes, tokens, mask)
    sizes = logit_sizes(model)
    monkeypatch.setattr(predictions, "rows_at_once", lambda *_: rows)
    metrics = SplicedMetrics(model, tokens, mask, hook, contexts_per_forward=2, kept_bytes=1 << 20)
    for _ in range(2):  # the second time with what the first one kept
        found = metrics.measure(saes)
        for one, own in zip(found, expected, strict=True):
            assert in_nats({key: one[key] for key in own}) == pytest.approx(in_nats(own), rel=2e-6, abs=2e-6)
    assert "logits of a few tokens at a time" not in metrics.shortcuts_off()
    assert max(sizes) <= max(rows, 12)  # whole logits of one context alone, to prove that halves equal the whole


def in_nats(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics with scores multiplied by what they are shares of: a small share's error is the losses' rounding."""
    possible = metrics["ce_loss_with_ablation"] - metrics["ce_loss_without_sae"]
    return metrics | {
        "ce_loss_score": metrics["ce_loss_score"] * possible,
        "kl_div_score": metrics["kl_div_score"] * metrics["kl_div_with_ablation"],
    }


def logit_sizes(model: LanguageModel) -> list[int]:
    """Return a list to which every run of the model's head adds the tokens it had."""
    sizes: list[int] = []
    model.network.get_output_embeddings().register_forward_hook(
        lambda _module, _args, output: sizes.append(output.shape[:-1].numel())
    )
    return sizes


def test_a_head_that_cannot_be_split_off_gives_whole_logits_of_few_contexts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that scales its logits by the whole context: a piece of it would come out otherwise."""
    model, hook = opened(tmp_path, "llama")
    tokens, mask = sample()
    head = model.network.get_output_embeddings()
    head.register_forward_pre_hook(lambda _m, args: (args[0] * (1 + args[0].std(dim=1, keepdim=True)),))
    expected = plain(model, hook, [sae(1)], tokens, mask)
    monkeypatch.setattr("saesweep.evaluation.splice.rows_at_once", lambda *_: 25)  # two contexts
    metrics = SplicedMetrics(model, tokens, mask, hook)
    sizes = logit_sizes(model)
    (found,) = metrics.measure([sae(1)])
    assert {key: found[key] for key in expected[0]} == pytest.approx(expected[0], rel=2e-6, abs=2e-6)
    assert "differ" in metrics.shortcuts_off()["logits of a few tokens at a time"]
    assert max(sizes) == 24


def test_a_hook_in_the_head_runs_whole(tmp_path: Path) -> None:
    model, _ = opened(tmp_path, "llama")
    tokens, mask = sample()
    expected = plain(model, "lm_head:input", [sae(1)], tokens, mask)
    metrics = SplicedMetrics(model, tokens, mask, "lm_head:input")
    (found,) = metrics.measure([sae(1)])
    assert {key: found[key] for key in expected[0]} == pytest.approx(expected[0], rel=2e-6, abs=2e-6)
    assert "logits of a few tokens at a time" in metrics.shortcuts_off()


def test_a_hook_without_effect_has_no_scores(tmp_path: Path) -> None:
    """Zeros where the activations are zeros already: what the ablation costs is nothing, and no share of it is defined."""
    model, _ = opened(tmp_path, "llama")
    model.network.model.layers[1].self_attn.o_proj.weight.data.zero_()
    tokens, mask = sample()
    metrics = SplicedMetrics(model, tokens, mask, "model.layers.1.self_attn")
    (found,) = metrics.measure([sae(1)], spread=True, paired=True)
    assert found["delta_ce"] == found["kl_div"] == 0
    assert all(found[name] != found[name] for name in ("ce_loss_score", "kl_div_score", "ce_loss_score_stderr"))
    for name in ("ce_loss_score", "kl_div_score"):
        by_context = ByContext(name)
        metrics.measure([sae(1)], spread=True, by_context=by_context)
        assert by_context.sums is not None
        assert bool(by_context.sums[0].values().isnan().all())


def test_the_last_position_alone_has_no_next_token(tmp_path: Path) -> None:
    model, hook = opened(tmp_path, "llama")
    tokens, mask = sample()
    mask[:, :-1], mask[:, -1] = False, True
    (found,) = SplicedMetrics(model, tokens, mask, hook).measure([sae(1)])
    assert found["delta_ce"] != found["delta_ce"]
    assert found["kl_div"] > 0


def test_rows_of_a_piece_are_bounded() -> None:
    for device in (torch.device("cpu"), torch.device("cuda")):
        for d_vocab in (100, 49_152, 262_144, 1 << 25):
            known = predictions.logit_bytes(d_vocab, device)
            assert known >= 4 * d_vocab * predictions.rows_at_once(d_vocab, device)
            assert known <= predictions.logit_bytes(None, device) < 2 << 30
    assert predictions.rows_at_once(262_144, torch.device("cpu")) == 128
