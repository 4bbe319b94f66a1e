"""Reads recorded learning curves: what trials were worth, point by point, when none of them was pruned. Needs no torch.

from benchmarks.curves.curves import load, shipped
for path in shipped():
    for curve in load(path).curves: ...
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_SUFFIX = ".json.gz"


@dataclass(frozen=True)
class Point:
    """One measurement of one trial. Metrics are those of the exported SAE on held-out tokens; None where not measured."""

    step: int
    """Training steps done."""
    tokens: int
    """Tokens trained on."""
    sae_seconds: float
    """CPU seconds that the trial's own training steps have taken so far, on one thread."""
    train_l0: float
    """Mean L0 while training since the point before."""
    coefficient: float | None
    """The sparsity coefficient in force, its warm-up included; None for the topk family."""
    l0: float
    """Mean active latents per token."""
    explained_variance: float
    """Explained variance, 1 is perfect."""
    mse: float
    """Squared error per token."""
    delta_ce: float | None
    """Cross-entropy that the model loses with the reconstruction in place, in nats."""
    dead_fraction: float
    """Share of latents that were silent for the reported window of training."""


@dataclass(frozen=True)
class Curve:
    """One trial, from its first point to its last step."""

    source: str
    seed: int
    """Of data order, held-out split and initial weights."""
    architecture: str
    lr: float
    setting: float
    """What the trial states: k, l1_coefficient or l0_coefficient."""
    setting_field: str
    """Which of the three it is."""
    loss_mode: str | None
    """jumprelu_sparsity_loss_mode; None for other architectures."""
    target_l0: float | None
    """L0 that the coefficient was steered to; None where it was not."""
    length: float
    """Share of the source's full number of steps: 1.0, or 0.25 for a complete short run."""
    d_in: int
    d_sae: int
    total_steps: int
    batch_tokens: int
    lr_warm_up_steps: int
    lr_decay_steps: int
    coefficient_warm_up_steps: int
    """0 for the topk family."""
    changes: tuple[tuple[int, float], ...]
    """(step, coefficient from there on) of a steered trial; the last one is frozen. Empty where nothing was steered."""
    failed_at: int | None
    """Step of the first point at which the loss had been NaN or infinite; the curve ends before it. None for all others."""
    points: tuple[Point, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the last point is the trial's end."""
        return bool(self.points) and self.points[-1].step == self.total_steps

    @property
    def end(self) -> Point:
        """The last point."""
        return self.points[-1]


@dataclass(frozen=True)
class CurveSet:
    """All curves of one source."""

    source: str
    about: dict[str, Any]
    """The experiment that was recorded, and with what: machine, versions, date, and the costs besides SAE-seconds."""
    curves: tuple[Curve, ...]


def shipped(folder: Path = HERE) -> tuple[Path, ...]:
    """Return the recorded files of a folder, sorted by name."""
    return tuple(sorted(folder.glob(f"*{_SUFFIX}")))


def path_of(source: str, folder: Path = HERE) -> Path:
    """Return where the curves of a source lie."""
    return folder / f"{source}{_SUFFIX}"


def load(path: Path) -> CurveSet:
    """Read one file."""
    data = json.loads(gzip.decompress(path.read_bytes()))
    return CurveSet(data["source"], data["about"], tuple(_curve(row, data["source"]) for row in data["curves"]))


def save(found: CurveSet, path: Path) -> None:
    """Write one file, whole or not at all; floats are kept to five significant digits."""
    rows = [_row(curve) for curve in found.curves]
    text = json.dumps({"source": found.source, "about": found.about, "curves": rows}, separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(gzip.compress(text.encode(), mtime=0))  # equal curves make equal bytes
    new.replace(path)


def joined(parts: Iterable[CurveSet]) -> CurveSet:
    """Return parts of one source, such as one per seed, as one set; `about` is kept by part."""
    found = list(parts)
    curves = tuple(curve for part in found for curve in part.curves)
    return CurveSet(found[0].source, {"passes": [part.about for part in found]}, curves)


def _row(curve: Curve) -> dict[str, Any]:
    row = asdict(curve)
    del row["source"]
    columns = {name: [_short(getattr(p, name)) for p in curve.points] for name in Point.__annotations__}
    row["points"] = columns
    row["changes"] = [[step, _short(value)] for step, value in curve.changes]
    return row


def _curve(row: dict[str, Any], source: str) -> Curve:
    columns: dict[str, Sequence[Any]] = row["points"]
    points = tuple(Point(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True))
    changes = tuple((int(step), float(value)) for step, value in row["changes"])
    return Curve(**{**row, "source": source, "points": points, "changes": changes})


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value
