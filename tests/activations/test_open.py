"""From a run to its activations, through a real (tiny, random) language model."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from saesweep.activations import ActivationSource, check_source, open_source
from saesweep.errors import UserError
from saesweep.specs.base_run import BaseRun
from saesweep.specs.experiment import EvaluationSpec
from tests.models.tiny import BOS, HIDDEN, WORDS, run_of, word_id

HOOKS = ["model.layers.1", "model.layers.0.mlp"]
EVALUATION = EvaluationSpec(select_tokens=100, test_tokens=60)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text("".join(" ".join(rng.choices(WORDS, k=rng.randint(3, 40))) + "\n" for _ in range(200)))
    return file


@pytest.fixture
def run(llama: Path, text: Path) -> BaseRun:
    return run_of(model_name=str(llama), dataset_path=str(text))


def changed(run: BaseRun, **fields: Any) -> BaseRun:
    return run.model_copy(update=fields)


def open_it(run: BaseRun) -> ActivationSource:
    return open_source(run, EVALUATION, HOOKS)


def test_batches_continue_bit_for_bit_on_new_objects(run: BaseRun) -> None:
    whole = open_it(run).stream
    states, batches = [], []
    for _ in range(100):  # beyond the first epoch
        states.append(whole.state())
        batches.append(whole.next_batch())
    assert whole.epoch >= 1
    assert whole.d_in == {HOOKS[0]: HIDDEN, HOOKS[1]: HIDDEN}
    for done in (0, 1, 9, 33, 64, 90):
        again = open_it(run).stream
        again.load_state(states[done])
        for expected in batches[done : done + 3]:
            found = again.next_batch()
            assert all(torch.equal(found[hook], expected[hook]) for hook in HOOKS)
    other = open_it(changed(run, seed=7)).stream.next_batch()
    assert not torch.equal(other[HOOKS[0]], batches[0][HOOKS[0]])


def test_rows_are_the_model_s_activations(run: BaseRun) -> None:
    source = open_it(changed(run, exclude_special_tokens=True))
    assert source.model is not None
    assert source.select.tokens_NT is not None
    assert source.select.mask_NT is not None
    assert (source.select.tokens_NT[:, 0] == BOS).all()
    assert torch.equal(source.select.mask_NT, source.select.tokens_NT != BOS)
    direct = source.model.activations(source.select.tokens_NT, HOOKS)
    for hook in HOOKS:
        rows = torch.cat(list(source.select.batches(hook)))
        assert rows.dtype == torch.float32
        torch.testing.assert_close(rows, direct[hook][source.select.mask_NT])
        assert len(rows) == source.select.n_tokens
    # A training row at layer 1 exists in no held-out context, and the stream holds no BOS row.
    bos_row = source.model.activations(torch.tensor([[BOS, word_id(0)]]), HOOKS)[HOOKS[0]][0, 0]
    for _ in range(20):
        distance = (source.stream.next_batch()[HOOKS[0]] - bos_row).norm(dim=1)
        assert distance.min() > 1e-3


def test_bos_rows_are_there_unless_left_out(run: BaseRun) -> None:
    source = open_it(run)
    assert source.model is not None
    bos_row = source.model.activations(torch.tensor([[BOS, word_id(0)]]), HOOKS)[HOOKS[0]][0, 0]
    batches = torch.cat([source.stream.next_batch()[HOOKS[0]] for _ in range(10)])
    share = ((batches - bos_row).norm(dim=1) < 1e-3).float().mean()
    assert 1 / 32 < share < 1 / 8  # the first of 16 positions


def test_evaluation_does_not_touch_the_stream(run: BaseRun) -> None:
    quiet, busy = open_it(run), open_it(run)
    for _ in range(10):
        expected = quiet.stream.next_batch()[HOOKS[0]]
        list(busy.select.batches(HOOKS[0]))
        list(busy.stream.first_window())
        assert torch.equal(busy.stream.next_batch()[HOOKS[0]], expected)


def test_types(run: BaseRun, llama: Path) -> None:
    half = changed(run, model_from_pretrained_kwargs={"dtype": "bfloat16"})
    source = open_it(half)
    assert source.stream.next_batch()[HOOKS[0]].dtype == torch.float32
    assert {rows.dtype for rows in source.stream._pool._rows_CD.values()} == {torch.bfloat16}  # half the memory
    assert next(source.select.batches(HOOKS[0])).dtype == torch.float32
    assert open_it(changed(half, dtype="bfloat16")).stream.next_batch()[HOOKS[0]].dtype == torch.bfloat16


def test_a_tokenised_dataset(run: BaseRun, tmp_path: Path) -> None:
    import datasets

    rows = [[word_id((number * 7 + place) % 120) for place in range(32)] for number in range(60)]
    datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(tmp_path / "tokens")
    tokenized = changed(run, dataset_path=str(tmp_path / "tokens"))
    source = open_it(tokenized)
    assert source.select.tokens_NT is not None
    halves = [row[start : start + 16] for row in rows for start in (0, 16)]
    assert all(context in halves for context in source.select.tokens_NT.tolist())  # cut, and no BOS added
    assert source.stream.next_batch()[HOOKS[0]].shape == (64, HIDDEN)
    assert check_source(tokenized, EVALUATION, HOOKS, training_tokens=500).d_in == dict.fromkeys(HOOKS, HIDDEN)
    with pytest.raises(UserError, match="has 32 tokens, fewer than the 64 of a context"):
        check_source(changed(tokenized, context_size=64), EVALUATION, HOOKS, training_tokens=500)


def test_tokens_of_another_tokenizer_are_refused(run: BaseRun, tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"input_ids": [[50_000] * 32] * 60}).save_to_disk(tmp_path / "tokens")
    with pytest.raises(UserError, match="holds token id 50000, and the model has embeddings for 0 to 122"):
        check_source(changed(run, dataset_path=str(tmp_path / "tokens")), EVALUATION, HOOKS, training_tokens=500)


def test_preflight_facts_and_epochs(run: BaseRun, text: Path) -> None:
    n_tokens = len(text.read_text().split())
    facts = check_source(run, EVALUATION, HOOKS, training_tokens=1000)
    assert facts.model is not None
    assert facts.d_in == dict.fromkeys(HOOKS, HIDDEN)
    assert facts.warnings == ()
    (warning,) = check_source(run, EVALUATION, HOOKS, training_tokens=40_000).warnings
    assert f"about {n_tokens - 160} activations to train on" in warning  # all documents are in the sample
    assert f"{40_000 / (n_tokens - 160):.1f} epochs" in warning


def test_preflight_of_a_stream_knows_no_size(run: BaseRun, text: Path, tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": text.read_text().splitlines()}).to_parquet(tmp_path / "a.parquet")
    streamed = changed(run, dataset_path=str(tmp_path / "a.parquet"), streaming=True)
    assert check_source(streamed, EVALUATION, HOOKS, training_tokens=10**9).warnings == ()
    assert open_it(streamed).stream.next_batch()[HOOKS[0]].shape == (64, HIDDEN)


def test_preflight_of_synthetic_activations() -> None:
    run = run_of(model_name=None, dataset_path="builtin:synthetic")
    facts = check_source(run, EVALUATION, ["x"], training_tokens=10**9)
    assert (facts.model, facts.d_in) == (None, {"x": 64})


@pytest.mark.parametrize(
    ("fields", "evaluation", "said"),
    [
        ({"hook_name": "nothing"}, {}, "has no hook 'nothing'"),
        ({}, {"select_tokens": 100_000}, "not more than select_tokens"),
        ({"dataset_path": "nowhere.txt"}, {}, "does not exist"),
        ({"context_size": 1000}, {}, "context_size: 1000 is more than"),
    ],
)
def test_preflight_refuses(run: BaseRun, fields: dict[str, Any], evaluation: dict[str, int], said: str) -> None:
    sizes = EVALUATION.model_copy(update=evaluation)
    bad = changed(run, **fields)
    with pytest.raises(UserError, match=said):
        check_source(bad, sizes, [fields.get("hook_name", HOOKS[0])], training_tokens=500)


def test_no_text_is_long_enough(run: BaseRun, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("w1 w2\nw3\n")
    with pytest.raises(UserError, match="does not fill one context of 16 tokens"):
        check_source(changed(run, dataset_path=str(tmp_path / "a.txt")), EVALUATION, HOOKS, training_tokens=500)


def test_excluded_token_ids_and_tokenizers_without_special_tokens(run: BaseRun) -> None:
    from types import SimpleNamespace

    from saesweep.activations.encoding import excluded_tokens

    tokenizer = SimpleNamespace(bos_token_id=1, eos_token_id=2, pad_token_id=None)
    assert excluded_tokens(run, tokenizer) == []
    assert excluded_tokens(changed(run, exclude_special_tokens=True), tokenizer) == [1, 2]
    assert excluded_tokens(changed(run, exclude_special_tokens=(9, 5, 9)), tokenizer) == [5, 9]
    with pytest.raises(UserError, match="the tokenizer has no special tokens"):
        excluded_tokens(changed(run, exclude_special_tokens=True), SimpleNamespace())


@pytest.mark.gpu
def test_on_a_gpu(run: BaseRun) -> None:
    on_gpu = changed(run, device="cuda")
    source = open_it(on_gpu)
    batches = [source.stream.next_batch() for _ in range(3)]
    state = source.stream.state()
    expected = source.stream.next_batch()
    on_cpu = open_it(run).stream.next_batch()
    for hook in HOOKS:
        assert batches[0][hook].device.type == "cuda"
        torch.testing.assert_close(batches[0][hook].cpu(), on_cpu[hook], atol=1e-2, rtol=1e-2)
        assert next(source.select.batches(hook)).device.type == "cuda"
    again = open_it(on_gpu).stream
    again.load_state(state)
    found = again.next_batch()
    assert all(torch.equal(found[hook], expected[hook]) for hook in HOOKS)
