"""Probes of finished trials: what scikit-learn says of latents that are computed here from the exports and the model itself."""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from transformers import AutoModelForCausalLM

import saesweep
from saesweep.activations.labelled import LabelledTexts, read_labelled
from saesweep.at_hand import check_here
from saesweep.display.saved import read_leaderboard
from saesweep.errors import ExperimentError, UserError
from saesweep.evaluation import evaluate_saes
from saesweep.evaluation.sparse_probe import probe_score
from saesweep.experiment import load_experiment
from saesweep.report.data import read_run
from saesweep.report.page import report_page
from saesweep.saes import load_sae_folder
from saesweep.specs import ProbesSpec
from tests.models.tiny import BOS, WORDS, word_id
from tests.sweep.studies import llama_sweep, small_sweep

HOOK = "model.layers.0"
CONTEXT = 16


def write_texts(path: Path, endings: dict[str, list[str]], count: int, seed: int) -> None:
    """Write texts of random words; every other one ends with a word that tells its class, the others with any word."""
    rng = random.Random(seed)
    with path.open("w") as file:
        for _ in range(count):
            label = rng.choice(list(endings))
            last = rng.choice(endings[label] if rng.random() < 0.5 else WORDS)
            words = [*rng.choices(WORDS, k=rng.randint(1, CONTEXT + 4)), last]
            file.write(json.dumps({"text": " ".join(words), "label": label}) + "\n")


def tree_in(folder: Path) -> dict[str, Any]:
    """Return two sparsities, with a task of two classes and one of three, whose test texts are a split of their own."""
    tree = llama_sweep(folder, "probed", hook_name=HOOK, sae={"architecture": "topk", "d_sae": 64})
    write_texts(folder / "two.jsonl", {"a": ["w3"], "b": ["w7"]}, 260, seed=1)
    (folder / "three").mkdir()
    for name, count in (("train", 240), ("test", 70)):
        write_texts(folder / "three" / f"{name}.jsonl", {"x": ["w1"], "y": ["w2"], "z": ["w4"]}, count, seed=count)
    tasks = [
        {"name": "two", "dataset_path": str(folder / "two.jsonl"), "max_train": 130},
        {"name": "three", "dataset_path": str(folder / "three"), "test_split": "test"},
    ]
    tree["base"]["training_tokens"] = 4096
    tree["space"] = {"sae.k": {"choice": [2, 8]}}
    tree["evaluation"]["probes"] = {"tasks": tasks, "ks": [1, 2]}
    return tree


@dataclass(frozen=True)
class Run:
    tree: dict[str, Any]
    folder: Path
    result: saesweep.Result


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("probes")
    tree = tree_in(folder)
    return Run(tree, folder, saesweep.run(tree, run_dir=folder / "run"))


