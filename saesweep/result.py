"""What a run came to, as Python and notebooks see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saesweep.costs import Kind
from saesweep.errors import UserError
from saesweep.events import MatchedEntry, ReferenceRow, Row
from saesweep.status import RunStatus

if TYPE_CHECKING:
    from pandas import DataFrame

    from saesweep.saes import ExportedSAE


@dataclass(frozen=True, repr=False)
class Result:
    """What a run came to."""

    status: RunStatus
    run_dir: Path
    rows: tuple[Row, ...]
    """The leaderboard, best first."""
    best: int | None = None
    """Number of the exported trial."""
    best_dir: Path | None = None
    test_metrics: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    """Metric columns worth showing, most important first."""
    references: tuple[ReferenceRow, ...] = ()
    """Published SAEs of `evaluation.references`, ranked among these rows."""
    matched: tuple[MatchedEntry, ...] = ()
    """With `objective.matched`, the best at each L0: targets ascending, the best architecture first."""
    resume_command: str | None = None
    """What resumes an interrupted run."""
    exit_code: int = 0
    """What the command exits with: 0 done, 1 too many failed trials, or none that finished is feasible, 130 interrupted."""
    costs: Mapping[Kind, float] = field(default_factory=dict)
    """Where the time went, over all starts: seconds by kind of work, as in `costs.json`."""

    @property
    def failed(self) -> int:
        """Number of trials that failed."""
        return sum(row.status == "failed" for row in self.rows)

    def best_sae(self) -> ExportedSAE:
        """Load the exported SAE, on the CPU.

        Raises:
            UserError: Nothing was exported, or the folder is damaged.
        """
        if self.best_dir is None:
            raise UserError(f"{self.run_dir}: {self._why_no_best()}")
        from saesweep.saes import load_sae_folder

        return load_sae_folder(self.best_dir)

    def to_dataframe(self) -> DataFrame:
        """Return the leaderboard, one line per trial, best first, in flat columns.

        Searched parameters have the names of the file (`lr`, `sae.k`), held-out metrics the names of
        `saesweep.specs.METRICS`, and where there are several seeds `<metric>_std` is their standard deviation.
        Whole numbers that some trials lack (the rank of one that was pruned, the `k` of a gated SAE) stay whole: `Int64`.
        """
        from pandas import DataFrame

        rows = [_flat(row, is_best=row.number == self.best) for row in self.rows]
        frame = DataFrame(rows)
        cells = {name: [row.get(name) for row in rows] for name in frame.columns}
        whole = (name for name, values in cells.items() if {type(value) for value in values} == {int, type(None)})
        return frame.astype(dict.fromkeys(whole, "Int64"))

    def __repr__(self) -> str:
        """Say how many trials there are, which is the best, and where it lies."""
        counts = Counter(row.status for row in self.rows)
        trials = ", ".join(f"{counts[state]} {state}" for state in dict.fromkeys(row.status for row in self.rows))
        if self.best_dir is None:
            return f"Result({self.status}: {trials or 'no trials'}; {self._why_no_best()})"
        return f"Result({self.status}: {trials}; best: {self._best_text()} -> {self.best_dir})"

    def _repr_html_(self) -> str:
        """Return the leaderboard, the best, and where it lies, for notebooks."""
        from saesweep.display.html import result_html

        return result_html(
            self.rows,
            references=self.references,
            metrics=self.metrics,
            best=self.best,
            best_dir=None if self.best_dir is None else str(self.best_dir),
            test_metrics=self.test_metrics,
            notes=self.notes,
            matched=self.matched,
            resume_command=self.resume_command,
        )

    def _best_text(self) -> str:
        from saesweep.display.summary import metrics_text, trial_label

        row = next((row for row in self.rows if row.number == self.best), None)
        if row is None:
            return f"trial {self.best}"
        shown = [name for name in self.metrics if name in row.metrics][:2]
        label = trial_label(row.number, row.architecture, row.sparsity)
        return f"{label}, {metrics_text(row.metrics, shown)}" if shown else label

    def _why_no_best(self) -> str:
        if self.resume_command is not None:
            return f"no best before the end; resume with: {self.resume_command}"
        return "no trial finished with a value of the objective, so nothing was exported"


def _flat(row: Row, *, is_best: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "trial": row.number,
        "rank": row.rank,
        "status": row.status,
        "is_best": is_best,
        "on_front": row.on_front,
        "feasible": row.feasible,
        "architecture": row.architecture,
        "sparsity": row.sparsity,
        "hook_name": row.hook,
        "lr": row.lr,
    }
    if row.stream:
        found["stream"] = row.stream
    if row.target_l0 is not None:
        found["target_l0"] = row.target_l0
    found |= {path: value for path, value in row.params.items() if path not in ("sae.architecture", "hook_name", "lr")}
    found |= dict(row.metrics)
    found |= {f"{name}_std": value for name, value in row.spread.items()}
    return found | {
        "tokens": row.tokens,
        "joined_at_tokens": row.joined_at_tokens,
        "replicates": row.replicates,
        "is_baseline": row.is_baseline,
        "reason": row.reason,
    }
