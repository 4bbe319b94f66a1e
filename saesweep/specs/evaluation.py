"""How trials are measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from saesweep.specs.model import Spec
from saesweep.specs.units import TokenCount

# Evidence in docs/evaluation.md: two SAEs of the same run change places on so few tokens in 0 to 3% of the pairs.
MIN_CE_TOKENS, MIN_RUNG_TOKENS = 2048, 1024
_CE_SHARE, _TEST_TIMES = 0.005, 4


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class EvaluationSpec(Spec):
    """Held-out data, split off by document before packing and fixed for the experiment."""

    select_tokens: TokenCount = Field(100_000, ge=1)
    """Tokens of the part that rungs and the ranking use."""
    test_tokens: TokenCount = Field(100_000, ge=1)
    """Tokens of the part that is read once, for the winner."""
    ce_tokens: TokenCount | None = Field(None, ge=1)
    """Tokens of each part on which cross-entropy metrics are measured. When left out: of `select` 0.5% of a trial's training tokens,
    at least 2,048, and of `test`, which is read for the winner alone, four times as many; or the whole part."""
    rung_share: float = Field(0.1, gt=0, le=1)
    """Share of the `select` part, and of its cross-entropy tokens, on which trials are measured at rungs; at least 1,024 tokens. Trials that
    finish are measured in full."""
    references: Annotated[tuple[str, ...], BeforeValidator(_tuple)] = ()
    """Published SAEs as rows of the leaderboard, measured on the `select` part: whatever `saesweep eval` takes."""

    def ce_tokens_of(self, part: Literal["select", "test"], training_tokens: int) -> int:
        """Return the number of tokens for cross-entropy metrics.

        Args:
            part: Of which part.
            training_tokens: Tokens of a full trial.
        """
        tokens = self.ce_tokens
        if tokens is None:
            tokens = max(MIN_CE_TOKENS, round(_CE_SHARE * training_tokens)) * (_TEST_TIMES if part == "test" else 1)
        return min(tokens, self.select_tokens if part == "select" else self.test_tokens)

    def at_rung(self, tokens: int) -> int:
        """Return how many of some held-out tokens are measured at a rung."""
        return min(tokens, max(MIN_RUNG_TOKENS, round(self.rung_share * tokens)))

    def without_test(self) -> EvaluationSpec:
        """Return the same with an empty `test` part, for measuring on `select` where nothing is trained."""
        return self.model_copy(update={"test_tokens": 0})
