"""Plain data to YAML that this package, and YAML 1.1 readers too, read back to the same data."""

from __future__ import annotations

from typing import Any

import yaml

from saesweep.experiment.scalars import parse_scalar


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 (the base class does) or YAML 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if not text.isprintable():
        style = '"'  # escapes: in single quotes, PyYAML folds the rarer line breaks
    elif not _is_text(text):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _is_text(plain: str) -> bool:
    try:
        return isinstance(parse_scalar(plain), str)
    except ValueError:
        return False


_Dumper.add_representer(str, _represent_text)


def dump_yaml(tree: Any) -> str:
    """Return the YAML of plain data (dicts, lists, scalars); `load_experiment` reads it back to the same tree."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
