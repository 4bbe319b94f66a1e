"""The table of `saesweep eval`: whole in a file, cut to the screen on a terminal."""

from typing import Any

import pytest

from saesweep.display.evaluated import evaluation_text

METRICS = {
    "l0": 31.9,
    "l0_stderr": 0.21,
    "delta_ce": 0.2134,
    "delta_ce_stderr": 0.0131,
    "kl_div": 0.19,
    "ce_loss_score": 0.97,
    "explained_variance": 0.8713,
    "explained_variance_no_sinks": 0.85,
    "mse": 1476.0,
    "cosine_similarity": 0.93,
    "decoder_cosine": 0.05,
    "silent_fraction": 0.018,
}


def comparison(**changes: Any) -> dict[str, Any]:
    saes = [
        {
            "source": f"runs/quickstart/pareto/000{n}-topk-k-32",
            "architecture": "topk",
            "d_sae": 1024,
            "hook": "model.layers.2",
            "metrics": METRICS | {"delta_ce_minus_first": 0.01 * n, "delta_ce_minus_first_stderr": 0.002},
        }
        for n in range(2)
    ]
    found = {
        "saes": saes,
        "tokens": 15000,
        "dataset": "builtin:python-docs",
        "part": "select",
        "model": "tiny",
        "ablation": "zero",
        "notes": [],
    }
    return found | changes


def test_a_file_has_every_column_with_its_error() -> None:
    lines = evaluation_text(comparison()).splitlines()
    heads = " ".join(f"{lines[0]} {lines[1]}".split())
    for word in ("SAE", "type", "d_sae", "L0", "KL", "cosine", "MSE", "silent"):
        assert word in heads
    assert "31.9 ±0.2" in lines[2]
    assert "0.2134 ±0.0131" in lines[2]
    assert "+0.0100 ±0.0020" in lines[3]
    assert not any("left out" in line for line in lines)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_terminal_has_what_fits_and_the_names_of_the_others(width: int) -> None:
    lines = evaluation_text(comparison(), width=width).splitlines()
    table = lines[:4]
    assert max(map(len, table)) <= width
    assert "0.2134 ±0.0131" in table[2]
    (left_out,) = [line for line in lines if line.startswith("columns left out on this width: ")] or [""]
    assert left_out.endswith("; --json has all") == bool(left_out)
    assert ("d_sae" in table[1]) == ("d_sae" not in left_out)
    if width == 80:
        assert "cosine" in left_out
