"""Snapshots in training form: where they lie, what is in them, and that a resumed run writes the same ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import saesweep
from saesweep.errors import ExperimentError, UserError
from saesweep.events import SnapshotSaved
from saesweep.experiment import load_experiment
from tests.sweep.studies import snapshot

FILES = {
    "cfg.json",
    "sae_weights.safetensors",
    "sparsity.safetensors",
    "activation_scaler.json",
    "runner_cfg.json",
    "experiment.yaml",
}


def one_run(tree: dict[str, Any], architecture: str = "batchtopk", **base: Any) -> dict[str, Any]:
    sae = {**tree["base"]["sae"], "architecture": architecture, **({"k": 8} if "topk" in architecture else {})}
    return {
        "name": "one",
        "base": {**tree["base"], "sae": sae, "n_checkpoints": 3, "save_final_checkpoint": True, **base},
        "space": {},
        "objective": {"maximize": "explained_variance"},
        "evaluation": tree["evaluation"],
    }


def test_snapshots_are_evenly_spaced_and_whole(tree: dict[str, Any], tmp_path: Path) -> None:
    events: list[Any] = []
    saesweep.run(one_run(tree), run_dir=tmp_path / "run", listeners=[events.append])
    folders = sorted((tmp_path / "run" / "trials" / "0000" / "snapshots").iterdir())
    assert [f.name for f in folders] == ["2560", "5120", "7680", "final_10240"]
    assert all({p.name for p in f.iterdir()} == FILES for f in folders)
    saved = [e for e in events if isinstance(e, SnapshotSaved)]
    assert [(e.tokens, e.is_final) for e in saved] == [(2560, False), (5120, False), (7680, False), (10240, True)]
    assert {Path(e.path) for e in saved} == set(folders)


def test_the_final_snapshot_folds_to_the_exported_sae(tree: dict[str, Any], tmp_path: Path) -> None:
    """What `best/` has is the last snapshot with its scale and decoder norms folded in, threshold included."""
    saesweep.run(one_run(tree), run_dir=tmp_path / "run")
    folder = tmp_path / "run" / "trials" / "0000" / "snapshots" / "final_10240"
    weights = load_file(folder / "sae_weights.safetensors")
    exported = saesweep.load_sae_folder(tmp_path / "run" / "best").tensors
    scale = json.loads((folder / "activation_scaler.json").read_text())["scaling_factor"]
    norm_F = weights["W_dec"].norm(dim=-1)
    # Latents of the export are those of training over the scale; the decoder's rows are unit vectors.
    torch.testing.assert_close(weights["W_enc"] * norm_F, exported["W_enc"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(weights["W_dec"] / norm_F[:, None], exported["W_dec"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        (weights["topk_threshold"] / scale).float().expand(128), exported["threshold"], rtol=1e-6, atol=0
    )
    cfg = json.loads((folder / "cfg.json").read_text())
    assert (cfg["architecture"], cfg["normalize_activations"]) == ("batchtopk", "expected_average_only_in")


def test_a_sweep_keeps_them_and_a_killed_one_writes_the_same(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saesweep.cohort import Cohort

    tree["base"] |= {"n_checkpoints": 2, "checkpoint_path": str(tmp_path / "kept")}
    tree["search"]["trials"] = 4
    saesweep.run(tree, run_dir=tmp_path / "run")
    whole = contents(tmp_path / "kept")
    assert len({path.split("/")[0] for path in whole if "/" in path}) > 1
    undisturbed = snapshot(tmp_path / "run")

    class Killed(Exception):
        pass

    steps = 0
    train_step = Cohort.train_step

    def dies_once(self: Cohort, batch: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 22:
            raise Killed
        train_step(self, batch)

    monkeypatch.setattr(Cohort, "train_step", dies_once)
    tree["base"]["checkpoint_path"] = str(tmp_path / "again")
    with pytest.raises(Killed):
        saesweep.run(tree, run_dir=tmp_path / "second")
    saesweep.run(tree, run_dir=tmp_path / "second")
    assert contents(tmp_path / "again") == whole
    assert snapshot(tmp_path / "second")["weights"] == undisturbed["weights"]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file but those that hold the folder's own path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("saesweep.json", "experiment.yaml", "runner_cfg.json")
    }


def test_replicates_lie_side_by_side(tree: dict[str, Any], tmp_path: Path) -> None:
    run = one_run(tree, n_checkpoints=1, save_final_checkpoint=False)
    saesweep.run({**run, "search": {"replicates": 2}}, run_dir=tmp_path / "run")
    folder = tmp_path / "run" / "trials" / "0000" / "snapshots"
    first, second = (load_file(folder / name / "sae_weights.safetensors") for name in ("5120", "5120-replicate-1"))
    assert not torch.equal(first["W_dec"], second["W_dec"])


@pytest.mark.parametrize("architecture", ["batchtopk", "topk", "jumprelu", "standard", "gated"])
def test_training_continues_from_a_snapshot(architecture: str, tree: dict[str, Any], tmp_path: Path) -> None:
    """The weights read back are those saved, whatever scaled them; its configuration is the trial's, to the letter."""
    from saesweep.saes import architecture_for, pretrained_params, read_pretrained
    from saesweep.saes.normalize import Normalizer

    run = one_run(tree, architecture, training_tokens=5120)
    saesweep.run(run, run_dir=tmp_path / "run")
    folder = tmp_path / "run" / "trials" / "0000" / "snapshots" / "2560"
    again = load_experiment({"name": "again", "base": {"from_cfg": str(folder), "from_pretrained_path": str(folder)}})
    original = load_experiment(run).resolve({})
    assert again.resolve({}) == original.model_copy(update={"from_pretrained_path": str(folder)})
    scaler = json.loads((folder / "activation_scaler.json").read_text())
    found = pretrained_params(
        read_pretrained(str(folder)),
        architecture_for(original.sae),
        Normalizer(mode="expected_average_only_in", scale=scaler["scaling_factor"]),
        architecture_for(original.sae).init(torch.Generator()),
    )
    saved = load_file(folder / "sae_weights.safetensors")
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, saved[name], rtol=1e-6, atol=1e-8)


def test_two_runs_do_not_share_a_checkpoint_path(tree: dict[str, Any], tmp_path: Path) -> None:
    brief = one_run(tree, training_tokens=2560, checkpoint_path=str(tmp_path / "kept"))
    saesweep.run(brief, run_dir=tmp_path / "first")
    with pytest.raises(UserError, match=r"base.checkpoint_path: .*kept holds the snapshots of the run in .*first"):
        saesweep.run(brief, run_dir=tmp_path / "second")
    assert not (tmp_path / "second" / "trials").exists()
    assert saesweep.run(brief, run_dir=tmp_path / "first").status == "already complete"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_checkpoints": 80}, "base.n_checkpoints: 80 snapshots need more steps between them than the 40 of the run"),
        (
            {"n_checkpoints": 0, "save_final_checkpoint": False, "checkpoint_path": "x"},
            "base.checkpoint_path: says where",
        ),
    ],
)
def test_settings_that_cannot_be_met(fields: dict[str, Any], message: str, tree: dict[str, Any]) -> None:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(one_run(tree, **fields))
    assert message in str(caught.value)
