"""YAML text to a located document: one walk over PyYAML's nodes builds the data and the marks."""

from __future__ import annotations

import re
from typing import Any

import yaml

from saesweep.experiment.document import Document, Mark, Place, show
from saesweep.experiment.scalars import parse_scalar

_PLAIN = "!saesweep/plain"
_TEXT = "tag:yaml.org,2002:str"
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_NO_BLANK = re.compile(r"\s*([A-Za-z_][\w.]*):([^\s#/][^#]*)")
_MAX_DEPTH = 64
_MAX_NODES = 200_000  # aliases of aliases grow exponentially


class _Composer(yaml.SafeLoader):
    """Leaves unquoted scalars to `parse_scalar`: the one tag below marks them."""

    yaml_implicit_resolvers = {None: [(_PLAIN, re.compile(r"", re.DOTALL))]}


def read_yaml(text: str, file: str | None) -> Document:
    """Return the document of a YAML text.

    Mistakes of syntax, duplicate keys and keys that are not text are noted in the document, not raised.
    """
    document = Document(tree={}, file=file)
    node = _compose(text, document)
    if node is None:
        if not document.problems:
            document.add((), "is empty; `saesweep init` writes a commented start")
        return document
    tree = _Walk(document, text.splitlines()).build(node, (), 0)
    if isinstance(tree, dict):
        document.tree = tree
    else:
        document.add((), "must be a mapping with the keys name, base, space, ...")
    return document


def read_value(text: str, label: str) -> tuple[Any, list[str]]:
    """Return a command-line value, read by the rules of the file, and what is wrong with it."""
    document = Document(tree={}, file=label)
    node = _compose(text, document)
    value = None if node is None else _Walk(document, text.splitlines()).build(node, (), 0)
    return value, [p.message for p in document.problems]


def _compose(text: str, document: Document) -> yaml.Node | None:
    lines = text.splitlines()
    try:
        return yaml.compose(text, Loader=_Composer)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.values[()] = _mark(document.file, mark, lines)
        problem = " ".join(part for part in (error.problem, error.context) if part)
        if "another document" in problem:
            problem = "a second document begins here; an experiment is one, so remove the line ---"
        if "\\t" in problem:
            problem += "; indent with spaces"
        elif "mapping values are not allowed" in problem:
            problem += "; a colon is missing on the line before, or this line is indented too far"
        elif "expected ',' or" in problem and error.context_mark is not None:
            opened = lines[error.context_mark.line][error.context_mark.column]
            problem += f"; close the {opened} of line {error.context_mark.line + 1}"
        document.add((), _blank_missing(error, lines) or f"not valid YAML: {problem}")
    except yaml.reader.ReaderError as error:
        before = text[: error.position].splitlines() or [""]
        document.values[()] = Mark(file=document.file, line=len(before), column=len(before[-1]) + 1)
        document.add((), f"not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed")
    except RecursionError:
        document.add((), f"nested more than {_MAX_DEPTH} levels deep")
    return None


def _blank_missing(error: yaml.MarkedYAMLError, lines: list[str]) -> str:
    """Return what to say of a line such as `lr:1e-3`, which YAML reads as text; empty where it is something else."""
    if "expected ':'" not in f"{error.problem}{error.context}":
        return ""
    mark = error.context_mark or error.problem_mark
    if mark is None or mark.line >= len(lines) or not (match := _NO_BLANK.match(lines[mark.line])):
        return ""
    return f"not valid YAML: a blank is missing after the colon; write {match[1]}: {match[2].strip()}"


def _mark(file: str | None, mark: Any, lines: list[str]) -> Mark:
    if mark is None:
        return Mark(file=file)
    source = lines[mark.line] if mark.line < len(lines) else None
    return Mark(file=file, line=mark.line + 1, column=mark.column + 1, source=source)


class _Walk:
    def __init__(self, document: Document, lines: list[str]) -> None:
        self.document = document
        self.lines = lines
        self.count = 0
        self.open: set[int] = set()  # nodes being built: an alias of one of them has no end

    def build(self, node: yaml.Node, place: Place, depth: int) -> Any:
        document = self.document
        document.values[place] = _mark(document.file, node.start_mark, self.lines)
        self.count += 1
        if self.count > _MAX_NODES:
            if self.count == _MAX_NODES + 1:
                document.add(place, f"has more than {_MAX_NODES} parts with its aliases written out")
            return None
        if depth > _MAX_DEPTH:
            document.add(place, f"nested more than {_MAX_DEPTH} levels deep")
            return None
        if id(node) in self.open:
            document.add(place, "is an alias of something that contains it")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if node.tag not in _COLLECTIONS:
            document.add(place, f"tag {node.tag} is not supported; write plain values")
            return None
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, place, depth)
            return [self.build(item, (*place, i), depth + 1) for i, item in enumerate(node.value)]
        finally:
            self.open.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        if node.tag == _TEXT:
            return str(node.value)
        if node.tag != _PLAIN:
            self.document.add(place, f"tag {node.tag} is not supported; write plain values")
            return None
        try:
            return parse_scalar(node.value)
        except ValueError as error:
            self.document.add(place, str(error))
            return None

    def _mapping(self, node: yaml.MappingNode, place: Place, depth: int) -> dict[str, Any]:
        document = self.document
        merges = [v for k, v in node.value if _is_merge(k)]
        merged: dict[str, Any] = {}
        for part in merges:
            self._merge(merged, part, place, depth)
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if _is_merge(key_node):
                continue
            mark = _mark(document.file, key_node.start_mark, self.lines)
            key = self._scalar(key_node, place) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                what = show(key) if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                document.add_at(mark, place, f"key {what} is not text; quote it")
                continue
            child: Place = (*place, key)
            if key in own:
                document.add_at(
                    mark, child, f"duplicate key; the first is on line {document.keys[child].line}; remove one"
                )
                continue
            if merged.pop(key, None) is not None:
                document.forget(child)
            document.keys[child] = mark
            own[key] = self.build(value_node, child, depth + 1)
        document.values[place] = _mark(document.file, node.start_mark, self.lines)
        return {**merged, **own}

    def _merge(self, merged: dict[str, Any], node: yaml.Node, place: Place, depth: int) -> None:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in reversed(parts):  # the first of a list wins
            if not isinstance(part, yaml.MappingNode):
                mark = _mark(self.document.file, node.start_mark, self.lines)
                self.document.add_at(mark, (*place, "<<"), "takes a mapping, or a list of mappings")
                continue
            value = self.build(part, place, depth + 1)
            if isinstance(value, dict):
                merged.update(value)


def _is_merge(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _PLAIN and node.value == "<<"
