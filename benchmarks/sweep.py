"""Time to answer: one search over five architectures through SAELens' ways of training and through `saesweep run`.

    make bench-env                                            # once: SAELens, in an environment of its own
    .venv/bin/python benchmarks/sweep.py --work-dir bench-sweep --json sweep.json --markdown
    .venv/bin/python benchmarks/sweep.py --quick              # a smoke check: tiny budgets, figures mean nothing

Every contender trains the same settings, sampled at random once (pruning alone asks its own sampler). Each runs in a
process of its own; its time is that of the whole process, imports included. saesweep's time contains measuring every
trial on held-out tokens; SAELens' contains no evaluation, and a search loop's own overhead is left out: both favour it.

Slow peers are timed on one trial per architecture and on a share of the tokens, and scaled: their loops are sequential
and dense, so that a step costs the same at any time. What does not grow with tokens (loading, estimating the activation
scale, saving) is measured apart and not scaled with them. `--share-... 1 --peer-trials all` measures everything.

All SAEs are measured in their exported form by saesweep's evaluator on the same held-out documents.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import yaml
from cohort import machine
from sweep_setup import ARCHITECTURES, MAX_L0, MODELS, experiment, peer_settings, write_training_text

from saesweep.evaluation import evaluate_saes

HERE = Path(__file__).resolve().parent
CONTENDERS = {
    "saesweep": "saesweep run, no pruning",
    "saesweep_pruned": "saesweep run, pruning",
    "saelens_runner": "SAELens' runner, one trial at a time",
    "saelens_trainer": "SAELens' trainer, activations in memory",
    "saelens_multi": "SAELens' multi runner, groups of 8",
}
RATIOS = {
    "ratio_vs_runner": ("saelens_runner", "saesweep"),
    "ratio_vs_trainer": ("saelens_trainer", "saesweep"),
    "ratio_vs_multi": ("saelens_multi", "saesweep"),
    "ratio_pruned_vs_runner": ("saelens_runner", "saesweep_pruned"),
}
GROUP = 8
HOOK = "model.layers.2"
BATCH_TOKENS = 4096

Found = dict[str, Any]


class Bench:
    """The contenders of one command line; results in the work directory are kept and not measured again."""

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args = args
        self.work = work
        self._check_work()

    def _check_work(self) -> None:
        mine = {name: getattr(self.args, name) for name in ("model", "trials", "tokens", "search_seed")}
        file = self.work / "settings.json"
        if file.exists() and json.loads(file.read_text()) != mine:
            raise SystemExit(
                f"{self.work}: holds results of {file.read_text()}, not of {mine}; give another --work-dir"
            )
        self.work.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(mine))

    def tree(self, name: str, *, pruner: str = "none") -> Found:
        """Return an experiment of this benchmark."""
        args = self.args
        return experiment(
            name, model=args.model, trials=args.trials, tokens=args.tokens, pruner=pruner, seed=args.search_seed
        )

    def run(self, name: str, contender: str, job: Found) -> Found:
        """Run one job in its own process, unless its result is there."""
        result, folder = self.work / f"{name}.json", self.work / name
        if result.exists():
            found: Found = json.loads(result.read_text())
            return found
        if folder.exists():
            shutil.rmtree(folder)  # left by a benchmark that was interrupted
        ours = contender == "saesweep"
        job_file = self.work / f"{name}.job"
        job_file.write_text(json.dumps(job))
        env = dict(os.environ)
        if ours:
            env["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), env.get("PYTHONPATH", "")])
        print(f"{name} ...", file=sys.stderr, flush=True)
        before, start = psutil.cpu_times(), time.perf_counter()
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.run(
                [
                    sys.executable if ours else self.args.peer_python,
                    str(HERE / "sweep_worker.py"),
                    contender,
                    str(job_file),
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=env,
                check=False,
            )
            if process.returncode != 0:
                errors.seek(0)
                raise SystemExit(f"{name} failed:\n{errors.read()[-3000:]}")
        wall = time.perf_counter() - start
        after = psutil.cpu_times()
        busy = sum(getattr(after, f) - getattr(before, f) for f in ("user", "nice", "system"))
        found = json.loads(process.stdout)
        found["wall_seconds"] = wall
        found["foreign_cpu"] = max(busy - found["cpu_seconds"], 0.0) / (wall * (os.cpu_count() or 1))
        result.write_text(json.dumps(found, indent=1))
        print(f"{name}: {wall:.0f} s, {found['foreign_cpu']:.0%} foreign CPU", file=sys.stderr, flush=True)
        return found

    # ---------------------------------------------------------------- contenders

    def ours(self, name: str, *, pruner: str) -> Found:
        """Run our sweep, with or without pruning."""
        job = {"experiment": self.tree(name, pruner=pruner), "run_dir": str(self.work / name)}
        return {**self.run(name, "saesweep", job), "measured": "all"}

    def settings(self) -> dict[int, Found]:
        """Return every trial's settings in SAELens' names, as our unpruned sweep trained them."""
        text = self.work / "text"
        if not text.exists():
            partial = self.work / "text.partial"
            shutil.rmtree(partial, ignore_errors=True)
            write_training_text(self.tree("text"), partial)
            partial.rename(text)
        found = peer_settings(self.work / "saesweep", text)
        if len(found) != self.args.trials:
            raise SystemExit(f"{self.args.trials} trials were wanted, {len(found)} finished: see {self.work}/saesweep")
        return found

    def chosen(self) -> list[int]:
        """Return the trials that the sequential peers are timed on."""
        settings = self.settings()
        if self.args.peer_trials == "all":
            return list(settings)
        first: dict[str, int] = {}
        for number, cfg in settings.items():
            first.setdefault(cfg["sae"]["architecture"], number)
        return list(first.values())

    def peer_job(self, name: str, numbers: list[int], share: float) -> Found:
        """Return a job of a peer: these trials, on a share of their tokens."""
        settings, steps = self.settings(), self._steps(share)
        trials = []
        for number in numbers:
            cfg = settings[number]
            if steps < self._steps(1.0):
                # Timed only: the schedules of the whole run would not fit.
                cfg |= {"lr_warm_up_steps": 0, "lr_decay_steps": 0}
            cfg["training_tokens"] = steps * BATCH_TOKENS
            trials.append(
                {
                    "number": number,
                    "architecture": cfg["sae"]["architecture"],
                    "seed": number,
                    "folder": str(self.work / name / str(number)),
                    "cfg": cfg,
                }
            )
        return {"trials": trials, "folder": str(self.work / name)}

    def _steps(self, share: float) -> int:
        return max(2, int(self.args.tokens * share) // BATCH_TOKENS)

    def sequential(self, name: str, share: float) -> Found:
        """Run a peer that trains one trial after the other."""
        numbers = self.chosen()
        found = self.run(name, name, self.peer_job(name, numbers, share))
        scale = self._steps(1.0) / self._steps(share)
        counts = Counter(cfg["sae"]["architecture"] for cfg in self.settings().values())
        total = found["import_seconds"] + _scaled(found.get("once", {}), scale)
        for architecture, count in counts.items():
            mine = [_scaled(t["seconds"], scale) for t in found["trials"] if t["architecture"] == architecture]
            total += count * statistics.mean(mine)
        return {**found, "total_seconds": total, "measured": f"{len(numbers)} trials, {1 / scale:.0%} of the tokens"}

    def multi(self, share: float) -> Found:
        """Run one group through the multi runner."""
        numbers = list(self.settings())[:GROUP]
        found = self.run("saelens_multi", "saelens_multi", self.peer_job("saelens_multi", numbers, share))
        scale = self._steps(1.0) / self._steps(share)
        groups = self.args.trials / len(numbers)
        total = found["import_seconds"] + groups * _scaled(found["once"], scale)
        return {
            **found,
            "total_seconds": total,
            "measured": f"1 group of {groups:g}, {1 / scale:.0%} of the tokens",
        }

    # ---------------------------------------------------------------- quality

    def scores(self, folders: list[Path], part: str) -> list[dict[str, float]]:
        """Measure exported SAEs on one held-out part."""
        tree = self.tree("evaluation")
        found = evaluate_saes(folders, experiment=tree, hook=HOOK, part=part)  # type: ignore[arg-type]
        return [sae.metrics for sae in found.saes]

    def best(self, folders: list[Path]) -> Found:
        """Choose on the one part, report on the other; the objective is explained variance at a bounded L0."""
        scores = self.scores(folders, "select")
        feasible = [i for i, metrics in enumerate(scores) if metrics["l0"] <= MAX_L0]
        if not feasible:
            return {"of": len(folders), "feasible": 0}
        winner = max(feasible, key=lambda i: scores[i]["explained_variance"])
        test = self.scores([folders[winner]], "test")[0]
        kept = ("explained_variance", "l0", "delta_ce")
        return {
            "of": len(folders),
            "feasible": len(feasible),
            "folder": str(folders[winner].relative_to(self.work)),
            "select": {name: scores[winner][name] for name in kept},
            "test": {name: test[name] for name in kept},
        }

    def finished(self, name: str) -> list[Path]:
        """Return the SAEs of the trials that a sweep of ours trained to their end."""
        rows = json.loads((self.work / name / "leaderboard.json").read_text())["rows"]
        numbers = sorted(row["number"] for row in rows if row["status"] == "complete")
        return [self.work / name / "trials" / f"{number:04d}" / "sae" for number in numbers]

    def trained_in_full(self) -> list[Path]:
        """Train the best settings of our unpruned sweep through SAELens' runner, all tokens, and return the folders."""
        rows = json.loads((self.work / "saesweep" / "leaderboard.json").read_text())["rows"]
        numbers = [row["number"] for row in rows if row["status"] == "complete" and row["feasible"]][: self.args.full]
        folders = []
        for number in numbers:
            name = f"saelens_full_{number}"
            self.run(name, "saelens_runner", self.peer_job(name, [number], 1.0))
            folders.append(self.work / name / str(number))
        return folders

    def spread(self, winner: Path) -> Found:
        """Train the best settings again with other seeds (of weights, data order and held-out split)."""
        folders = [winner]
        tree = yaml.safe_load((winner / "experiment.yaml").read_text())
        for seed in range(1, self.args.seeds):
            name = f"seed_{seed}"
            again = {**tree, "name": name, "base": {**tree["base"], "seed": seed}}
            self.run(name, "saesweep", {"experiment": again, "run_dir": str(self.work / name)})
            folders += self.finished(name)
        values = [metrics["explained_variance"] for metrics in self.scores(folders, "test")]
        return {"explained_variance": values, "range": max(values) - min(values)}


