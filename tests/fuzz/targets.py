"""The doors through which files that somebody else wrote come in; each damages one file and goes through."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

import saesweep
from saesweep.display.saved import read_leaderboard, show_leaderboard
from saesweep.errors import UserError
from saesweep.events import BlockDone, Event
from saesweep.experiment import dump_yaml, load_experiment
from saesweep.experiment.from_cfg import read_cfg
from saesweep.publish import collect_run, push
from saesweep.report.data import read_run
from saesweep.report.page import report_page
from saesweep.saes import open_sae, read_pretrained
from tests.fuzz.damage import (
    VALUES,
    damage_bytes,
    damage_json,
    damage_json_lines,
    damage_safetensors,
    damage_tree,
)
from tests.fuzz.watch import tree_of, watched
from tests.saes.formats.peers import dictionary_learning, gemma_scope_2, llama_scope, qwen_scope, sparsify
from tests.sweep.studies import small_sweep

CANARY = "canary"
_CODE = "open('{path}', 'w').close()"


class Bomb:
    """Unpickled, it writes the canary."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (_CODE.format(path=self.path),)


def _interrupt(event: Event) -> None:
    if isinstance(event, BlockDone) and event.block == 1:
        signal.raise_signal(signal.SIGINT)


class World:
    """A finished run and a Gemma Scope file in a folder of their own.

    Args:
        folder: Where; nothing else may be in it. A second one beside it is for temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scratch = folder.with_name(f"{folder.name}-tmp")
        for made in (folder, self.scratch):
            made.mkdir()
        self.canary = folder / CANARY
        self.run = folder / "run"
        tree = small_sweep()
        tree["base"]["training_tokens"] = 5120
        tree["search"] |= {"trials": 4}
        saesweep.run(tree, run_dir=self.run)
        self.tree, self.begun = tree, folder.with_name(f"{folder.name}-begun")
        assert saesweep.run(tree, run_dir=self.begun, listeners=[_interrupt]).status == "interrupted"
        shutil.rmtree(self.run / "checkpoints")
        (self.run / "study.db").unlink()  # Optuna reads it; nothing here fuzzes SQLite
        self.sae = self.run / "best"
        self.scope = folder / "scope"
        self.scope.mkdir()
        eye = np.eye(4, dtype=np.float32)
        np.savez(self.scope / "params.npz", W_enc=eye, W_dec=eye, b_enc=eye[0], b_dec=eye[0], threshold=eye[0])
        made = folder / "peers"
        self.peers = [gemma_scope_2(made), sparsify(made / "sparsify"), llama_scope(made), qwen_scope(made)]
        self.peers += [
            dictionary_learning(made / kind, kind)
            for kind in ("AutoEncoder", "GatedAutoEncoder", "MatryoshkaBatchTopKSAE")
        ]
        self.experiment = folder / "experiment.yaml"
        self.experiment.write_text(dump_yaml(small_sweep()))

    def goes_through(self, file: Path, content: bytes, reader: Callable[[], object]) -> None:
        """Put a damaged file in place, read it, and put the whole one back.

        Raises:
            AssertionError: A file was touched, or code ran.
            Exception: The reader failed otherwise than by a `UserError`.
        """
        whole = file.read_bytes()
        file.write_bytes(content)
        before = tree_of(self.folder)
        tempfile.tempdir = str(self.scratch)
        try:
            with watched(self.scratch), contextlib.suppress(UserError):
                reader()
            assert tree_of(self.folder) == before
            assert not self.canary.exists()
            assert not list(self.scratch.iterdir())
        finally:
            tempfile.tempdir = None
            file.write_bytes(whole)


def _sae_readers(folder: Path) -> None:
    for read in (open_sae, lambda path: read_pretrained(str(path)), lambda path: read_cfg(str(path))):
        with contextlib.suppress(UserError):
            read(folder)


def cfg_json(draw: Any, world: World) -> None:
    """`cfg.json` of an exported SAE."""
    extra = draw(st.sampled_from(["", "", "hook_point", "l1_coefficient", "activation_fn_str", "activation_fn_kwargs"]))
    cfg = json.loads((world.sae / "cfg.json").read_text()) | ({extra: draw(VALUES)} if extra else {})
    content = damage_json(draw, json.dumps(cfg).encode())
    world.goes_through(world.sae / "cfg.json", content, lambda: _sae_readers(world.sae))


def runner_cfg_json(draw: Any, world: World) -> None:
    """`runner_cfg.json`, as the start of an experiment."""
    file = world.sae / "runner_cfg.json"

    def read() -> None:
        with contextlib.suppress(UserError):
            read_cfg(str(file))
        load_experiment({"name": "x", "base": {"from_cfg": str(file)}})

    world.goes_through(file, damage_json(draw, file.read_bytes()), read)


def safetensors_header(draw: Any, world: World) -> None:
    """Weights of an exported SAE; sometimes a pickle in their place."""
    file = world.sae / "sae_weights.safetensors"
    is_pickle = draw(st.integers(0, 19)) == 0
    content = pickle.dumps(Bomb(world.canary)) if is_pickle else damage_safetensors(draw, file.read_bytes())
    world.goes_through(file, content, lambda: _sae_readers(world.sae))


def params_npz(draw: Any, world: World) -> None:
    """A Gemma Scope file; sometimes with a pickle inside."""
    file = world.scope / "params.npz"
    content = file.read_bytes()
    if draw(st.integers(0, 9)) == 0:
        sink = io.BytesIO()
        np.savez(sink, W_dec=np.array([Bomb(world.canary)], dtype=object))
        content = sink.getvalue()
    if draw(st.integers(0, 9)):
        content = damage_bytes(draw, content)
    world.goes_through(file, content, lambda: _sae_readers(world.scope))


def peers(draw: Any, world: World) -> None:
    """SAEs of other tools: their configuration or their weights; sometimes a pickle in place of these."""
    peer = draw(st.sampled_from(world.peers))
    if peer.config is not None and draw(st.booleans()):
        file, content = peer.config, damage_json(draw, peer.config.read_bytes())
    else:
        file, whole = peer.weights, peer.weights.read_bytes()
        damage = damage_safetensors if file.suffix == ".safetensors" else damage_bytes
        content = pickle.dumps(Bomb(world.canary)) if draw(st.integers(0, 9)) == 0 else damage(draw, whole)
    world.goes_through(file, content, lambda: _sae_readers(peer.source))


def experiment_yaml(draw: Any, world: World) -> None:
    """An experiment file: its data, its text, tags that would run code, and `--set` overrides."""
    tree, canary = small_sweep(), world.canary
    tags = st.sampled_from(
        [
            f"!!python/object/apply:os.system ['touch {canary}']",
            f'!!python/object/new:exec ["{_CODE.format(path=canary)}"]',
            "!!python/name:os.system",
            "!!binary aGk=",
            "&a [*a]",
            "*nothing",
            "${env:HOME}",
            "!include /etc/passwd",
        ]
    )
    kind = draw(st.sampled_from(["data", "data", "text", "tag", "override"]))
    overrides: list[str] = []
    text = dump_yaml(tree)
    if kind == "data":
        text = json.dumps(damage_tree(draw, tree))
    elif kind == "tag":
        lines = text.splitlines()
        at = draw(st.integers(0, len(lines) - 1))
        lines[at] = f"{lines[at].partition(':')[0]}: {draw(tags)}"
        text = "\n".join(lines)
    elif kind == "override":
        paths = st.sampled_from(["base.lr", "space", "base.sae.k", "search.trials", "objective", "name", "base", "x.y"])
        values = tags | st.text(max_size=12) | VALUES.map(lambda value: json.dumps(value))
        overrides = [f"{draw(paths)}={draw(values)}" for _ in range(draw(st.integers(1, 2)))]
    content = text.encode("utf-8", "surrogatepass")
    if kind == "text":
        content = damage_bytes(draw, content)

    def read() -> None:
        load_experiment(world.experiment, overrides=overrides, env={"HOME": "/"}).parameters()

    world.goes_through(world.experiment, content, read)


def _read_run_as_people_do(world: World) -> None:
    for as_json in (False, True):
        show_leaderboard(read_leaderboard(world.run), io.StringIO(), as_json=as_json)
    report_page(read_run(world.run), features_link=None)


def leaderboard_json(draw: Any, world: World) -> None:
    """`leaderboard.json`, printed and reported."""
    file = world.run / "leaderboard.json"
    world.goes_through(file, damage_json(draw, file.read_bytes()), lambda: _read_run_as_people_do(world))


def events_jsonl(draw: Any, world: World) -> None:
    """`events.jsonl`, which the report reads."""
    file = world.run / "events.jsonl"
    world.goes_through(file, damage_json_lines(draw, file.read_bytes()), lambda: _read_run_as_people_do(world))


def metrics_jsonl(draw: Any, world: World) -> None:
    """A trial's `metrics.jsonl`, which the report reads."""
    file = world.run / "trials" / "0000" / "metrics.jsonl"
    world.goes_through(file, damage_json_lines(draw, file.read_bytes()), lambda: _read_run_as_people_do(world))


