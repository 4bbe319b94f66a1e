"""One metric by context: the same value and error as measured otherwise, and differences over the same contexts."""

import random
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from saesweep.activations import ActivationSource, open_source
from saesweep.evaluation import ByContext, HeldOutEvaluator, PairedSums
from saesweep.experiment import load_experiment
from saesweep.saes import ExportedSAE
from saesweep.saes.folding import SAELENS_VERSION
from saesweep.specs import METRICS
from tests.models.tiny import HIDDEN, WORDS, save_llama

COMPARED = (
    *("mse", "explained_variance", "explained_variance_no_sinks", "l0", "l1", "cosine_similarity", "l2_ratio"),
    *("delta_ce", "ce_loss_with_sae", "ce_loss_score", "kl_div", "kl_div_score"),
)
HOOK = "model.layers.1"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActivationSource]:
    folder, words = tmp_path_factory.mktemp("paired"), random.Random(0)
    text = folder / "text.txt"
    text.write_text("\n\n".join(" ".join(words.choices(WORDS, k=40)) for _ in range(200)))
    experiment = load_experiment(
        {
            "name": "t",
            "base": {
                "model_name": str(save_llama(folder / "llama")),
                "hook_name": HOOK,
                "dataset_path": str(text),
                "context_size": 16,
                "training_tokens": 4096,
                "device": "cpu",
                "sae": {"d_sae": 64, "d_in": HIDDEN},
            },
            "evaluation": {"select_tokens": 1600, "test_tokens": 160},
        }
    )
    opened = open_source(experiment.base_run(), experiment.spec.evaluation, (HOOK,))
    yield opened
    opened.close()


def sae(seed: int, width: int = HIDDEN) -> ExportedSAE:
    """A standard SAE that reconstructs some directions."""
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q[: width // 2 + 4 * seed]
    W_dec = torch.cat([W_dec, -W_dec])
    tensors = {
        "W_enc": W_dec.T.contiguous(),
        "W_dec": W_dec,
        "b_enc": torch.zeros(len(W_dec)),
        "b_dec": torch.zeros(width),
    }
    cfg = {"architecture": "standard", "d_in": width, "d_sae": len(W_dec), "dtype": "float32", "device": "cpu"} | {
        "metadata": {"sae_lens_version": SAELENS_VERSION}
    }
    return ExportedSAE("standard", cfg, tensors)


def by_context(evaluator: HeldOutEvaluator, saes: list[ExportedSAE], metric: str) -> PairedSums | None:
    """Measure a metric by context."""
    found = ByContext(metric)
    evaluator.measure(saes, HOOK, with_model=METRICS[metric].needs_lm_head, spread=True, by_context=found)
    return None if found.sums is None else PairedSums.stacked(found.sums)


def test_values_errors_and_differences(source: ActivationSource) -> None:
    evaluator = HeldOutEvaluator(source.select, source.model)
    saes = [sae(1), sae(2)]
    measured = evaluator.measure(saes, HOOK, with_model=True, spread=True, paired=True)
    for metric in COMPARED:
        sums = by_context(evaluator, saes, metric)
        assert sums is not None
        assert sums.values().tolist() == pytest.approx([m[metric] for m in measured], rel=1e-6, abs=1e-9), metric
        for i, weights in enumerate(([1.0, 0.0], [0.0, 1.0])):
            assert sums.stderr(torch.tensor(weights)) == pytest.approx(measured[i][f"{metric}_stderr"], rel=1e-6), (
                metric
            )
    sums = by_context(evaluator, saes, "delta_ce")
    assert sums is not None
    difference = sums.stderr(torch.tensor([-1.0, 1.0]))
    assert difference == pytest.approx(measured[1]["delta_ce_minus_first_stderr"], rel=1e-6)
    assert sums.mean().values().item() == pytest.approx(sums.values().mean().item())
    stacked = type(sums).stacked([sums.mean(), sums])
    assert stacked.stderr(torch.tensor([0.0, -1.0, 1.0])) == pytest.approx(difference)


def test_what_contexts_do_not_add_up_to(source: ActivationSource) -> None:
    evaluator = HeldOutEvaluator(source.select, source.model)
    assert by_context(evaluator, [sae(1)], "relative_reconstruction_bias") is None
    assert by_context(evaluator, [sae(1)], "dead_fraction") is None
    assert by_context(evaluator, [sae(1)], "mmcs") is None
    assert by_context(HeldOutEvaluator(source.select, None), [sae(1)], "delta_ce") is None


def test_pieces_give_what_the_whole_gives(source: ActivationSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts of 16 tokens, cut into pieces of 7."""
    saes = [sae(1), sae(2)]
    found = []
    for rows in (10_000, 7):
        monkeypatch.setattr(ExportedSAE, "rows_at_once", lambda self, n=rows: n)
        evaluator = HeldOutEvaluator(source.select, source.model)
        measured = evaluator.measure(saes, HOOK, with_model=True, spread=True, paired=True)
        sums = by_context(evaluator, saes, "l0")
        assert sums is not None
        found.append((measured, sums.values().tolist()))
    for whole, pieces in zip(*(measured for measured, _ in found), strict=True):
        assert pieces == pytest.approx(whole, rel=1e-5, abs=1e-8)
    assert found[0][1] == pytest.approx(found[1][1])


def test_pieces_keep_true_activations_beside_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(12, HIDDEN, generator=generator), dim=1)
    true_acts = torch.rand(83, 12, generator=generator) * (torch.rand(83, 12, generator=generator) < 0.2)
    batches = [(true_acts[:50] @ features, true_acts[:50]), (true_acts[50:] @ features, true_acts[50:])]
    part = SimpleNamespace(
        mask_NT=None, n_tokens=83, true_features_FD=features, labelled_batches=lambda hook, max_tokens: iter(batches)
    )
    found = []
    for rows in (1000, 7):
        monkeypatch.setattr(ExportedSAE, "rows_at_once", lambda self, n=rows: n)
        found += HeldOutEvaluator(part, None).measure([sae(1)], HOOK, with_model=False)  # type: ignore[arg-type]
    assert {"mmcs", "f1"} <= found[0].keys()
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_nothing_to_measure(source: ActivationSource) -> None:
    assert HeldOutEvaluator(source.select, None).measure([], HOOK, with_model=False) == []
