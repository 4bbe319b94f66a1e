"""Runs an experiment with matched L0 and prints its table: which architecture is best at the same L0.

    python benchmarks/matched.py --shared ../shared                 # experiments/stories260k_matched.yaml; hours on two cores
    python benchmarks/matched.py --shared ../shared --tokens 500k   # a look at the way there; targets are missed
    python benchmarks/matched.py --file docs/studies/smollm2_135m_l12/experiment.yaml --run-dir runs/smollm2_135m_l12

Exits with 1 where a trial missed its target L0 by more than `--max-miss` on held-out tokens through its exported form.
The same command resumes where an interrupted run left off.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import saesweep
from saesweep.display.matched import matched_lines
from saesweep.display.plain import PlainDisplay
from saesweep.events import MatchedEntry, Row

FILE = Path(__file__).resolve().parents[1] / "experiments" / "stories260k_matched.yaml"


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shared", default="../shared", help="folder that holds models/stories260K and text/stories_sampled.txt"
    )
    parser.add_argument("--file", type=Path, default=FILE, help="the experiment")
    parser.add_argument("--tokens", help="training tokens of each SAE, instead of the file's")
    parser.add_argument("--run-dir", default="runs/stories260k_matched")
    parser.add_argument("--max-miss", type=float, default=0.05, help="largest relative miss of a target L0")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown, for a page")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="as saesweep run --set")
    arguments = parser.parse_args()
    os.environ["SAESWEEP_SHARED"] = arguments.shared
    overrides = [*arguments.set, *([f"base.training_tokens={arguments.tokens}"] if arguments.tokens else [])]
    result = saesweep.run(
        arguments.file, run_dir=arguments.run_dir, overrides=overrides, listeners=[PlainDisplay(sys.stderr)]
    )
    if result.status == "interrupted":
        return result.exit_code
    misses = _misses(result.rows, result.run_dir)
    if arguments.markdown:
        print("\n".join(_markdown(result.matched, result.rows, misses)))
        return 0
    for line in matched_lines(result.matched):
        print(line)
    print()
    for line in _table(result.rows, misses):
        print(line)
    worst = max(abs(miss) for each in misses.values() for miss in each)
    print(f"\nlargest miss of a target L0, each seed by itself: {100 * worst:.1f}%")
    for note in result.notes:
        print(f"note: {note}")
    return int(worst > arguments.max_miss)


def _markdown(entries: Sequence[MatchedEntry], rows: Sequence[Row], misses: dict[int, list[float]]) -> list[str]:
    """Return the best trial of each architecture at each L0, as a Markdown table."""
    lines = [
        "| L0 | architecture | ΔCE at exactly that L0 | behind the best (paired) | explained variance | ΔCE as measured, mean ± sd of seeds "
        "| miss of the target, each seed | coefficient, start -> frozen |",
        "|---|---|---|---|---|---|---|---|",
    ]
    of_number = {row.number: row for row in rows}
    for entry in sorted(entries, key=lambda e: (e.target_l0, e.metrics[e.goal])):
        row = of_number[entry.trial]
        lines.append(
            f"| {entry.target_l0:g} | {entry.architecture} | {entry.metrics[entry.goal]:.4f} ± {entry.stderr:.4f} "
            f"| {_behind(entry)} | {entry.metrics['explained_variance']:.3f} "
            f"| {_with_spread(row, entry.goal).strip()} | {', '.join(f'{100 * miss:+.1f}%' for miss in misses[entry.trial])} "
            f"| {_coefficient(row.coefficient)} |"
        )
    return lines


def _behind(entry: MatchedEntry) -> str:
    """Return what an architecture is behind the best at its L0, as a cell of the table."""
    if not entry.is_comparable:
        return "not comparable: too far from that L0"
    if entry.behind is None:
        return "best"
    return f"{entry.behind:.4f} ± {entry.behind_stderr:.4f}{', tied' if entry.is_tied and not entry.is_winner else ''}"


def _misses(rows: Sequence[Row], run_dir: Path) -> dict[int, list[float]]:
    """Return each replicate's relative miss of its target, by trial, as its exported form was measured."""
    found = {}
    for row in rows:
        if row.status != "complete" or row.target_l0 is None:
            continue
        folder = run_dir / "trials" / f"{row.number:04d}"
        names = ["sae", *(f"sae-replicate-{i}" for i in range(1, row.replicates))]
        measured = [
            json.loads((folder / name / "provenance.json").read_text())["select_metrics"]["l0"] for name in names
        ]
        found[row.number] = [l0 / row.target_l0 - 1 for l0 in measured]
    return found


def _table(rows: Sequence[Row], misses: dict[int, list[float]]) -> list[str]:
    """Return every trial as measured: mean and standard deviation over seeds, and what became of the coefficient."""
    lines = ["as measured (mean ± standard deviation between seeds):"]
    lines.append(
        f"  {'target':>6}  {'architecture':12}  {'delta CE':>17}  {'expl. var':>17}  {'L0 of each seed, miss':28}  {'dead %':>6}  coefficient"
    )
    for row in rows:
        if row.number not in misses:
            continue
        each = ", ".join(f"{100 * miss:+.1f}%" for miss in misses[row.number])
        lines.append(
            f"  {row.target_l0:>6g}  {row.architecture:12}  {_with_spread(row, 'delta_ce')}  "
            f"{_with_spread(row, 'explained_variance')}  {row.metrics['l0']:6.2f}: {each:20}  "
            f"{100 * row.metrics['dead_fraction']:6.1f}  {_coefficient(row.coefficient)}".rstrip()
        )
    return lines


def _with_spread(row: Row, metric: str) -> str:
    spread = f" ± {row.spread[metric]:.4f}" if metric in row.spread else ""
    return f"{row.metrics[metric]:.4f}{spread}".rjust(17)


def _coefficient(coefficient: Any) -> str:
    if not coefficient:
        return ""
    frozen = ", ".join(f"{value:.3g}" for value in coefficient["frozen"])
    return f"{coefficient['field'][4:]} {coefficient['start']:g} -> {frozen}"


if __name__ == "__main__":
    sys.exit(main())
