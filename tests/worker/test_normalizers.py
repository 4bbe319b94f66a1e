"""What a run directory keeps of normalisation: read back exactly, or refused as damaged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saesweep.errors import UserError
from saesweep.saes import Normalizer
from saesweep.worker.normalizers import normalizers_of

SCALED, JOINT = "expected_average_only_in a", "expected_average_only_in a + b"


def kept(folder: Path, values: Any, hooks: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> dict[Any, Normalizer]:
    """Read what a run directory has; nothing is missing, so nothing is estimated."""
    (folder / "normalizers.json").write_text(json.dumps(values))
    modes = {name.split(" ", 1)[0] for name in values}
    monkeypatch.setattr("saesweep.worker.normalizers.normalize_modes", lambda experiment: modes)
    directory: Any = SimpleNamespace(stream_path=folder)
    unused: Any = None
    return normalizers_of(directory, unused, unused, unused, hooks)


@pytest.mark.parametrize(
    ("name", "values", "width"),
    [
        (SCALED, {"scale": 1.5}, {"a": 4}),
        (JOINT, {"scale": None, "layer_scales": [1.0, 2.5]}, {"a + b": 8}),
        ("none a", {"scale": None}, {"a": 4}),
    ],
)
def test_factors_are_read_back(
    name: str, values: dict[str, Any], width: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode = name.split(" ", 1)[0]
    (found,) = kept(tmp_path, {name: {"mode": mode, **values}}, width, monkeypatch).values()
    scales = None if "layer_scales" not in values else tuple(values["layer_scales"])
    assert (found.mode, found.scale, found.layer_scales) == (mode, values["scale"], scales)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (SCALED, {"mode": "expected_average_only_in", "scale": None}),
        (SCALED, {"mode": "expected_average_only_in", "scale": -1.0}),
        (SCALED, {"mode": "none", "scale": 1.0}),
        ("none a", {"mode": "none", "scale": 2.0}),
        (JOINT, {"mode": "expected_average_only_in", "scale": 1.0}),
        (JOINT, {"mode": "expected_average_only_in", "scale": None, "layer_scales": [1.0]}),
        (JOINT, {"mode": "expected_average_only_in", "scale": None, "layer_scales": "xy"}),
    ],
)
def test_damaged_factors_are_refused(
    name: str, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"normalizers\.json: damaged"):
        kept(tmp_path, {name: values}, {name.split(" ", 1)[1]: 8}, monkeypatch)
