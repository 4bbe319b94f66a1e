"""`benchmarks/gpu.py` runs from end to end without a GPU, so that it does not fail at its first contact with one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from gpu import SECONDS, SECTIONS, has_failed  # noqa: E402
from gpu_ours import busy_seconds  # noqa: E402
from gpu_table import table  # noqa: E402


def gpu(tmp_path: Path, *words: str) -> tuple[int, str, dict[str, Any]]:
    file = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--json", str(file), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr, json.loads(file.read_text()) if file.exists() else {}


def test_what_is_measured_within_this_package_runs(tmp_path: Path) -> None:
    sections = "steps,launches,memory,exactness"
    code, said, results = gpu(tmp_path, "--smoke", "--no-peers", "--sections", sections)
    assert code == 0, said
    found = results["sections"]
    assert list(found) == sections.split(",")
    assert not any("late" in case for cases in found.values() for case in cases.values()), said
    assert {name.split()[1] for name in found["steps"]} == {"topk", "batchtopk", "standard", "jumprelu", "gated"}
    assert all(case["saesweep"]["ms"] > 0 for case in found["steps"].values())
    topk = found["launches"]["tiny topk N=2"]
    assert topk["operators_2"] > 50
    assert topk["profile_not_measured"] == "needs CUDA"
    assert topk["ms"] == pytest.approx(topk["encoder"] + topk["adam"] + topk["pre_activations"])
    assert all(case["same_bits"] and case["float32"] < 1e-5 for case in found["exactness"].values())
    assert all(case["peak"] > 0 for case in found["memory"].values())
    assert "## exactness" in said.splitlines()  # the tables come last


@pytest.mark.long
def test_every_section_runs_with_the_peers_if_they_are_installed(tmp_path: Path) -> None:
    code, said, results = gpu(tmp_path, "--smoke", "--minutes", "12")
    assert code == 0, said
    assert list(results["sections"]) == list(SECTIONS)
    ends = results["sections"]["end_to_end"]
    assert ends["ours"]["sae_tokens_per_s"] == pytest.approx(2 * ends["ours"]["tokens_per_s"])
    assert 0 < ends["ours"]["lm_share"] < 1
    assert "deselected" in results["sections"]["tests"]["pytest -m gpu"]["summary"]
    if (ROOT / ".venv-bench" / "stamp").exists():
        assert ends["saelens_multi"]["tokens_per_s"] > 0
        for case in results["sections"]["steps"].values():
            assert case["saelens autocast"]["ms"] > 0
            assert case["saelens_multi autocast"]["ms"] > 0


def test_what_time_does_not_suffice_for_is_named(tmp_path: Path) -> None:
    code, said, results = gpu(tmp_path, "--smoke", "--no-peers", "--sections", "steps,exactness", "--minutes", "0.1")
    assert code == 0, said
    assert all(case == {"late": "not measured (time)"} for case in results["sections"]["exactness"].values())
    assert said.count("not measured (time)") >= len(results["sections"]["exactness"])


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    code, said, _ = gpu(tmp_path)
    assert code == 1
    assert said.strip() == "gpu.py: this machine has no CUDA device; --smoke shows on a CPU that everything runs"


def test_the_sections_end_within_nine_minutes() -> None:
    assert set(SECONDS) == set(SECTIONS)
    assert sum(SECONDS.values()) < 60 * 8.7 < 60 * 9


def test_busy_time_is_what_some_kernel_covers() -> None:
    assert busy_seconds([]) == 0
    assert busy_seconds([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 1.7)]) == pytest.approx(4.0)


def test_the_table_of_recorded_results() -> None:
    steps = {
        "XL topk N=8": {
            "goal": 3.0,
            "saesweep": {"saes": 8, "turns": [2.0], "ms": 2.0},
            "saelens autocast": {"error": "OutOfMemoryError: CUDA out of memory"},
            "saelens_multi autocast": {"saes": 8, "turns": [7.0], "ms": 7.0},
        },
        "M topk N=8": {"late": "not measured (time)"},
    }
    launches = {"XL topk N=8": {"operators_1": 90, "kernels_per_step": 812.5, "busy": 0.961, "ms": 1.5, "reads_1": 0}}
    memory = {"XL topk N=8": {"planned": 8 << 30, "peak": 10 << 30, "off": -0.2}}
    sections = {"steps": steps, "launches": launches, "memory": memory}
    lines = table({"about": {"ours": {"gpu": "some GPU"}}, "sections": sections}).splitlines()
    assert lines[0] == "ours: {'gpu': 'some GPU'}"
    topk = next(line for line in lines if line.startswith("| XL topk"))
    assert topk == "| XL topk N=8 | 2.00 | OutOfMemoryError: CUDA out of memory | 7.00 | 3.50x | 3x, reached |  |"
    assert "| M topk N=8 | - | - | - | - | - | not measured (time) |" in lines
    assert "| XL topk N=8 | operators of 1: 90, reads of 1: 0 | 812 | 96% | 1.50 |" in lines
    assert "| XL topk N=8 | 8192 | 10240 | -20.0% |" in lines


def test_only_what_fails_on_our_side_is_a_failure() -> None:
    def of(section: str, found: dict[str, Any], case: str = "case") -> dict[str, Any]:
        return {"sections": {section: {case: found}}}

    assert not has_failed(of("steps", {"saesweep": {"ms": 1.0}, "saelens": {"error": "no"}}))
    assert has_failed(of("steps", {"saesweep": {"error": "no"}}))
    assert has_failed(of("launches", {"profile_error": "no"}))
    assert not has_failed(of("end_to_end", {"error": "no"}, "saelens_multi"))
    assert not has_failed(of("memory", {"late": "not measured (time)"}))
