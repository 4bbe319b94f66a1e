"""What a thousand workers would ask of the driver: its real loop, study-less, on simulated reports.

    python benchmarks/simulate_workers.py --workers 1000 --trials 100000

Simulated workers train nothing; their figures are made up. Each report goes through the scheduler's `decide` and the
leaderboard as in a run; suggestions are drawn at random, because the study's own cost (benchmarks/many_trials.py) does not
depend on the number of workers. Printed: decisions per second, the 50th and 99th percentile of a decision, and memory.
"""

from __future__ import annotations

import argparse
import heapq
import random
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataclasses import replace

from saesweep.driver.standings import Leaderboard
from saesweep.events import Row
from saesweep.experiment import streams_of
from saesweep.forecast import Course
from saesweep.scheduler import (
    Action,
    Aim,
    Ask,
    BlockDone,
    Complete,
    Opened,
    Place,
    Policy,
    Prune,
    State,
    Suggested,
    decide,
)
from tests.engines.long_sweep import long_sweep
from tests.engines.scripted import made_up_metrics


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=8, help="of each worker (default: 8)")
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--blocks", type=int, default=4, help="blocks of a trial (default: 4)")
    parser.add_argument("--pruner", choices=["rung", "none"], default="rung")
    parser.add_argument("--seconds", type=float, default=240.0, help="stop after so long (default: 240)")
    arguments = parser.parse_args()
    experiment = long_sweep(1000, {"maximize": "explained_variance"})
    run = experiment.base_run()
    total = run.total_steps * run.train_batch_size_tokens
    block = total // arguments.blocks
    policy = Policy(
        n_trials=arguments.trials,
        n_slots=arguments.slots,
        total_tokens=total,
        rungs_tokens=(block,),
        aim=Aim.of(experiment.objective(False)),
        pruner=arguments.pruner,
    )
    state = replace(State.new(policy), workers=dict.fromkeys(range(arguments.workers), arguments.slots))
    course = Course.of(
        run,
        [tokens // run.train_batch_size_tokens for tokens in policy.stops_tokens],
        target_l0=None,
        steered=False,
        scope="",
    )
    board = Leaderboard(experiment.objective(False), streams_of(experiment))
    tokens: dict[int, int] = {}
    live: dict[int, dict[int, int]] = {worker: {} for worker in range(arguments.workers)}
    home: dict[int, int] = {}
    ended = 0

    def obey(state: State, actions: list[Action]) -> State:
        nonlocal ended
        for action in actions:
            if isinstance(action, Ask):
                answer = Suggested(number=action.number, stratum=action.stratum, group="all", course=course)
                state, more = decide(state, answer)
                state = obey(state, more)
            elif isinstance(action, Place):
                live[action.worker][action.number], home[action.number] = action.slot, action.worker
                tokens.setdefault(action.number, 0)
            elif isinstance(action, (Prune, Complete)):
                live[home[action.number]].pop(action.number)
                board.add(
                    row(action.number, "pruned" if isinstance(action, Prune) else "complete", tokens[action.number])
                )
                ended += 1
        return state

    began = time.monotonic()
    state = obey(*decide(state, Opened()))
    opening = time.monotonic() - began
    print(f"first {len(tokens)} trials: {opening:.1f} s", flush=True)
    dice = random.Random(0)
    queue = [(dice.random(), worker) for worker in live]
    heapq.heapify(queue)
    took: list[float] = []
    cpu: list[float] = []
    began = time.monotonic()
    while state.stopped is None and time.monotonic() - began < arguments.seconds:
        now, worker = heapq.heappop(queue)
        seen = {number: min(tokens[number] + block, total) for number in live[worker]}
        values = {
            number: {
                rung: tuple(made_up_metrics(number, at)[metric] for metric in policy.aim.metrics)
                for rung in state.due_rungs(number, at)
            }
            for number, at in seen.items()
            if state.due_rungs(number, at)
        }
        tokens.update(seen)
        started, cpu_started = time.perf_counter(), time.process_time()
        state = obey(*decide(state, BlockDone(tokens_seen=seen, values=values, worker=worker)))
        board.rows([], 100)
        took.append(time.perf_counter() - started)
        cpu.append(time.process_time() - cpu_started)
        heapq.heappush(queue, (now + 0.5 + dice.random(), worker))
        while queue and not live[queue[0][1]]:
            heapq.heappop(queue)
        if not queue:
            break
    took.sort()
    cpu.sort()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{arguments.workers} workers, {len(tokens):,} trials asked, {ended:,} ended, {len(took):,} reports: "
        f"{len(took) / sum(took):.1f} decisions/s, median {1e3 * took[len(took) // 2]:.1f} ms, "
        f"p99 {1e3 * took[int(0.99 * len(took))]:.1f} ms "
        f"(of CPU time {1e3 * cpu[len(cpu) // 2]:.1f} and {1e3 * cpu[int(0.99 * len(cpu))]:.1f} ms), {memory:.0f} MiB"
    )


def row(number: int, status: str, tokens: int) -> Row:
    """Return the row of a trial that has ended."""
    return Row.from_json(
        {
            "number": number,
            "architecture": "topk",
            "sparsity": "",
            "params": {},
            "lr": 1e-3,
            "hook": "synthetic",
            "status": status,
            "tokens": tokens,
            "total_tokens": tokens,
            "metrics": made_up_metrics(number, tokens),
        }
    )


if __name__ == "__main__":
    main()
