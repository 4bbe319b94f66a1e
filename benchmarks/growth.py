"""Cost as the work grows: SAE-tokens per second and peak memory of a cohort against N, F, k and density.

    .venv/bin/python -m pip install -e '.[bench]'             # once: matplotlib, for the plot
    .venv/bin/python benchmarks/growth.py --json growth.json --plot docs/growth.svg
    .venv/bin/python benchmarks/growth.py --quick             # a smoke check, under a minute

One quantity grows, the others stay at d_in 256, F 4096, k 32, N 8 (N 1 where F grows, for the memory's sake). Each
point is a process of its own with fresh memory: the median of its turns counts. Every axis gets an exponent, the slope
of seconds (of memory) against the quantity in log-log: 1 is linear, below is better.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from cohort import machine

HERE = Path(__file__).resolve().parent
BATCH_TOKENS = 4096
Found = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One cohort to measure."""

    architecture: str = "topk"
    d_in: int = 256
    d_sae: int = 4096
    k: int = 32
    slots: int = 8
    density: float = 0.0
    """Share of active pairs at which a penalised architecture is held; 0 for the topk family."""


@dataclass(frozen=True)
class Axis:
    """What grows."""

    name: str
    field: str
    values: tuple[float, ...]
    start: Point
    label: str
    work: str
    """Total work of a step grows with the quantity (`linear`), or may stay the same (`none`)."""

    def points(self) -> list[Point]:
        """Return the points, growing."""
        return [Point(**(asdict(self.start) | {self.field: value})) for value in self.values]


