"""Datasets as tables of cells, wherever they lie; knows nothing of tokens."""

from saesweep.activations.tables.open import open_table
from saesweep.activations.tables.selection import Selection
from saesweep.activations.tables.table import Table, Unreadable

__all__ = ["Selection", "Table", "Unreadable", "open_table"]
