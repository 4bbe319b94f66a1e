"""Warnings about an experiment file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path


def print_warnings(path: Path, warnings: Iterable[str]) -> None:
    """Print warnings on standard error, so that standard output stays what the command was asked for."""
    for warning in warnings:
        print(f"{path}: warning: {warning}", file=sys.stderr)
