"""How fast a cohort trains, against SAELens (one SAE after another, and its multi trainer), dictionary_learning and sparsify.

    make bench-env                                            # once: the peers, in an environment of their own
    .venv/bin/python benchmarks/cohort.py --size M --architecture topk
    .venv/bin/python benchmarks/cohort.py --size M --architecture topk_transcoder    # against sparsify
    .venv/bin/python benchmarks/cohort.py --quick             # a smoke check at S, under 90 s
    .venv/bin/python benchmarks/cohort.py --suite --json results.json --markdown
    .venv/bin/python benchmarks/cohort.py --size XL --device cuda

All subjects train on the same activations in memory, from the same weights, each in a process of its own. They take turns
(A-B-C-A-B-C), so that a slow minute of the machine hits all of them; figures are medians over the rounds. Without peers
(`--subjects saesweep,floor`) nothing but this package is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from cohort_setup import ARCHITECTURES, BATCH_TOKENS, COUNTED, SIZES, Setup
from subject import Subject

HERE = Path(__file__).resolve().parent
SUBJECTS = ("saesweep", "saelens", "saelens_multi", "saelens_tuned", "dictionary_learning", "floor")
SUBJECTS_OF = {"transcoder": ("saesweep", "sparsify", "floor"), "crosscoder": ("saesweep", "floor")}
"""Those that train what is no SAE, by the end of its name."""
LABELS = {
    "saelens": "ratio_vs_sequential",
    "saelens_multi": "ratio_vs_multi",
    "saelens_tuned": "ratio_vs_tuned",
    "dictionary_learning": "ratio_vs_dictionary_learning",
    "sparsify": "ratio_vs_sparsify",
}
# Keeps freed memory in the process: the allocator settings that speed up code with large temporaries.
TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 36), "MALLOC_TOP_PAD_": str(1 << 26)}
# What the issue asks figures for, as (size, architecture, phase, dead).
SUITE = [
    ("M", "topk", "sparse", 0.0),
    ("M", "batchtopk", "sparse", 0.0),
    ("M", "matryoshka_batchtopk", "sparse", 0.0),
    ("M", "standard", "sparse", 0.0),
    ("M", "jumprelu", "sparse", 0.0),
    ("M", "gated", "sparse", 0.0),
    ("M", "standard", "dense", 0.0),
    ("M", "jumprelu", "dense", 0.0),
    ("M", "gated", "dense", 0.0),
    ("M", "topk", "sparse", 0.1),
    ("M", "batchtopk", "sparse", 0.1),
    ("S", "topk", "sparse", 0.0),
    ("S", "batchtopk", "sparse", 0.0),
    ("L", "topk", "sparse", 0.0),
]


class Worker(Subject):
    """A subject that trains."""

    def __init__(self, subject: str, setup: Setup, peer_python: str) -> None:
        ours = subject in ("saesweep", "floor")
        python = sys.executable if ours else peer_python
        name = subject.removesuffix("_tuned")
        command = [python, str(HERE / "cohort_worker.py"), name, json.dumps(setup.to_json())]
        super().__init__(subject, command, ours=ours, env=TUNED if subject == "saelens_tuned" else None)

    def turn(self, n_steps: int) -> dict[str, Any]:
        """Train some steps; adds `ms` (per SAE and step) and `foreign` (share of the CPUs that others used)."""
        before = psutil.cpu_times()
        found = self.ask(str(n_steps))
        after = psutil.cpu_times()
        busy = sum(getattr(after, f) - getattr(before, f) for f in ("user", "nice", "system"))
        capacity = found["wall"] * (os.cpu_count() or 1)
        found["ms"] = 1e3 * found["seconds"] / n_steps / self.about["saes"]
        found["foreign"] = max(busy - found["cpu"], 0.0) / capacity
        return found


def measure(setup: Setup, subjects: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Let the subjects take turns, and return the figures of one case."""
    workers = []
    try:
        for subject in subjects:
            workers.append(Worker(subject, setup, args.peer_python))
        steps = {w.name: 1 for w in workers}
        turns: dict[str, list[dict[str, Any]]] = {w.name: [] for w in workers}
        for worker in workers:
            seconds = worker.turn(1)["wall"]
            steps[worker.name] = max(1, round(args.turn_seconds / max(seconds, 1e-6)))
        for _ in range(args.rounds):
            for worker in workers:
                for _attempt in range(args.attempts):
                    found = worker.turn(steps[worker.name])
                    if found["foreign"] <= args.max_foreign:
                        break
                turns[worker.name].append(found)
    finally:
        for worker in workers:
            worker.close()
    return figures(setup, workers, turns, steps)


