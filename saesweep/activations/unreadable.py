"""Rows of a dataset that cannot be used: left out, counted, and an error where nothing else comes."""

from __future__ import annotations

import logging

from saesweep.errors import UserError

MAX_IN_A_ROW = 1000
"""So many unusable rows, one after the other, are an error."""
MAX_SHARE_OF_SAMPLE = 0.5
"""An error before training, if more than this share of the rows looked at is unusable."""

_log = logging.getLogger("saesweep")


class UnreadableRow(ValueError):
    """A row cannot be used; the message says why."""


class UnreadableRows:
    """Counts them, each once however often it is read. Which rows are left out depends on the rows alone.

    Args:
        name: The dataset, for messages.
        place: The field that names it, for messages.
    """

    def __init__(self, name: str, place: str = "base.dataset_path") -> None:
        self._name = name
        self._place = place
        self._seen: set[int | None] = set()
        self._in_a_row = 0
        self.example = ""
        """What is wrong with the first one."""

    @property
    def count(self) -> int:
        """Different rows that were left out so far."""
        return len(self._seen)

    def usable(self) -> None:
        """Note a row that can be used."""
        self._in_a_row = 0

    def add(self, row: int | None, reason: str) -> None:
        """Note a row that cannot be used; the 1st, 10th, 100th, ... is logged.

        Args:
            row: Its number.
            reason: What is wrong with it.

        Raises:
            UserError: `MAX_IN_A_ROW` of them came one after the other.
        """
        self._in_a_row += 1
        if self._in_a_row == MAX_IN_A_ROW:
            raise UserError(
                f"{self._place}: {MAX_IN_A_ROW} rows of {self._name} in a row cannot be used, such as this: {reason}; "
                "correct the data"
            )
        if row in self._seen:
            return
        self._seen.add(row)
        self.example = self.example or reason
        if self.count in {10**power for power in range(12)}:
            _log.warning(
                "%s: %d row%s of %s cannot be used and %s left out; the latest: %s",
                self._place, self.count, "s"[: self.count > 1], self._name, "are" if self.count > 1 else "is", reason,
            )  # fmt: skip

    def check_sample(self, n_rows: int) -> None:
        """Refuse a dataset of which most rows looked at cannot be used.

        Args:
            n_rows: Rows that were looked at.

        Raises:
            UserError: More than `MAX_SHARE_OF_SAMPLE` of them.
        """
        if self.count > MAX_SHARE_OF_SAMPLE * n_rows:
            raise UserError(
                f"{self._place}: {self.count} of the {n_rows} rows of {self._name} looked at cannot be used: "
                f"{self.example}; correct the data, or name another column with {self._column_field}"
            )

    def sample_warning(self, n_rows: int) -> str:
        """Return what to tell about a sample, where there is something to tell."""
        return (
            f"{self._place}: {self.count} of the {n_rows} rows of {self._name} looked at cannot be used and are left out: "
            f"{self.example}"
        )

    @property
    def _column_field(self) -> str:
        return self._place.replace("dataset_path", "column_name")
