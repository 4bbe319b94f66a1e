"""`saesweep export`: what is copied, and what is never written over."""

from __future__ import annotations

import pytest

from saesweep.cli import main

FILES = ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors", "runner_cfg.json", "provenance.json")


@pytest.fixture
def run(tmp_path):
    for folder in ("trials/0003/sae", "trials/0011/sae", "best"):
        path = tmp_path / "run" / folder
        path.mkdir(parents=True)
        for name in FILES:
            (path / name).write_bytes(f"{folder} {name}".encode())
    (tmp_path / "run" / "trials" / "0007").mkdir()
    (tmp_path / "run" / "trials" / "0007" / "trial.json").write_text("{}")
    return tmp_path / "run"


def export(run, target, *more):
    return main(["export", str(run), "--to", str(target), *more])


def contents(folder):
    return {path.name: path.read_bytes().decode() for path in folder.iterdir()}


def test_copies_one_trial_or_the_best(run, tmp_path, capsys):
    assert export(run, tmp_path / "a" / "sae", "--trial", "3") == 0
    assert contents(tmp_path / "a" / "sae") == {name: f"trials/0003/sae {name}" for name in FILES}
    assert export(run, tmp_path / "b") == 0
    assert contents(tmp_path / "b") == {name: f"best {name}" for name in FILES}
    assert f"copied {run / 'best'} to {tmp_path / 'b'}" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "run"]


@pytest.mark.parametrize("trial", ["7", "99", "-3"])
def test_an_unknown_trial_lists_the_available_ones(run, tmp_path, capsys, trial):
    assert export(run, tmp_path / "a", f"--trial={trial}") == 2
    assert f"trial {trial} has no exported SAE; exported so far: 3, 11" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_never_overwrites_without_force(run, tmp_path, capsys):
    target = tmp_path / "a"
    assert export(run, target, "--trial", "3") == 0
    (target / "experiment.yaml").write_text("an older one's")
    assert export(run, target, "--trial", "11") == 2
    assert "replace it with --force" in capsys.readouterr().err
    assert contents(target)["cfg.json"] == "trials/0003/sae cfg.json"
    assert export(run, target, "--trial", "11", "--force") == 0
    assert contents(target) == {name: f"trials/0011/sae {name}" for name in FILES}


def test_force_replaces_nothing_but_an_exported_sae(run, tmp_path, capsys):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    assert export(run, home, "--force") == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert contents(home) == {"thesis.tex": "years of work"}
    file = tmp_path / "file"
    file.write_text("x")
    assert export(run, file, "--force") == 2
    assert file.read_text() == "x"
    assert export(run, run / "best", "--force") == 2
    assert "is the SAE itself" in capsys.readouterr().err
    assert contents(run / "best")["cfg.json"] == "best cfg.json"


def test_fills_an_empty_folder_and_what_a_link_points_to(run, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert export(run, tmp_path / "link") == 0
    assert (tmp_path / "link").is_symlink()
    assert set(contents(tmp_path / "real")) == set(FILES)


def test_a_run_without_exports_says_so(tmp_path, capsys):
    assert export(tmp_path / "nowhere", tmp_path / "a") == 2
    (tmp_path / "run").mkdir()
    assert export(tmp_path / "run", tmp_path / "a") == 2
    (tmp_path / "run" / "run.json").write_text("{}")
    assert export(tmp_path / "run", tmp_path / "a") == 2
    assert export(tmp_path / "run", tmp_path / "a", "--trial", "0") == 2
    first, second, third, fourth = capsys.readouterr().err.splitlines()
    assert "no such run directory" in first
    assert "is no run directory" in second
    assert "no exported SAE yet" in third
    assert "none is exported yet" in fourth


@pytest.fixture
def store():
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def stored(store, folder):
    return {path.rpartition("/")[2]: store.cat_file(path).decode() for path in store.ls(folder, detail=False)}


def test_a_url_names_a_folder_of_a_store(run, store, capsys):
    assert export(run, "memory://saes/mine", "--trial", "3") == 0
    assert stored(store, "/saes/mine") == {name: f"trials/0003/sae {name}" for name in FILES}
    assert f"copied {run / 'trials/0003/sae'} to memory://saes/mine" in capsys.readouterr().out
    assert export(run, "memory://saes/mine") == 2
    assert "memory://saes/mine: holds an exported SAE already" in capsys.readouterr().err
    store.pipe_file("/saes/mine/experiment.yaml", b"an older one's")
    assert export(run, "memory://saes/mine", "--force") == 0
    assert stored(store, "/saes/mine") == {name: f"best {name}" for name in FILES}
    store.pipe_file("/saes/thesis/thesis.tex", b"years of work")
    assert export(run, "memory://saes/thesis", "--force") == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert stored(store, "/saes/thesis") == {"thesis.tex": "years of work"}


def test_an_upload_that_is_cut_off_leaves_nothing_that_loads(run, store, monkeypatch, capsys):
    assert export(run, "memory://saes/mine", "--trial", "3") == 0
    put = type(store).put_file

    def cut_off(self, source, target, **more):
        if target.endswith("sparsity.safetensors"):
            raise OSError("the connection was reset")
        return put(self, source, target, **more)

    monkeypatch.setattr(type(store), "put_file", cut_off)
    assert export(run, "memory://saes/mine", "--force") == 2
    assert "memory://saes/mine: the connection was reset; check the address" in capsys.readouterr().err
    assert "cfg.json" not in stored(store, "/saes/mine")
    monkeypatch.undo()
    assert export(run, "memory://saes/mine", "--force") == 0
    assert stored(store, "/saes/mine") == {name: f"best {name}" for name in FILES}


@pytest.mark.parametrize("url", ["s4://bucket/sae", "abfs://container/sae"])
def test_a_store_that_cannot_be_reached_is_one_message(run, url, capsys):
    assert export(run, url) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{url}: ")