def figures(
    setup: Setup, workers: list[Worker], turns: dict[str, list[dict[str, Any]]], steps: dict[str, int]
) -> dict[str, Any]:
    """Reduce the turns to medians and ratios."""
    subjects = {
        w.name: {
            "ms_per_sae_step": statistics.median(t["ms"] for t in turns[w.name]),
            "ms_min": min(t["ms"] for t in turns[w.name]),
            "ms_max": max(t["ms"] for t in turns[w.name]),
            "peak_over_baseline_bytes": max(t["peak_over_baseline"] for t in turns[w.name]),
            "saes": w.about["saes"],
            "steps_per_turn": steps[w.name],
            "foreign_cpu_max": max(t["foreign"] for t in turns[w.name]),
            "versions": w.about["versions"],
            **w.about["notes"],
        }
        for w in workers
    }
    result: dict[str, Any] = {"setup": setup.to_json(), "subjects": subjects, "machine": machine()}
    if "saesweep" not in subjects:
        return result
    ours = subjects["saesweep"]
    for subject, label in LABELS.items():
        if subject in subjects:
            # Within a round both ran in the same half minute: the ratio is taken there.
            pairs = zip(turns[subject], turns["saesweep"], strict=True)
            result[label] = statistics.median(theirs["ms"] / mine["ms"] for theirs, mine in pairs)
    if "floor" in subjects:
        pairs = zip(turns["saesweep"], turns["floor"], strict=True)
        result["measured_over_floor"] = statistics.median(mine["ms"] / least["ms"] for mine, least in pairs)
    n_parameters = 2 * setup.d_in * setup.d_sae * setup.slots
    result["peak_bytes_per_parameter"] = ours["peak_over_baseline_bytes"] / n_parameters
    result["sae_tokens_per_second"] = 1e3 * BATCH_TOKENS / ours["ms_per_sae_step"]
    if "saelens_multi" in subjects:
        theirs = subjects["saelens_multi"]["peak_over_baseline_bytes"]
        result["peak_ratio_vs_multi"] = ours["peak_over_baseline_bytes"] / theirs
    return result


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return gpu | {
        "cpu": names[0] if names else platform.processor(),
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    columns = [
        ("ours, ms", lambda r: f"{r['subjects']['saesweep']['ms_per_sae_step']:.1f}"),
        ("vs sequential", lambda r: ratio(r, "ratio_vs_sequential")),
        ("vs multi", lambda r: ratio(r, "ratio_vs_multi")),
        ("vs tuned", lambda r: ratio(r, "ratio_vs_tuned")),
        ("vs dictionary_learning", lambda r: ratio(r, "ratio_vs_dictionary_learning")),
        ("vs sparsify", lambda r: ratio(r, "ratio_vs_sparsify")),
        ("/ floor", lambda r: f"{r['measured_over_floor']:.2f}" if "measured_over_floor" in r else "-"),
        ("peak B/param", lambda r: f"{r['peak_bytes_per_parameter']:.1f}"),
        ("peak vs multi", lambda r: ratio(r, "peak_ratio_vs_multi")),
        ("foreign CPU", lambda r: f"{max(s['foreign_cpu_max'] for s in r['subjects'].values()):.0%}"),
    ]
    lines = ["| case | " + " | ".join(name for name, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for result in results:
        s = result["setup"]
        name = f"{s['size']} {s['architecture']}" + ("" if s["architecture"] in COUNTED else f" {s['phase']}")
        name += f", {s['dead']:.0%} dead" if s["dead"] else ""
        lines.append(f"| {name} (N={s['slots']}) | " + " | ".join(cell(result) for _, cell in columns) + " |")
    return "\n".join(lines)


def ratio(result: dict[str, Any], key: str) -> str:
    """Return a table cell."""
    return f"{result[key]:.2f}x" if key in result else "-"


def parse() -> argparse.Namespace:
    """Return the checked command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="M",
        help="; ".join(f"{name} {s.d_in}/{s.d_sae} k{s.k} N{s.slots}" for name, s in SIZES.items()),
    )
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="topk")
    parser.add_argument("--phase", choices=("sparse", "dense"), default="sparse", help="density of the penalised ones")
    parser.add_argument("--dead", type=float, default=0.0, help="share of dead latents, e.g. 0.1")
    parser.add_argument("--device", default="cpu", help="where the SAEs train, for instance cuda")
    parser.add_argument(
        "--autocast", action="store_true", help="bf16 products: SAELens', and ours but for the topk family"
    )
    parser.add_argument("--slots", type=int, help="SAEs in the cohort (default: the size's)")
    others = "; ".join(f"for a {kind} of {', '.join(names)}" for kind, names in SUBJECTS_OF.items())
    parser.add_argument("--subjects", help=f"of {', '.join(SUBJECTS)}; {others} (default: all)")
    parser.add_argument("--peer-python", default=".venv-bench/bin/python", help="interpreter with the peers installed")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each subject")
    parser.add_argument("--turn-seconds", type=float, default=3.0, help="minimum length of a turn")
    parser.add_argument(
        "--max-foreign", type=float, default=0.04, help="share of CPU used by others that spoils a turn"
    )
    parser.add_argument(
        "--attempts", type=int, default=3, help="times a spoilt turn is tried before it is taken as it is"
    )
    parser.add_argument("--quick", action="store_true", help="size S, few short turns: checks that everything runs")
    parser.add_argument("--suite", action="store_true", help="every case of docs/performance.md")
    parser.add_argument("--json", type=Path, help="write the result here (a list with --suite)")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    args = parser.parse_args()
    if args.quick:
        args.size, args.slots, args.rounds, args.turn_seconds, args.attempts = "S", args.slots or 2, 3, 0.5, 1
    known = SUBJECTS if args.suite else SUBJECTS_OF.get(args.architecture.rpartition("_")[2], SUBJECTS)
    args.subjects = args.subjects or ",".join(known)
    unknown = set(args.subjects.split(",")) - set(known)
    if unknown:
        parser.error(f"--subjects: {', '.join(sorted(unknown))} is not one of {', '.join(known)}")
    if args.autocast and "dictionary_learning" in args.subjects:
        parser.error("--autocast: dictionary_learning has none; leave it out, for instance --subjects saesweep,saelens")
    needs_peers = set(args.subjects.split(",")) - {"saesweep", "floor"}
    if needs_peers and not Path(args.peer_python).exists():
        parser.error(f"--peer-python: {args.peer_python} does not exist; `make bench-env` creates it")
    return args


def main() -> None:
    """Measure what the command line asks for."""
    args = parse()
    cases = SUITE if args.suite else [(args.size, args.architecture, args.phase, args.dead)]
    results = []
    for size, architecture, phase, dead in cases:
        slots = args.slots or SIZES[size].slots
        setup = Setup(size, architecture, phase, dead, slots, device=args.device, autocast=args.autocast)
        results.append(measure(setup, args.subjects.split(","), args))
        if not args.markdown:
            shown = {k: v for k, v in results[-1].items() if isinstance(v, float)}
            print(json.dumps({"setup": setup.to_json(), **{k: round(v, 3) for k, v in shown.items()}}), flush=True)
        if args.json:
            args.json.write_text(json.dumps(results if args.suite else results[0], indent=1) + "\n")
    if args.markdown:
        print(table(results))


if __name__ == "__main__":
    main()
