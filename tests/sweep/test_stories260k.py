"""The main job on a real pre-trained model and real text that nobody here trained (issue: exported L0 and quality).

The model and the text are not part of the package: set SAESWEEP_SHARED to the folder that holds them.
"""

import os
from pathlib import Path
from typing import Any

import pytest

import saesweep

SHARED = Path(os.environ.get("SAESWEEP_SHARED", Path(__file__).resolve().parents[3] / "shared"))
MODEL, TEXT = SHARED / "models" / "stories260K", SHARED / "text" / "stories_sampled.txt"
needs_model = pytest.mark.skipif(
    not (MODEL.is_dir() and TEXT.is_file()), reason=f"no {MODEL} and {TEXT} (set SAESWEEP_SHARED)"
)


def experiment(**space: Any) -> dict[str, Any]:
    return {
        "name": "stories260k",
        "base": {
            "model_name": str(MODEL),
            "hook_name": "model.layers.2",
            "dataset_path": str(TEXT),
            "context_size": 128,
            "training_tokens": 500_000,
            "train_batch_size_tokens": 4096,
            "lr": 1e-3,
            "lr_warm_up_steps": "2%",
            "lr_decay_steps": "20%",
            "device": "cpu",
            "sae": {"d_sae": 1024, "k": 16, "normalize_activations": "expected_average_only_in"},
        },
        "by_architecture": {
            "jumprelu": {
                "preset": "anthropic-jan-2025",
                "sae.jumprelu_ste_to_input": True,
                "sae.l0_coefficient": 1.0,
            }
        },
        "space": {"sae.architecture": {"choice": ["topk", "batchtopk", "jumprelu"]}},
        "evaluation": {"select_tokens": "50k", "test_tokens": "50k"},
        "search": {"sampler": "grid", "pruner": "none"},
        "cohort": {"size": 3},
    }


@pytest.mark.long
@needs_model
def test_exported_saes_keep_their_l0_and_explain_the_variance(tmp_path: Path) -> None:
    result = saesweep.run(experiment(), run_dir=tmp_path / "run")
    found = {row.architecture: row.metrics for row in result.rows}
    print({name: {m: round(v, 4) for m, v in metrics.items()} for name, metrics in found.items()})
    # Reference: SAELens 6.54 on the same work has EV 0.897 for topk; for batchtopk it exports L0 93.9 and EV -0.84.
    assert found["topk"]["l0"] == pytest.approx(16, rel=0.05)
    assert found["topk"]["explained_variance"] >= 0.89
    assert found["batchtopk"]["l0"] == pytest.approx(16, rel=0.05)
    assert found["batchtopk"]["explained_variance"] >= 0.86
    assert 10 <= found["jumprelu"]["l0"] <= 60