def _scaled(seconds: dict[str, float], scale: float) -> float:
    """Add up phases; training alone grows with the tokens."""
    return sum(value * (scale if name == "train" else 1.0) for name, value in seconds.items())


def compare(bench: Bench) -> Found:
    """Run the contenders and reduce them to figures."""
    args = bench.args
    wanted = set(args.contenders.split(","))
    runs: dict[str, Found] = {}
    if wanted != {"saesweep_pruned"}:  # the unpruned search's settings are those of every peer
        runs["saesweep"] = bench.ours("saesweep", pruner="none")
    if "saesweep_pruned" in wanted:
        runs["saesweep_pruned"] = bench.ours("saesweep_pruned", pruner="rung")
    if "saelens_runner" in wanted:
        runs["saelens_runner"] = bench.sequential("saelens_runner", args.share_runner)
    if "saelens_trainer" in wanted:
        runs["saelens_trainer"] = bench.sequential("saelens_trainer", args.share_trainer)
    if "saelens_multi" in wanted:
        runs["saelens_multi"] = bench.multi(args.share_multi)
    figures: Found = {
        name: {
            "seconds": found.get("total_seconds", found["wall_seconds"]),
            "measured_seconds": found["wall_seconds"],
            "measured": found["measured"],
            "peak_over_baseline_bytes": found["peak_over_baseline"],
            "foreign_cpu": found["foreign_cpu"],
            "threads": found["threads"],
            "versions": found["versions"],
        }
        for name, found in runs.items()
    }
    for name in ("saesweep", "saesweep_pruned"):
        if name in runs:
            figures[name]["best"] = bench.best(bench.finished(name))
    if "saelens_runner" in wanted and (full := bench.trained_in_full()):
        figures["saelens_runner"]["best"] = bench.best(full)
    result: Found = {
        "settings": {name: getattr(args, name) for name in ("model", "trials", "tokens", "search_seed")},
        "machine": machine(),
        "contenders": figures,
    }
    for label, (theirs, ours) in RATIOS.items():
        if theirs in figures and ours in figures:
            result[label] = figures[theirs]["seconds"] / figures[ours]["seconds"]
    best = {name: found["best"]["test"] for name, found in figures.items() if "test" in found.get("best", {})}
    if {"saesweep_pruned", "saelens_runner"} <= set(best):
        # To be read beside the seed spread.
        pruned, runner = (best[name]["explained_variance"] for name in ("saesweep_pruned", "saelens_runner"))
        result["best_pruned_minus_runner"] = pruned - runner
    ours_best = figures.get("saesweep", {}).get("best", {})
    if args.seeds > 1 and ours_best.get("feasible"):
        result["seed_spread"] = bench.spread(bench.work / ours_best["folder"])
    return result