AXES = {
    a.name: a
    for a in (
        Axis("N", "slots", (1, 2, 4, 8, 16, 32), Point(), "SAEs in the cohort", "linear"),
        Axis(
            "F",
            "d_sae",
            (1024, 2048, 4096, 8192, 16384, 32768, 65536),
            Point(slots=1),
            "latents per SAE (N = 1)",
            "linear",
        ),
        Axis("k", "k", (8, 16, 32, 64, 128, 256), Point(), "active latents per token", "none"),
        Axis(
            "density",
            "density",
            (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
            Point(architecture="standard", slots=2),
            "share of active pairs (standard)",
            "none",
        ),
    )
}
QUICK = {"N": (1, 2), "F": (1024, 2048), "k": (8, 16), "density": (0.01, 0.1)}


def worker(point: Point, turn_seconds: float, turns: int) -> Found:
    """Train one cohort in this process; return milliseconds per step of the whole cohort, and its memory."""
    import gc
    import time

    import torch
    from cohort_worker import cpu_seconds, peak_bytes, resident_bytes

    from saesweep.cohort import Cohort, Slot
    from saesweep.cohort.kernels import SparseEngine, kernel_choice
    from saesweep.saes import Normalizer
    from saesweep.specs import BaseRun

    choice, _ = kernel_choice(point.d_in, point.d_sae)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(BATCH_TOKENS, point.d_in, generator=generator) for _ in range(2)]
    sae: Found = {"architecture": point.architecture, "d_in": point.d_in, "d_sae": point.d_sae}
    sae |= {"l1_coefficient": 0.1} if point.density else {"k": point.k}
    run = BaseRun.model_validate(
        {
            "dataset_path": "in memory",
            "hook_name": "hook",
            "training_tokens": 10**10,
            "train_batch_size_tokens": BATCH_TOKENS,
            "lr": 1e-8,  # so small that the density stays where it is put
            "sae": sae,
        }
    )
    gc.collect()
    baseline = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    cohort = Cohort(
        point.slots,
        normalizers={("hook", "none"): Normalizer(mode="none")},
        device="cpu",
        engine=SparseEngine(choice),
    )
    for i in range(point.slots):
        slot = Slot(trial=i, run=run, joined_at_tokens=0, init_seed=i, device="cpu")
        if point.density:
            with torch.no_grad():
                # Every latent fires at the same share of tokens.
                hidden_BF = batches[0][:1024] @ slot.params["W_enc"]
                rank = max(1, round((1 - point.density) * hidden_BF.shape[0]))
                slot.params["b_enc"].copy_(-hidden_BF.kthvalue(rank, dim=0).values)
        cohort.place(i, slot)
    cohort.begin_block()

    def advance(n: int) -> float:
        start = time.perf_counter()
        for step in range(n):
            cohort.train_step({"hook": batches[step % len(batches)]})
        return time.perf_counter() - start

    advance(1)
    steps = max(1, round(turn_seconds / advance(1)))
    before, cpu, start = psutil.cpu_times(), cpu_seconds(), time.perf_counter()
    seconds = [advance(steps) / steps for _ in range(turns)]
    wall, after = time.perf_counter() - start, psutil.cpu_times()
    busy = sum(getattr(after, f) - getattr(before, f) for f in ("user", "nice", "system"))
    step_seconds = statistics.median(seconds)
    peak = peak_bytes() - baseline
    return {
        **asdict(point),
        "step_ms": 1e3 * step_seconds,
        "step_ms_min": 1e3 * min(seconds),
        "sae_tokens_per_second": point.slots * BATCH_TOKENS / step_seconds,
        "peak_over_baseline_bytes": peak,
        "peak_bytes_per_parameter": peak / (2 * point.d_in * point.d_sae * point.slots),
        "foreign_cpu": max(busy - (cpu_seconds() - cpu), 0.0) / (wall * (os.cpu_count() or 1)),
        "kernels": choice.to_json(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def measure(point: Point, args: argparse.Namespace) -> Found:
    """Measure a point in a process of its own, again where others used the CPUs."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(HERE / "growth.py"), "--worker", json.dumps(asdict(point))]
    command += ["--turn-seconds", str(args.turn_seconds), "--turns", str(args.turns)]
    tries: list[Found] = []
    for _ in range(args.attempts):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, check=True)
        tries.append(json.loads(done.stdout.splitlines()[-1]))
        if tries[-1]["foreign_cpu"] <= args.max_foreign:
            break
    return min(tries, key=lambda found: float(found["foreign_cpu"]))


def exponent(sizes: list[float], costs: list[float]) -> float:
    """Return the least-squares slope of log cost against log size."""
    x, y = [math.log(v) for v in sizes], [math.log(v) for v in costs]
    return statistics.linear_regression(x, y).slope


def summarise(axis: Axis, found: list[Found]) -> Found:
    """Return an axis' points with the exponents of time and memory, over all of it and over its upper half."""
    sizes = [float(p[axis.field]) for p in found]
    upper = slice(len(sizes) // 2 - 1, None)
    summary: Found = {"points": found}
    for name, key in (("time", "step_ms"), ("memory", "peak_over_baseline_bytes")):
        costs = [p[key] for p in found]
        summary[f"{name}_exponent"] = exponent(sizes, costs)
        summary[f"{name}_exponent_upper"] = exponent(sizes[upper], costs[upper])
    return summary


def plot(result: Found, path: Path) -> None:
    """Draw throughput and memory against each quantity, log-log, with the line of linear growth."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"  # the same figures give the same file
    import matplotlib.pyplot as plt

    axes = result["axes"]
    figure, rows = plt.subplots(2, len(axes), figsize=(3.6 * len(axes), 6.4), squeeze=False, layout="constrained")
    for column, (name, found) in enumerate(axes.items()):
        axis, points = AXES[name], found["points"]
        sizes = [p[axis.field] for p in points]
        rate = [p["sae_tokens_per_second"] for p in points]
        memory = [p["peak_over_baseline_bytes"] / 2**20 for p in points]
        speed, space = rows[0][column], rows[1][column]
        speed.plot(sizes, rate, "o-", color="#1f5fa8")
        if name == "F":
            speed.plot(sizes, [rate[-1] * sizes[-1] / s for s in sizes], ":", color="gray", label="linear cost")
            speed.legend(frameon=False)
        space.plot(sizes, memory, "o-", color="#b5542b")
        if axis.work == "linear":
            space.plot(sizes, [memory[-1] * s / sizes[-1] for s in sizes], ":", color="gray", label="linear")
            space.legend(frameon=False)
        shape = axis.start
        fixed = [f"{shape.architecture}, d_in {shape.d_in}"]
        fixed += [f"F {shape.d_sae}"] if name != "F" else []
        fixed += [f"k {shape.k}"] if name != "k" and not shape.density and shape.architecture == "topk" else []
        fixed += [f"N {shape.slots}"] if name != "N" else []
        speed.set_title(", ".join(fixed), fontsize=9)
        for one, label in ((speed, "SAE-tokens per second"), (space, "peak memory, MiB")):
            one.set(xscale="log", yscale="log", xlabel=axis.label, ylabel=label if column == 0 else "")
            ticks = sizes[:: 2 if len(sizes) > 6 else 1]
            one.set_xticks(ticks, [f"{s / 1024:g}k" if s >= 1024 else f"{s:g}" for s in ticks], minor=False)
            one.set_xticks([], minor=True)
            one.grid(visible=True, which="both", alpha=0.2)
            values = one.get_ylim()
            if values[1] / values[0] < 10:  # less than a decade would show noise as a mountain
                middle = math.sqrt(values[0] * values[1])
                one.set_ylim(middle / 4, middle * 4)
    figure.suptitle(f"{result['machine']['cpu']}, {result['machine']['cpus']} CPUs, batches of {BATCH_TOKENS} tokens")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def table(result: Found) -> str:
    """Return the result as Markdown."""
    lines = [
        "| grows | value | ms per step | SAE-tokens/s | peak, MiB | B/param | foreign CPU |",
        "|---" * 7 + "|",
    ]
    for name, found in result["axes"].items():
        for p in found["points"]:
            lines.append(
                f"| {name} | {p[AXES[name].field]:g} | {p['step_ms']:.1f} | {p['sae_tokens_per_second']:,.0f} "
                f"| {p['peak_over_baseline_bytes'] / 2**20:.0f} | {p['peak_bytes_per_parameter']:.1f} "
                f"| {p['foreign_cpu']:.0%} |"
            )
    lines.append("")
    for name, found in result["axes"].items():
        lines.append(
            f"- {name}: time grows with exponent {found['time_exponent']:.2f} (upper half "
            f"{found['time_exponent_upper']:.2f}), memory with {found['memory_exponent']:.2f} "
            f"({found['memory_exponent_upper']:.2f})"
        )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """Return the checked command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", default=",".join(AXES), help=f"of {', '.join(AXES)}")
    parser.add_argument("--turns", type=int, default=5, help="turns of each point")
    parser.add_argument("--turn-seconds", type=float, default=0.8, help="minimum length of a turn")
    parser.add_argument(
        "--max-foreign", type=float, default=0.04, help="share of CPU used by others that spoils a point"
    )
    parser.add_argument("--attempts", type=int, default=2, help="times a spoilt point is tried")
    parser.add_argument("--quick", action="store_true", help="two values of each: checks that everything runs")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--plot", type=Path, help="draw the curves into this .svg or .png; needs matplotlib")
    parser.add_argument("--from-json", type=Path, help="measure nothing; draw what --json wrote")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.axes.split(",")) - set(AXES):
        parser.error(f"--axes: {', '.join(sorted(unknown))} is not one of {', '.join(AXES)}")
    if args.quick:
        args.turns, args.turn_seconds, args.attempts = 2, 0.2, 1
    return args


def main() -> None:
    """Measure, write, draw."""
    args = parse()
    if args.worker:
        print(json.dumps(worker(Point(**json.loads(args.worker)), args.turn_seconds, args.turns)))
        return
    if args.from_json:
        result: Found = json.loads(args.from_json.read_text())
    else:
        result = {"machine": machine(), "batch_tokens": BATCH_TOKENS, "axes": {}}
        for name in args.axes.split(","):
            axis = replace(AXES[name], values=QUICK[name]) if args.quick else AXES[name]
            found = []
            for point in axis.points():
                found.append(measure(point, args))
                print(f"{name} {found[-1][axis.field]:g}: {found[-1]['step_ms']:.1f} ms", file=sys.stderr, flush=True)
            result["axes"][name] = summarise(axis, found)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.plot:
        plot(result, args.plot)
    print(table(result))


if __name__ == "__main__":
    main()