def resumed_run(draw: Any, world: World) -> None:
    """Any file that a run reads when it resumes."""
    names = ["run.json", "choices.json", "normalizers.json", "leaderboard.json", "trials/0000/metrics.jsonl"]
    file = world.begun / draw(st.sampled_from(names))
    damage = damage_json_lines if file.suffix == ".jsonl" else damage_json
    content = damage(draw, file.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        shutil.copytree(world.begun, run)
        (run / file.relative_to(world.begun)).write_bytes(content)
        with watched(run), contextlib.suppress(UserError):
            saesweep.run(world.tree, run_dir=run)


def provenance_json(draw: Any, world: World) -> None:
    """What lies beside an exported SAE, when it is published."""
    file = world.sae / draw(st.sampled_from(["provenance.json", "experiment.yaml", "cfg.json"]))
    whole = file.read_bytes()
    content = damage_bytes(draw, whole) if file.suffix == ".yaml" else damage_json(draw, whole)
    world.goes_through(file, content, lambda: push(dict(collect_run(world.run)), "a/b", dry_run=True))


TARGETS: dict[str, tuple[Callable[[Any, World], None], float]] = {
    "cfg.json": (cfg_json, 3),
    "runner_cfg.json": (runner_cfg_json, 2),
    "safetensors header": (safetensors_header, 3),
    "params.npz": (params_npz, 2),
    "SAEs of other tools": (peers, 3),
    "experiment YAML": (experiment_yaml, 3),
    "leaderboard.json": (leaderboard_json, 2),
    "events.jsonl": (events_jsonl, 2),
    "metrics.jsonl": (metrics_jsonl, 1),
    "published folder": (provenance_json, 2),
    "resumed run": (resumed_run, 0.1),
}
"""What is damaged, how, and its share of the inputs."""
