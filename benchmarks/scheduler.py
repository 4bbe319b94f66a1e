"""Drives the scheduler with simulated trainers: occupancy of the slots, time per decision, memory.

    python benchmarks/scheduler.py --trials 2000 --slots 64

Trains nothing: a trial's values come from a random quality, blocks have random lengths, a few trials fail. Exits 1 where
slots stand idle while trials wait, judging a block takes 25 ms or more on average, or memory grows by more than the trials it holds.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from saesweep.scheduler import BlockDone, Event, Policy
from tests.scheduler.simulator import FRONT, MSE, Simulator

TOTAL_TOKENS = 400
RUNGS_TOKENS = (20, 80)
ARCHITECTURES = ("batchtopk", "topk", "jumprelu", "gated", "standard")
FAILURES = 0.001
MIN_OCCUPANCY, MAX_MS = 0.99, 25.0


class TimedSimulator(Simulator):
    """Measures each decision, and drops the record of events that a test would replay."""

    def __init__(self, policy: Policy, seed: int) -> None:
        rng = random.Random(seed)
        best = {n: [rng.random() for _ in policy.aim.metrics] for n in range(policy.n_trials)}
        super().__init__(
            policy,
            quality=lambda number, rung: tuple(math.exp(q + rng.gauss(0, 0.1) / (rung + 1)) for q in best[number]),
        )
        self.seconds: list[float] = []
        self.block_seconds: list[float] = []

    def send(self, event: Event) -> None:
        """Send an event and take its CPU time, without that of the asks that it leads to."""
        inside = sum(self.seconds)
        started = time.process_time()
        super().send(event)
        self.seconds.append(time.process_time() - started - (sum(self.seconds) - inside))
        if isinstance(event, BlockDone):
            self.block_seconds.append(self.seconds[-1])
        self.events.clear()
        self.answers.clear()


def main() -> int:
    """Run the simulation and judge it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="trials of the sweep (default: 2000)")
    parser.add_argument("--slots", type=int, default=64, help="slots of the cohort (default: 64)")
    parser.add_argument("--goals", type=int, choices=[1, 2], default=2, help="default: 2, a Pareto front")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation (default: 0)")
    parser.add_argument("--memory", action="store_true", help="trace memory too; decisions then take longer")
    args = parser.parse_args()
    policy = Policy(
        n_trials=args.trials,
        n_slots=args.slots,
        total_tokens=TOTAL_TOKENS,
        rungs_tokens=RUNGS_TOKENS,
        aim=FRONT if args.goals == 2 else MSE,
        strata=ARCHITECTURES,
    )
    simulator = TimedSimulator(policy, args.seed)
    if args.memory:
        tracemalloc.start()
    simulator.run(random.Random(args.seed), FAILURES)
    ms = [1000 * s for s in simulator.seconds]
    block_ms = sorted(1000 * s for s in simulator.block_seconds)
    occupancy = simulator.trained_slots / (simulator.trained_slots + simulator.idle_slots)
    ends = {kind: sum(end == kind for end in simulator.ended.values()) for kind in ("Complete", "Prune")}
    spent = sum(simulator.tokens.values()) / (args.trials * TOTAL_TOKENS)
    mean_ms, block_mean_ms = statistics.mean(ms), statistics.mean(block_ms)
    print(f"{args.trials} trials ({ends['Complete']} complete, {ends['Prune']} pruned or failed), {args.slots} slots,")
    print(f"  {len(ms)} events; {100 * spent:.0f}% of the tokens that full trials would take")
    print(f"  occupancy while trials wait: {100 * occupancy:.2f}%")
    print(f"  a decision, CPU time: mean {mean_ms:.2f} ms; of those that judge a block: mean {block_mean_ms:.2f} ms,")
    print(f"  95th percentile {block_ms[int(0.95 * len(block_ms))]:.2f} ms, longest {block_ms[-1]:.2f} ms")
    is_good = occupancy >= MIN_OCCUPANCY and len(simulator.ended) == args.trials
    if args.memory:
        now, peak = tracemalloc.get_traced_memory()
        print(
            f"  memory: {now / 1e6:.1f} MB held at the end, peak {peak / 1e6:.1f} MB: {now / args.trials:.0f} bytes a trial"
        )
        is_good &= peak < 4 * now
    else:
        is_good &= block_mean_ms < MAX_MS
    print("as promised" if is_good else "NOT as promised")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