def latents_of(folder: Path, sae: Path, texts: Sequence[str], pooling: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return latents and activations of texts, one text at a time: TopK by its formula, on what transformers returns."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    exported = load_sae_folder(sae)
    weights = {name: tensor.double() for name, tensor in exported.tensors.items()}
    latents, activations = [], []
    for text in texts:
        ids = [BOS, *[word_id(int(word[1:])) for word in text.split()][-(CONTEXT - 1) :]]
        with torch.no_grad():
            x_TD = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0].double()
        x_TD = x_TD[-1:] if pooling == "last" else x_TD[1:]
        pre_TF = (x_TD - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
        top = pre_TF.topk(exported.cfg["k"], dim=1)
        acts_TF = torch.zeros_like(pre_TF).scatter_(1, top.indices, top.values.relu())
        latents.append(acts_TF.mean(0))
        activations.append(x_TD.mean(0))
    return torch.stack(latents).numpy(), torch.stack(activations).numpy()


def best_scores(train: Sequence[Any], test: Sequence[Any], k: int | None) -> tuple[float, float]:
    """Return accuracy and AUC of scikit-learn's grid search; `train` and `test` are (rows, labels), classes by turns."""
    (x, y), (x_test, y_test) = train, test
    if k is not None:
        active = np.abs(x).sum(0) / ((x != 0).sum(0) + 1e-6) + 1e-6
        chosen = np.argsort(-np.abs((x / active)[y].mean(0) - (x / active)[~y].mean(0)), kind="stable")[:k]
        x, x_test = x[:, chosen], x_test[:, chosen]
    kept = len(x) - min(len(x) // 5, 100)
    once = [(np.arange(kept), np.arange(kept, len(x)))]
    folds = StratifiedKFold(6, shuffle=True, random_state=42) if len(x) < 128 else once
    grid = {"C": np.logspace(5, -5, 10)}
    search = GridSearchCV(LogisticRegression(max_iter=1000), grid, scoring="roc_auc", cv=folds)
    search.fit(x.astype(np.float32), y)
    x_test = x_test.astype(np.float32)
    return float((search.predict(x_test) == y_test).mean()), float(
        roc_auc_score(y_test, search.predict_proba(x_test)[:, 1])
    )


def test_few_texts_are_cross_validated() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2 == 1
    rows = (rng.normal(size=(60, 2)) + labels[:, None]).astype(np.float32)
    found = probe_score(rows, labels, rows, labels)
    accuracy, auc = best_scores((rows, labels), (rows, labels), None)
    assert 0.6 < accuracy < 1
    assert (found.accuracy, found.auc) == (pytest.approx(accuracy), pytest.approx(auc))


def expected(rows: Sequence[NDArray[Any]], task: LabelledTexts, k: int | None) -> tuple[float, float]:
    """Return the mean of accuracy and AUC over the probes of a task, given latents (or activations) of its texts."""
    each = iter(rows)
    train, test = ([[next(each) for _ in texts] for texts in part] for part in (task.train, task.test))

    def by_turns(part: list[list[Any]], positive: int) -> tuple[NDArray[Any], NDArray[Any]]:
        others = [texts for index, texts in enumerate(part) if index != positive]
        negatives = [row for rows in zip(*others, strict=True) for row in rows][: len(part[positive])]
        paired = [row for pair in zip(negatives, part[positive], strict=True) for row in pair]
        return np.stack(paired), np.arange(len(paired)) % 2 == 1

    positives = [1] if len(task.classes) == 2 else range(len(task.classes))
    scores = [best_scores(by_turns(train, own), by_turns(test, own), k) for own in positives]
    accuracy, auc = np.mean(scores, axis=0)
    return accuracy, auc


def check(metrics: dict[str, float], folder: Path, sae: Path, tree: dict[str, Any], pooling: str) -> None:
    """Compare every figure of an SAE."""
    of_k2 = []
    for number, spec in enumerate(ProbesSpec.model_validate(tree["evaluation"]["probes"]).tasks):
        task = read_labelled(spec, f"evaluation.probes.tasks[{number}]", seed=42)
        latents, activations = latents_of(folder, sae, task.texts, pooling)
        for k in (1, 2):
            accuracy, auc = expected(latents, task, k)
            assert metrics[f"probe_accuracy_{task.name}_k{k}"] == pytest.approx(accuracy, abs=1e-9)
            assert metrics[f"probe_auc_{task.name}_k{k}"] == pytest.approx(auc, abs=1e-9)
        of_k2.append(accuracy)
        of_all, _ = expected(activations, task, None)
        # Texts of other batches differ in the last bits of their activations: the grid's best two strengths of regularisation may
        # change places, and with them the few texts that they disagree about.
        few_texts = 3 / sum(len(texts) for texts in task.test)
        assert metrics[f"probe_accuracy_{task.name}_activations"] == pytest.approx(of_all, abs=few_texts)
    assert metrics["probe_accuracy"] == pytest.approx(sum(of_k2) / len(of_k2))


def test_accuracy_is_that_of_scikit_learn_on_the_same_latents(run: Run) -> None:
    row = run.result.rows[0]
    assert row.metrics["probe_accuracy_two_activations"] > 0.6  # there is something to be found
    sae = run.folder / "run" / "trials" / f"{row.number:04d}" / "sae"
    check(row.metrics, run.folder, sae, run.tree, "last")


def test_the_mean_over_tokens_in_eval(run: Run) -> None:
    best = run.folder / "run" / "best"
    tree = {"evaluation": {"probes": {"tasks": run.tree["evaluation"]["probes"]["tasks"][:1]}}}
    changes = [f"evaluation.probes.tasks={json.dumps(tree['evaluation']['probes']['tasks'])}"]
    changes += ["evaluation.probes.pooling=mean"]
    check(evaluate_saes([best], overrides=changes).saes[0].metrics, run.folder, best, tree, "mean")


def test_it_is_shown_and_decides(run: Run, tmp_path: Path) -> None:
    assert "probe_accuracy" in read_leaderboard(run.folder / "run").metrics
    assert {"probe_accuracy", "probe_auc_two_k1"} <= set(run.result.to_dataframe().columns)
    assert "probe accuracy" in report_page(read_run(run.folder / "run"), features_link=None)
    assert "probe_accuracy" not in run.result.test_metrics  # every trial was measured on the same texts
    tree = {**run.tree, "objective": {"maximize": "probe_accuracy", "subject_to": {"probe_auc": {"min": 0}}}}
    tree["search"] = {"sampler": "grid", "rungs": ["50%"], "min_rung_steps": 5}
    probes = {**run.tree["evaluation"]["probes"], "ks": [2], "tasks": run.tree["evaluation"]["probes"]["tasks"][:1]}
    reference_place = str(run.folder / "run" / "best")
    tree["evaluation"] = {**tree["evaluation"], "probes": probes, "references": [reference_place]}
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    best = next(row for row in result.rows if row.number == result.best)
    assert best.metrics["probe_accuracy"] == max(row.metrics["probe_accuracy"] for row in result.rows)
    (reference,) = read_leaderboard(tmp_path / "run").references
    own = next(row.metrics for row in run.result.rows if row.number == run.result.best)
    assert reference.metrics["probe_accuracy_two_k2"] == own["probe_accuracy_two_k2"]


@pytest.mark.parametrize(
    ("probes", "said"),
    [
        ({"k": 5}, r"evaluation\.probes\.k: 5 is none of ks \(1, 2\)"),
        ({"ks": [2, 1]}, r"evaluation\.probes\.ks: \[2, 1\] must be numbers of latents"),
        ({"ks": [1, 65]}, r"evaluation\.probes\.ks: probes take up to 65 latents, and an SAE of this space has 64"),
        ({"tasks": []}, r"evaluation\.probes\.tasks: is empty"),
        ({"task": []}, "unknown key 'task'; did you mean 'tasks'"),
        ({"tasks": [{"name": "a b", "dataset_path": "x"}]}, r"tasks\[0\]\.name: 'a b' becomes part of a metric's name"),
        (
            {"tasks": [{"name": "a", "dataset_path": "x", "test_split": "test", "test_fraction": 0.5}]},
            r"tasks\[0\]\.test_fraction: is given beside test_split",
        ),
        ({"tasks": [{"name": "a", "dataset_path": "x"}] * 2}, "two tasks are called 'a'"),
    ],
)
def test_mistakes_in_the_file(run: Run, probes: dict[str, Any], said: str) -> None:
    tree = {**run.tree, "evaluation": {"probes": {**run.tree["evaluation"]["probes"], **probes}}}
    with pytest.raises(ExperimentError, match=said):
        load_experiment(tree)


def test_what_has_no_texts_or_no_package(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {**run.tree, "evaluation": {}, "objective": {"maximize": "probe_accuracy"}}
    with pytest.raises(ExperimentError, match=r"objective\.maximize: probe_accuracy is measured on labelled texts"):
        load_experiment(tree)
    synthetic = small_sweep() | {"evaluation": {"probes": run.tree["evaluation"]["probes"]}}
    with pytest.raises(ExperimentError, match=r"evaluation\.probes: reads texts through a language model"):
        load_experiment(synthetic)
    tree = {**run.tree, "evaluation": {"probes": {"tasks": [{"name": "a", "dataset_path": "./no.jsonl"}]}}}
    with pytest.raises(ExperimentError, match=r"tasks\[0\]\.dataset_path: '\./no\.jsonl' does not exist"):
        load_experiment(tree, also=(check_here,))
    assert load_experiment(run.tree, overrides=["evaluation.probes=null"]).spec.evaluation.probes is None
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        ExperimentError, match=r"evaluation\.probes: takes scikit-learn.*pip install 'saesweep\[probes\]'"
    ):
        load_experiment(run.tree, also=(check_here,))
    with pytest.raises(UserError, match=r"pip install 'saesweep\[probes\]'"):
        evaluate_saes([run.folder / "run" / "best"])
