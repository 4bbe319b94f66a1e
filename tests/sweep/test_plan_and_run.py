"""`plan` says what `run` does: slots, strata, rungs, limits and budgets, for every shipped experiment and every kind."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import saesweep
from saesweep.driver import phase
from saesweep.driver.stopping import StopFlag
from saesweep.engines.local import LocalEngine
from saesweep.engines.records import StreamFacts
from saesweep.events import EventBus
from saesweep.experiment import Experiment, load_experiment, streams_of
from saesweep.planning.plan import plan
from saesweep.planning.planned import PlannedStream
from saesweep.runs import RunDirectory
from saesweep.scheduler import Policy
from saesweep.specs.joint_hooks import hooks_in
from saesweep.worker import setup, sizing
from tests.reliability.conftest import few_trials

SHIPPED = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
GIB = 1 << 30
WIDTH = 128
"""Of the built-in model."""


class Opened(Exception):
    """The loop was about to start."""


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The memory that is free, the same whenever someone looks."""
    free = {"bytes": 16 * GIB}
    monkeypatch.setattr(sizing, "free_bytes", lambda device: free["bytes"])
    return free


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run get as far as its loop without a model, data or measurements."""

    def source(run: Any, evaluation: Any, hooks: Any, **_: Any) -> Any:
        model = None if run.is_synthetic else SimpleNamespace(has_lm_head=True)
        stream = SimpleNamespace(d_in=widths(run, hooks), tokens_served=0)
        return SimpleNamespace(stream=stream, model=model, select=None, test=None, close=lambda: None)

    monkeypatch.setattr(setup, "open_source", source)
    monkeypatch.setattr(setup, "evaluator_of", lambda *_, **__: None)
    monkeypatch.setattr(setup, "normalizers_of", lambda *_: {})
    monkeypatch.setattr(setup, "_sinks", lambda *_: ())
    monkeypatch.setattr(setup, "make_engine", lambda *_, reference, **__: (reference, None, []))


def widths(run: Any, hooks: Any) -> dict[str, int]:
    """The width at each hook: that of the file, or that of the built-in model at all layers that are read together."""
    return {hook: run.sae.d_in or WIDTH * len(hooks_in(hook)) for hook in hooks}


def facts_of(experiment: Experiment) -> Any:
    return tuple(
        StreamFacts(
            label=s.label,
            d_in=widths(s.experiment.base_run(), s.experiment.hook_names()),
            has_lm_head=None,
        )
        for s in streams_of(experiment)
    )


def start(experiment: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Return the session and the search with which a run starts its loop."""
    found: list[Any] = []

    def loop(session: Any, search: Any, *_: Any) -> None:
        found.extend((session, search))
        raise Opened

    monkeypatch.setattr(phase, "SweepLoop", loop)
    with RunDirectory(folder) as directory, pytest.raises(Opened):
        phase.train(experiment, directory, facts_of(experiment), LocalEngine(), EventBus(), StopFlag())
    return found[0], found[1]


def said_of_run(session: Any, policy: Policy) -> dict[str, Any]:
    return {
        "slots": session.opened.n_slots,
        "slots_reason": session.directory.choices()["slots_reason"],
        "block_tokens": session.blocks.block_tokens,
        "total_tokens": session.blocks.total_tokens,
        "rungs_tokens": session.blocks.rungs_tokens,
        "policy": policy,
    }


def said_of_plan(stream: PlannedStream) -> dict[str, Any]:
    names = ("slots", "slots_reason", "block_tokens", "total_tokens", "rungs_tokens", "policy")
    return {name: getattr(stream, name) for name in names}


