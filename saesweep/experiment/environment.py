"""`${env:NAME}` and `${env:NAME:-default}` in text values, after parsing: a variable cannot add keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from saesweep.experiment.document import Document, Place

_REFERENCE = re.compile(r"\$\{env:([^}]*)\}")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def fill_environment(document: Document, env: Mapping[str, str]) -> None:
    """Replace the references in every text value of the document; missing variables are noted as mistakes."""
    document.tree = _fill(document.tree, (), document, env)


def _fill(value: Any, place: Place, document: Document, env: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, (*place, key), document, env) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, (*place, index), document, env) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${env:" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        parts = _NAME.fullmatch(match[1])
        if parts is None:
            document.add(place, f"{match[0]} is not a reference; write ${{env:NAME}} or ${{env:NAME:-default}}")
            return match[0]
        name, default = parts[1], parts[2]
        if name in env:
            return env[name]
        if default is None:
            document.add(
                place, f"the environment variable {name} is not set; set it, or write ${{env:{name}:-default}}"
            )
            return match[0]
        return str(default)

    return _REFERENCE.sub(replace, value)
