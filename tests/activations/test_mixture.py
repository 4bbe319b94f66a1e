"""Several datasets in one stream: shares of tokens, resuming, held-out parts, and whose mistake it is."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import saesweep
from saesweep.activations import check_source, open_source
from saesweep.activations.cache.manifest import source_fields
from saesweep.activations.mixture import MixedSource
from saesweep.activations.shares import Shares
from saesweep.activations.split import TrainDocuments, split_documents
from saesweep.activations.texts import Text
from saesweep.activations.tokens import TokenSource
from saesweep.errors import ExperimentError, UserError
from saesweep.evaluation import evaluate_saes
from saesweep.experiment import load_experiment
from saesweep.experiment.from_cfg import read_cfg
from saesweep.experiment.saelens_cfg import run_of_metadata
from saesweep.publish.card import model_card, read_entry
from saesweep.saes import open_sae
from saesweep.specs.experiment import EvaluationSpec
from tests.models.tiny import WORDS, run_of, word_id

from .fakes import TOKENS_PER_DOCUMENT, ids_of, map_documents, numbered, packing_of, stream_documents, stream_of

SIZE = 8
FIRST, SECOND = WORDS[:60], WORDS[60:]
"""Words of the first dataset, and of the second."""
HOOK = "model.layers.1"


def text(file: Path, words: list[str], documents: int, length: int = 40) -> str:
    rng = random.Random(0)
    file.write_text("\n".join(" ".join(rng.choices(words, k=length)) for _ in range(documents)))
    return str(file)


@pytest.fixture
def tree(llama: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "name": "mixed",
        "base": {
            "model_name": str(llama),
            "hook_name": HOOK,
            "datasets": [
                {"dataset_path": text(tmp_path / "few.txt", FIRST, 15), "weight": 1},
                {"dataset_path": text(tmp_path / "many.txt", SECOND, 200, 11), "weight": 3},
            ],
            "context_size": 16,
            "training_tokens": 1024,
            "train_batch_size_tokens": 64,
            "store_batch_size_prompts": 8,
            "device": "cpu",
            "sae": {"architecture": "topk", "d_sae": 64, "k": 4},
        },
        "space": {},
        "evaluation": {"select_tokens": 320, "test_tokens": 320},
    }


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.93, 0.07), (0.2, 0.3, 0.5), (0.01, 0.3, 0.01, 0.4, 0.28)])
def test_every_prefix_holds_each_dataset_within_a_context_of_its_share(shares: tuple[float, ...]) -> None:
    chooser, rng, total = Shares(shares, SIZE), random.Random(1), 0
    for _ in range(3000):
        chosen = chooser.choose()
        context = [0] * SIZE if rng.random() < 0.8 else [0, 0, 0, ~0, ~0, ~0, ~0, ~0]  # half of it is padding
        chooser.note(chosen, context)
        total += sum(token >= 0 for token in context)
        assert all(abs(taken - share * total) <= SIZE for taken, share in zip(chooser.taken, shares, strict=True))


def sources(small: int = 12) -> MixedSource:
    """A small dataset of long documents and a large stream of short ones; no token id occurs in both."""
    first, second = numbered([296] * small), [[t + 10**6 for t in d] for d in numbered([5] * 4000)]  # type: ignore[operator]
    parts = (map_documents(first), stream_documents(second))
    return MixedSource(
        [TokenSource(TrainDocuments(part, 3, 0), None, packing_of(SIZE)) for part in parts], (0.3, 0.7), SIZE
    )


def test_shares_hold_when_one_dataset_begins_again_and_every_context_is_of_one_dataset() -> None:
    mixed = sources()
    contexts = mixed.take(3000)
    is_first = [{token < 10**6 for token in context} for context in contexts]
    assert all(len(kinds) == 1 for kinds in is_first)
    assert abs(sum(True in kinds for kinds in is_first) / len(contexts) - 0.3) < 0.01
    assert mixed.epoch == 2  # 900 contexts of the small one, which has 444
    documents = [
        [c[0] // TOKENS_PER_DOCUMENT for c in contexts if c[0] < 10**6][part : part + 444] for part in (0, 444)
    ]
    assert documents[0] != documents[1]
    assert sorted(documents[0]) == sorted(documents[1])
    mixed.close()


def test_served_activations_are_in_shares_of_tokens() -> None:
    stream = stream_of(map_documents([]), source=sources())
    served = ids_of(stream, 400)
    assert abs(sum(token < 10**6 for token in served) / len(served) - 0.3) < 0.01
    stream.close()


def test_contexts_continue_from_any_state() -> None:
    mixed, states, contexts = sources(2), [], []
    for _ in range(400):  # the small dataset is read several times
        states.append(json.loads(json.dumps(mixed.state())))
        contexts += mixed.take(1)
    mixed.close()
    for done in (0, 1, 7, 80, 249, 390):
        again = sources(2)
        again.load_state(states[done])
        assert again.take(5) == contexts[done : done + 5]
        again.close()


def test_any_first_contexts_of_a_held_out_part_are_in_shares_and_no_held_out_document_trains() -> None:
    texts = [
        Text(map_documents(numbered([8 + n % 17 for n in range(400)])), packing_of(SIZE), 0.25),
        Text(
            stream_documents([[t + 10**6 for t in d] for d in numbered([20] * 900)]),  # type: ignore[operator]
            packing_of(SIZE),
            0.75,
        ),
    ]
    split = split_documents(texts, None, select_tokens=800, test_tokens=400, seed=5)
    assert len(split.select_NT) == 100
    for part in (split.select_NT, split.test_NT):
        for n in (4, 8, 20, 40):
            assert abs(int((part[:n, 0] < 10**6).sum()) - 0.25 * n) <= 1
    held = {int(t) // TOKENS_PER_DOCUMENT for t in torch.cat([split.select_NT, split.test_NT]).flatten()}
    for train in split.train:
        assert not held & {d[0] // TOKENS_PER_DOCUMENT for d in train.iterate(0, 0) if isinstance(d, list)}


def test_batches_continue_bit_for_bit_and_the_held_out_parts_are_of_the_mixture(tree: dict[str, Any]) -> None:
    experiment = load_experiment(tree)
    run, evaluation = experiment.base_run(), experiment.spec.evaluation
    whole = open_source(run, evaluation, [HOOK])
    for part in (whole.select, whole.test):
        assert part.tokens_NT is not None
        words = part.tokens_NT[part.tokens_NT >= word_id(0)]
        assert abs((words < word_id(60)).float().mean() - 0.25) < 0.05
    states, batches = [], []
    for _ in range(40):
        states.append(json.loads(json.dumps(whole.stream.state())))
        batches.append(whole.stream.next_batch()[HOOK])
    assert whole.stream.epoch >= 1
    for done in (0, 9, 36):
        again = open_source(run, evaluation, [HOOK]).stream
        again.load_state(states[done])
        assert all(torch.equal(again.next_batch()[HOOK], batches[n]) for n in range(done, done + 3))
        again.close()
    whole.close()


def test_the_preflight_names_the_dataset_that_is_read_several_times(tree: dict[str, Any]) -> None:
    run = load_experiment(tree).base_run()
    facts = check_source(run, EvaluationSpec(select_tokens=320, test_tokens=320), [HOOK], training_tokens=8192)
    few, many = facts.warnings
    assert "few.txt has about 440 activations to train on, so its share of 0.25 of 8192 take about 4.7 epochs" in few
    assert "many.txt has about 1720" in many
    assert "3.6 epochs" in many
    with pytest.raises(UserError, match=r"few.txt has about 600 tokens, not more than its share of 0.25 of select"):
        check_source(run, EvaluationSpec(select_tokens=3000, test_tokens=320), [HOOK], training_tokens=64)


def test_a_whole_run_says_what_it_was_trained_on(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tree["base"]["datasets"]
    many = entries[1]["dataset_path"]
    monkeypatch.setenv("MANY", many)
    entries[1]["dataset_path"] = "${env:MANY}"
    run_dir = tmp_path / "run"
    assert saesweep.run(tree, run_dir=run_dir).status == "complete"
    assert many not in (run_dir / "experiment.yaml").read_text()
    metadata = json.loads((run_dir / "best" / "cfg.json").read_text())["metadata"]
    assert metadata["dataset_path"] == "${env:MANY}"  # the one with the largest weight, as it is written
    again = run_of_metadata(metadata)
    assert "dataset_path" not in again
    assert [entry["dataset_path"] for entry in again["datasets"]] == [entries[0]["dataset_path"], "${env:MANY}"]
    runner = json.loads((run_dir / "best" / "runner_cfg.json").read_text())
    assert runner["dataset_path"] == "${env:MANY}"
    assert "datasets" not in runner
    assert [entry["weight"] for entry in read_cfg(str(run_dir / "best")).base["datasets"]] == [1, 3]
    # What lies beside an SAE must not read variables.
    with pytest.raises(UserError, match=r"base\.datasets refer to environment variables"):
        evaluate_saes([run_dir / "best"])
    few = entries[0]["dataset_path"]
    other = evaluate_saes([run_dir / "best"], overrides=[f"base.dataset_path={few}", "base.datasets=[]"])
    assert other.dataset == few
    assert any(f"trained on {few} too" in note for note in other.notes)
    card = model_card("me/saes", [read_entry("best", open_sae(run_dir / "best"), run_dir / "best")])
    assert f"dataset {few} (weight 1); ${{env:MANY}} (weight 3)" in card


def test_the_manifest_of_a_cache_has_the_mixture_where_there_is_one(tree: dict[str, Any]) -> None:
    run = load_experiment(tree).base_run()
    assert [entry["weight"] for entry in source_fields(run, EvaluationSpec())["datasets"]] == [1, 3]
    assert "datasets" not in source_fields(run_of(dataset_path="a.txt"), EvaluationSpec())


def warnings_of(tree: dict[str, Any]) -> tuple[str, ...]:
    run = load_experiment(tree).base_run()
    return check_source(run, EvaluationSpec(select_tokens=64, test_tokens=64), [HOOK], training_tokens=64).warnings


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset_path": "nowhere.txt"}, r"base\.datasets\[1\]\.dataset_path: 'nowhere.txt' does not exist"),
        ({"column_name": "body"}, r"base\.datasets\[1\]\.column_name: .* has no column 'body'"),
        ({"weight": 0}, r"base\.datasets\[1\]\.weight: must be above 0, not 0"),
        ({"wieght": 1}, r"base\.datasets\[1\]\.wieght: unknown key 'wieght'; did you mean 'weight'"),
        ({"dataset_path": "builtin:synthetic"}, r"base\.datasets: builtin:synthetic has no text to mix"),
        ({"split": "test"}, r"base\.datasets\[1\]\.split: "),
    ],
)
def test_a_mistake_is_shown_at_its_entry(tree: dict[str, Any], change: dict[str, Any], said: str) -> None:
    tree["base"]["datasets"][1].update(change)
    with pytest.raises((ExperimentError, UserError), match=said):
        warnings_of(tree)


def test_rows_that_cannot_be_used_are_counted_by_dataset(tree: dict[str, Any], tmp_path: Path) -> None:
    rows = [json.dumps({"text": " ".join(FIRST[:40])}) for _ in range(40)]
    (tmp_path / "broken.jsonl").write_text("\n".join(rows + ["{"] * 3))
    tree["base"]["datasets"][1]["dataset_path"] = str(tmp_path / "broken.jsonl")
    (said,) = warnings_of(tree)
    assert said.startswith("base.datasets[1].dataset_path: 3 of the 43 rows of")


def test_fields_of_a_single_dataset_beside_a_mixture_are_refused(tree: dict[str, Any]) -> None:
    tree["base"] |= {"dataset_path": "builtin:python-docs", "split": "test"}
    with pytest.raises(ExperimentError) as refused:
        load_experiment(tree)
    for field in ("dataset_path", "split"):
        assert f"base.{field}: datasets lists what is read; write it in the entry that it belongs to" in str(
            refused.value
        )