@pytest.mark.parametrize("gib", [2, 200])
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
@pytest.mark.usefixtures("unopened")
def test_a_shipped_experiment_runs_as_planned(
    file: Path, gib: int, free: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free["bytes"] = gib * GIB
    experiment = load_experiment(file)
    made = plan(experiment)
    opened, search = start(experiment, tmp_path / "run", monkeypatch)
    assert said_of_plan(made.streams[0]) == said_of_run(opened, search.policy)
    assert made.slots == opened.opened.n_slots
    assert made.trials == search.policy.n_trials == experiment.n_trials


def changed(**search: Any) -> dict[str, Any]:
    tree = few_trials()
    tree["search"] |= search
    del tree["cohort"]["size"]
    return tree


def kinds() -> dict[str, dict[str, Any]]:
    grid = changed(sampler="grid", pruner="none")
    del grid["search"]["trials"], grid["search"]["rungs"]
    grid["space"] = {
        "sae.architecture": {"choice": ["topk", "standard"]},
        "sae.k": {"int": [2, 32], "grid": [2, 8, 32]},
        "sae.l1_coefficient": {"float": [1.0, 2.0], "grid": [1.0, 2.0]},
    }
    grid["search"]["baselines"] = [{"sae.architecture": "topk", "sae.k": 3}]
    matched = changed(trials=18, replicates=2)
    matched["objective"] = {"maximize": "explained_variance", "matched": {"l0": [4, 8]}}
    del matched["space"]["sae.k"], matched["space"]["sae.l1_coefficient"]
    hooks = changed(stratify="hook_name", trials=7)
    hooks["space"]["lr_scheduler_name"] = {"choice": ["constant", "cosineannealing"]}
    hooks["search"]["stratify"] = "lr_scheduler_name"
    return {
        "grid": grid,
        "matched": matched,
        "another stratum": hooks,
        "budget": changed(tokens_budget=40_000, replicates=2),
        "baselines": changed(baselines=[{"sae.architecture": "standard"}, {"sae.k": 4}], min_per_architecture=0),
    }


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.usefixtures("unopened")
def test_every_kind_of_search_runs_as_planned(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment(kinds()[kind])
    made = plan(experiment)
    opened, search = start(experiment, tmp_path / "run", monkeypatch)
    assert said_of_plan(made.streams[0]) == said_of_run(opened, search.policy)
    policy = search.policy
    says = {
        "grid": policy.stratum_limits == (4, 2),
        "matched": len(policy.strata) == 4 and policy.n_slots * 2 == opened.opened.n_slots,
        "another stratum": policy.strata == ("constant", "cosineannealing"),
        "budget": policy.tokens_budget == 20_000,
        "baselines": policy.baseline_strata == ("standard", "topk"),
    }
    assert says[kind]


def streams() -> dict[str, Any]:
    tree = few_trials()
    tree["space"]["train_batch_size_tokens"] = {"choice": [256, 512, 128]}
    tree["search"] = {"trials": 8, "rungs": ["25%"], "tokens_budget": 93_000}
    tree["search"]["baselines"] = [{"sae.architecture": "topk", "sae.k": 8}]
    tree["cohort"] = {"kernels": "reference"}
    return tree


def test_streams_run_as_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    real = phase.SweepLoop

    def loop(session: Any, search: Any, *others: Any) -> Any:
        seen.append(said_of_run(session, search.policy))
        return real(session, search, *others)

    monkeypatch.setattr(phase, "SweepLoop", loop)
    planned = [said_of_plan(stream) for stream in plan(load_experiment(streams())).streams]
    saesweep.run(streams(), run_dir=tmp_path / "run")
    assert planned == seen
    assert [policy["policy"].tokens_budget for policy in planned] == [31_000, 62_000, 93_000]
    assert [policy["policy"].n_trials for policy in planned] == [3, 6, 8]


def test_a_budget_shortens_the_estimate(tmp_path: Path) -> None:
    """Both the tokens that a budget allows and the trials that a grid has are in the estimate."""
    whole, short = plan(load_experiment(changed())), plan(load_experiment(changed(tokens_budget=25_000)))
    assert short.sae_tokens_full <= 25_000 < whole.sae_tokens_full
    tree = streams()
    tree["search"]["tokens_budget"] = 45_000  # one trial in each stream, and one more from what the others left
    assert plan(load_experiment(tree)).sae_tokens_full == 4 * 10_240