def table(result: Found) -> str:
    """Return the result as a Markdown table."""
    lines = [
        "| contender | time | measured | peak memory | best explained variance (test) | L0 | delta CE | foreign CPU |",
        "|---" * 8 + "|",
    ]
    for name, found in result["contenders"].items():
        best = found.get("best", {}).get("test")
        quality = (
            f"{best['explained_variance']:.4f} of {found['best']['of']} | {best['l0']:.1f} | {best['delta_ce']:.4f}"
            if best
            else "- | - | -"
        )
        lines.append(
            f"| {CONTENDERS[name]} | {found['seconds'] / 60:.1f} min | {found['measured']} "
            f"| {found['peak_over_baseline_bytes'] / 2**20:.0f} MiB | {quality} | {found['foreign_cpu']:.0%} |"
        )
    lines.append("")
    for label, (theirs, ours) in RATIOS.items():
        if label in result:
            lines.append(f"- {CONTENDERS[ours]}: {result[label]:.1f}x as fast as {CONTENDERS[theirs]}")
    if "best_pruned_minus_runner" in result:
        lines.append(
            f"- best explained variance with pruning minus SAELens' runner: {result['best_pruned_minus_runner']:+.4f}"
        )
    if "seed_spread" in result:
        spread = result["seed_spread"]
        values = ", ".join(f"{v:.4f}" for v in spread["explained_variance"])
        lines.append(f"- the best setting with {len(spread['explained_variance'])} seeds: {values}")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """Return the checked command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="builtin", help="stories: ../shared stories260K, d_sae 1024")
    parser.add_argument("--trials", type=int, default=32, help="trials of the search (default: 32)")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="training tokens of each trial (default: 1M)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument(
        "--peer-trials", choices=("one-each", "all"), default="one-each", help="what peers are timed on"
    )
    parser.add_argument("--share-runner", type=float, default=0.1, help="share of the tokens, SAELens' runner")
    parser.add_argument("--share-trainer", type=float, default=0.1, help="share of the tokens, SAELens' trainer")
    parser.add_argument("--share-multi", type=float, default=0.05, help="share of the tokens, SAELens' multi runner")
    parser.add_argument(
        "--full", type=int, default=1, help="best settings that SAELens' runner trains on all tokens, for their quality"
    )
    parser.add_argument("--search-seed", type=int, default=0, help="of the settings that are sampled (default: 0)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the best setting, for the spread")
    parser.add_argument("--peer-python", default=".venv-bench/bin/python", help="interpreter with SAELens installed")
    parser.add_argument(
        "--work-dir", type=Path, help="where everything goes; results found there are not measured again"
    )
    parser.add_argument("--quick", action="store_true", help="five short trials: checks that everything runs")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    args = parser.parse_args()
    if args.quick:
        args.trials, args.tokens, args.seeds = len(ARCHITECTURES), 16 * BATCH_TOKENS, min(args.seeds, 2)
        args.share_runner = args.share_trainer = args.share_multi = 0.2
    if not min(args.share_runner, args.share_trainer, args.share_multi) > 0:
        parser.error("--share-...: must be above 0")
    if unknown := set(args.contenders.split(",")) - set(CONTENDERS):
        parser.error(f"--contenders: {', '.join(sorted(unknown))} is not one of {', '.join(CONTENDERS)}")
    if args.trials < len(ARCHITECTURES):
        parser.error(f"--trials: at least {len(ARCHITECTURES)}, one of each architecture")
    if "saelens" in args.contenders and not Path(args.peer_python).exists():
        parser.error(f"--peer-python: {args.peer_python} does not exist; `make bench-env` creates it")
    return args


def main() -> None:
    """Measure what the command line asks for."""
    args = parse()
    with tempfile.TemporaryDirectory() as temporary:
        result = compare(Bench(args, args.work_dir.resolve() if args.work_dir else Path(temporary)))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result) if args.markdown else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
