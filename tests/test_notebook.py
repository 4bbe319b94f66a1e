"""The notebook of the documentation, executed as a reader would, in a kernel of its own."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs/quickstart.ipynb"


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_the_notebook_runs_and_shows_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "needs the dev extra: pip install 'saesweep[dev]'"
    nbformat = pytest.importorskip("nbformat", reason=reason)
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("SAESWEEP_DISPLAY", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kernel = {"resources": {"metadata": {"path": str(tmp_path)}}}
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", **kernel).execute()
    run, shown, frame, sae = [cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"][1:]
    (live,) = [output for output in run if "text/html" in output.get("data", {})]  # one output, drawn anew in place
    html = _html(live)
    assert "best: trial" in html
    assert "<table>" in html
    assert "SAE-tokens/s ·" not in html  # the progress has given way to the end
    assert "★" in _html(shown[0])
    assert re.search(r"runs/notebook/best", _html(shown[0]))
    assert re.match(r"Result\(complete: \d complete(, \d pruned)?; best: trial \d", shown[0]["data"]["text/plain"])
    assert "delta_ce" in _html(frame[0])
    assert "active:" in "".join(output.get("text", "") for output in sae)


def test_the_notebook_shows_what_a_run_gave() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert all(output["output_type"] != "error" for output in outputs)
    assert any("text/html" in output.get("data", {}) for output in outputs), "saved without its outputs"
    assert str(Path.home()) not in NOTEBOOK.read_text(encoding="utf-8"), "paths of the machine that it was made on"


def _html(output: Any) -> str:
    return "".join(output["data"]["text/html"])
