"""Held-out parts: fixed order, computed once, never from the training stream."""

import torch

from saesweep.activations.held_out import HeldOutActivations
from saesweep.activations.rows import NormLimit, RowFilter

from .fakes import EchoModel

TOKENS = torch.arange(10 * 8).reshape(10, 8)


def held_out(model: EchoModel, norm_limit: NormLimit | None = None, **rows: object) -> HeldOutActivations:
    return HeldOutActivations(
        model=model,
        hooks=["ids", "twice"],
        head_index=None,
        tokens_NT=TOKENS,
        rows=RowFilter(context_size=8, **rows),  # type: ignore[arg-type]
        forward_contexts=4,
        batch_tokens=20,
        device=torch.device("cpu"),
        norm_limit=norm_limit,
    )


def test_a_limit_of_the_norm_takes_one_forward_pass_that_waits_for_its_first_use() -> None:
    model = EchoModel()
    limit = 50.0
    part = held_out(model, NormLimit({"ids": limit, "twice": 1e9}))
    assert model.forwards == []
    assert part.n_tokens == int(part.mask_NT.sum())
    assert [contexts for contexts, _ in model.forwards] == [3, 3, 4]
    rows_MD = torch.cat(list(part.batches("ids")))
    assert [contexts for contexts, _ in model.forwards] == [3, 3, 4]
    assert rows_MD[:, 0].tolist() == TOKENS[part.mask_NT].tolist()
    assert rows_MD.norm(dim=1).max() <= limit
    assert 0 < part.n_tokens < TOKENS.numel()
    assert len(torch.cat(list(part.batches("twice")))) == part.n_tokens


def test_one_forward_pass_serves_all_hooks_and_all_later_reads() -> None:
    model = EchoModel()
    part = held_out(model)
    first = torch.cat(list(part.batches("ids")))
    assert first[:, 0].tolist() == TOKENS.flatten().tolist()
    assert torch.equal(torch.cat(list(part.batches("twice")))[:, :2], 2 * first)
    assert torch.equal(torch.cat(list(part.batches("ids"))), first)
    assert [contexts for contexts, _ in model.forwards] == [3, 3, 4]
    assert all(len(batch) <= 20 for batch in part.batches("ids"))


def test_only_positions_that_count() -> None:
    part = held_out(EchoModel(), seqpos_slice=(1, None, 2), excluded=[1, 11])
    expected = [int(t) for row in TOKENS for t in row[1::2] if int(t) not in (1, 11)]
    assert torch.cat(list(part.batches("ids")))[:, 0].tolist() == expected
    assert part.n_tokens == len(expected) == int(part.mask_NT.sum())
    assert TOKENS[part.mask_NT].tolist() == expected


def test_a_limit_reads_and_computes_no_more_than_it_needs() -> None:
    model = EchoModel()
    part = held_out(model)
    assert torch.cat(list(part.batches("ids", 25)))[:, 0].tolist() == list(range(25))
    assert [contexts for contexts, _ in model.forwards] == [3, 3]
    assert sum(len(batch) for batch in part.batches("ids")) == 80
    assert [contexts for contexts, _ in model.forwards] == [3, 3, 4]
    assert sum(len(batch) for batch in part.batches("ids", 1000)) == 80


def test_rows_can_be_trained_on() -> None:
    weight = torch.ones(2, requires_grad=True)
    (next(held_out(EchoModel()).batches("ids")) * weight).sum().backward()
    assert weight.grad is not None
