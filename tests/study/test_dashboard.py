"""A run's study opens in optuna-dashboard as it is: the real server, asked what its pages ask."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

import saesweep
from saesweep.driver import Result
from tests.sweep.studies import small_sweep

START_SECONDS = 120.0


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    tree = small_sweep()
    tree["base"]["training_tokens"] = 5120
    tree["search"]["trials"] = 8
    tree["objective"] = {"maximize": "explained_variance", "subject_to": {"l0": {"max": 24}}}
    return saesweep.run(tree, run_dir=tmp_path_factory.mktemp("dashboard") / "run")


@pytest.fixture(scope="module")
def address(result: Result) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-c",
        "from optuna_dashboard._cli import main; main()",
        f"sqlite:///{result.run_dir}/study.db",
    ]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            yield _ready(f"http://127.0.0.1:{port}", server)
        finally:
            server.terminate()
            server.communicate(timeout=30)


def _ready(url: str, server: "subprocess.Popen[str]") -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, server.communicate()[0]
        try:
            with urlopen(f"{url}/api/studies", timeout=10):
                return url
        except URLError:
            time.sleep(0.2)
    raise AssertionError("the dashboard does not answer")


def ask(address: str, path: str) -> Any:
    with urlopen(address + path, timeout=60) as answer:
        return json.load(answer)


def test_the_dashboard_lists_the_study_and_every_trial(address: str, result: Result) -> None:
    (summary,) = ask(address, "/api/studies")["study_summaries"]
    assert summary["study_name"] == "tiny"
    assert summary["directions"] == ["maximize"]
    detail = ask(address, f"/api/studies/{summary['study_id']}?after=0")
    trials = {trial["number"]: trial for trial in detail["trials"]}
    rows = {row.number: row for row in result.rows}
    assert set(trials) == set(rows)
    for number, row in rows.items():
        trial = trials[number]
        assert trial["state"] == {"complete": "Complete", "pruned": "Pruned"}[row.status]
        shown = {param["name"]: param["param_external_value"] for param in trial["params"]}
        assert set(shown) == set(row.params)
        assert shown["sae.architecture"] == row.params["sae.architecture"]
        if row.status == "complete":
            assert float(trial["values"][0]) == pytest.approx(row.metrics["explained_variance"])
            # optuna-dashboard 0.21 does not read the named constraints of Optuna 5; it shows the metrics beside them.
            attrs = {attr["key"]: attr["value"] for attr in trial["user_attrs"]}
            assert float(attrs["l0"]) == pytest.approx(row.metrics["l0"])
            assert float(attrs["mse"]) == pytest.approx(row.metrics["mse"])
            assert attrs["state"] == "complete"
    assert {"sae.architecture", "lr"} <= {found["name"] for found in detail["union_search_space"]}


def test_values_have_names_and_trials_attributes_to_sort_by(address: str, result: Result) -> None:
    (summary,) = ask(address, "/api/studies")["study_summaries"]
    detail = ask(address, f"/api/studies/{summary['study_id']}?after=0")
    assert detail["objective_names"] == ["explained_variance"]
    sortable = {attr["key"] for attr in detail["union_user_attrs"] if attr["sortable"]}
    assert {"l0", "mse", "explained_variance", "tokens"} <= sortable
    states = {t["number"]: {a["key"]: a["value"] for a in t["user_attrs"]} for t in detail["trials"]}
    pruned = [row for row in result.rows if row.status == "pruned"]
    assert pruned
    for row in pruned:
        assert (states[row.number]["state"], states[row.number]["reason"]) == ("pruned", row.reason)
        assert "expected explained_variance" in states[row.number]


def test_its_own_analyses_work(address: str, result: Result) -> None:
    (summary,) = ask(address, "/api/studies")["study_summaries"]
    found = ask(address, f"/api/studies/{summary['study_id']}/param_importances")["param_importances"]
    assert {item["name"] for item in found[0]} <= {path for row in result.rows for path in row.params}
    with urlopen(f"{address}/dashboard", timeout=60) as page:
        assert b"<html" in page.read().lower()
