"""YAML to a located document, and plain data to YAML that this package, and YAML 1.1 readers too, read back to the same data.

Scalars are those of the YAML 1.2 core schema: `1e-4` is a number, `no` is text, `010` is ten. YAML 1.1, PyYAML's default, says
otherwise.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from saesweep.experiment.document import Document, Mark, Place, show

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_DECIMAL = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_FLOAT = re.compile(rf"[-+]?(?:\.[0-9]+|{_DIGITS}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_DIGITS = 100


def is_null(text: str) -> bool:
    """Return whether an unquoted YAML scalar is null."""
    return text.strip() in _NULL


def parse_scalar(text: str) -> bool | int | float | str | None:
    """Return the value of an unquoted YAML scalar.

    Raises:
        ValueError: A number that is not finite, or with more digits than any setting has.
    """
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number; leave the key out for no limit")
    for pattern, base in ((_DECIMAL, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            if len(text) > _MAX_DIGITS:
                raise ValueError(f"a number of {len(text)} digits; quote it if it is text")
            return int(text.replace("_", ""), base)
    if _FLOAT.fullmatch(text):
        value = float(text.replace("_", ""))
        if value in (float("inf"), float("-inf")):
            raise ValueError(f"{text} is too large for a number; quote it if it is text")
        return value
    return text


def scalar_or_text(text: str) -> bool | int | float | str | None:
    """Return the value of an unquoted YAML scalar; the text itself where it is a number that no setting takes."""
    try:
        return parse_scalar(text)
    except ValueError:
        return text


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
        elif _is_reference(document.values[()]):
            problem = 'in braces and brackets a reference is quoted, as in "${env:NAME}"'
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


def _is_reference(mark: Mark) -> bool:
    """Return whether the brace at a mark is that of `${env:NAME}`, which opens a mapping where it is not quoted."""
    return mark.source is not None and mark.column is not None and mark.source[: mark.column].endswith("${")


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
