"""Activations with huge norms are left out of training and evaluation alike."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saesweep.activations import open_source
from saesweep.activations.rows import NormLimit, RowFilter
from saesweep.activations.stream import ActivationStream
from saesweep.errors import UserError
from saesweep.specs.base_run import BaseRun
from saesweep.specs.experiment import EvaluationSpec
from tests.models.tiny import run_of

from .fakes import EchoModel, ids_of, map_documents, numbered, stream_of

TEXTS = numbered([40, 3, 90, 17, 64, 8, 120, 33])


def test_the_limit_is_a_multiple_of_the_median() -> None:
    tokens = torch.tensor([[3, 4, 5, 6, 400]])
    model = EchoModel()
    limit = NormLimit.measure(
        10, model=model, hooks=["ids", "twice"], head_index=None, rows=RowFilter(context_size=5), tokens_NT=tokens
    )
    assert limit.limits["ids"] == pytest.approx(10 * (5**2 + 2**2) ** 0.5)
    acts = {hook: rows.flatten(0, 1) for hook, rows in model.activations(tokens, ["ids", "twice"]).items()}
    assert limit.keep(acts).tolist() == [True, True, True, True, False]


def test_a_row_is_kept_where_every_hook_keeps_it_and_nan_is_no_size() -> None:
    rows = {"a": torch.tensor([[1.0], [9.0], [1.0], [1.0]]), "b": torch.tensor([[1.0], [1.0], [9.0], [float("nan")]])}
    assert NormLimit({"a": 2.0, "b": 2.0}).keep(rows).tolist() == [True, False, False, True]
    together = {"a + b": torch.cat(list(rows.values()), dim=1)}
    assert NormLimit({"a": 2.0, "b": 2.0}).keep(together).tolist() == [True, False, False, True]
    half = torch.full((1, 64), 6e4, dtype=torch.float16)  # its square is no float16
    assert NormLimit({"a": 4.9e5}).keep({"a": half}).tolist() == [True]
    assert NormLimit({"a": 4.7e5}).keep({"a": half}).tolist() == [False]


class SinkModel(EchoModel):
    """The activation of every third token id is huge."""

    def activations(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        acts = super().activations(tokens_NT, hooks)
        sinks_NT = tokens_NT % 3 == 0
        return {
            hook: torch.where(sinks_NT[..., None] & (torch.arange(acts[hook].shape[-1]) == 1), 1e6, acts[hook])
            for hook in hooks
        }


@pytest.mark.parametrize("ahead", [False, True])
def test_the_stream_serves_every_row_within_the_limit_once_and_resumes(ahead: bool) -> None:
    def stream() -> ActivationStream:
        return stream_of(
            map_documents(TEXTS), model=SinkModel(), norm_limit=NormLimit({"ids": 1e5}), passes_ahead=ahead
        )

    first, again, everything = stream(), stream(), stream_of(map_documents(TEXTS))
    served: list[int] = []
    batches = []
    while first.epoch < 1:
        state = first.state()
        batch = ids_of(first, 1)
        batches.append((state, batch))
        served += batch
    every: set[int] = set()
    while everything.epoch < 1:
        every.update(ids_of(everything, 1))
    assert {row for row in every if row % 3} == set(served)
    for state, batch in batches[::3]:
        again.load_state(state)
        assert ids_of(again, 1) == batch
    first.close()
    again.close()


def test_a_limit_that_leaves_nothing_is_an_error() -> None:
    stream = stream_of(map_documents(TEXTS), norm_limit=NormLimit({"ids": 0.0}), excluded=[0])
    with pytest.raises(UserError, match="max_activation_norm_multiple"):
        stream.next_batch()


@pytest.fixture
def run(llama: Path, tmp_path: Path) -> BaseRun:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(" ".join(f"w{(7 * line + word) % 120}" for word in range(40)) for line in range(400)))
    return run_of(model_name=str(llama), dataset_path=str(text), hook_name="model.layers.1")


def test_training_and_evaluation_leave_out_the_same(run: BaseRun) -> None:
    evaluation = EvaluationSpec(select_tokens=512, test_tokens=512)
    plain = open_source(run, evaluation, ["model.layers.1"])
    norms = torch.cat(list(plain.select.batches("model.layers.1"))).norm(dim=-1)
    multiple = float((norms.max() * 0.9) / norms.median())
    assert multiple > 1
    limited = open_source(
        run.model_copy(update={"max_activation_norm_multiple": multiple}), evaluation, ["model.layers.1"]
    )
    kept = torch.cat(list(limited.select.batches("model.layers.1")))
    assert len(kept) == limited.select.n_tokens == int(limited.select.mask_NT.sum()) < len(norms)
    largest = float(kept.norm(dim=-1).max())
    assert largest < float(norms.max())
    trained = torch.cat([limited.stream.next_batch()["model.layers.1"] for _ in range(10)])
    assert float(trained.norm(dim=-1).max()) <= 1.3 * largest
    clean = torch.cat([plain.stream.next_batch()["model.layers.1"] for _ in range(10)])
    assert float(clean.norm(dim=-1).max()) > float(trained.norm(dim=-1).max())
    plain.close()
    limited.close()
