"""How trials are measured."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from saesweep.specs.model import Spec
from saesweep.specs.units import TokenCount


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class EvaluationSpec(Spec):
    """Held-out data, split off by document before packing and fixed for the experiment."""

    select_tokens: TokenCount = Field(100_000, ge=1)
    """Tokens of the part that rungs and the ranking use."""
    test_tokens: TokenCount = Field(100_000, ge=1)
    """Tokens of the part that is read once, for the winner."""
    ce_tokens: TokenCount | None = Field(None, ge=1)
    """Tokens of each part on which cross-entropy metrics are measured; the whole part when left out."""
    references: Annotated[tuple[str, ...], BeforeValidator(_tuple)] = ()
    """Published SAEs as rows of the leaderboard, measured on the `select` part: whatever `saesweep eval` takes."""

    def without_test(self) -> EvaluationSpec:
        """Return the same with an empty `test` part, for measuring on `select` where nothing is trained."""
        return self.model_copy(update={"test_tokens": 0})
