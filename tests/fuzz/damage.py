"""Ways to damage a file: its JSON or YAML data, its lines, its bytes, the header of a safetensors file."""

from __future__ import annotations

import json
import struct
from typing import Any

from hypothesis import strategies as st

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../../x", "/etc/passwd", "nan", "1e999", "\x00", "\ud800", "<script>", "9" * 400])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of everything in a tree."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, child in items for place in [(node, key), *places(child)]]


def damage_tree(draw: Any, tree: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """Replace, delete, add, move or wrap one to three parts of JSON data, in place; return it."""
    for _ in range(draw(st.integers(1, 3))):
        found = places(tree)
        if not found:
            return draw(values)
        node, key = found[draw(st.integers(0, len(found) - 1))]
        change = draw(st.sampled_from(["replace", "delete", "add", "move", "wrap"]))
        if change == "replace":
            node[key] = draw(values)
        elif change == "delete":
            del node[key]
        elif change == "add" and isinstance(node, dict):
            node[draw(st.text(max_size=8))] = draw(values)
        elif change == "move":
            other, other_key = found[draw(st.integers(0, len(found) - 1))]
            node[key] = json.loads(json.dumps(other[other_key])) if other_key in _keys(other) else None
        else:
            node[key] = [node[key]]
    return tree


def _keys(node: Any) -> Any:
    return node if isinstance(node, dict) else range(len(node))


def damage_bytes(draw: Any, content: bytes, *, within: int | None = None) -> bytes:
    """Overwrite, insert or cut a few bytes, in the first `within` of them."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        end = min(len(damaged), within or len(damaged))
        at = draw(st.integers(0, max(0, end - 1)))
        change = draw(st.sampled_from(["overwrite", "insert", "cut", "truncate"]))
        if change == "overwrite" and damaged:
            damaged[at] = draw(st.integers(0, 255))
        elif change == "insert":
            damaged[at:at] = draw(st.binary(min_size=1, max_size=6))
        elif change == "cut":
            del damaged[at : at + draw(st.integers(1, 20))]
        elif change == "truncate" and draw(st.integers(0, 3)) == 0:
            del damaged[at:]
    return bytes(damaged)


def json_bytes(draw: Any, tree: Any) -> bytes:
    """Return JSON data, sometimes with damaged bytes too; NaN stays as Python writes it."""
    text = json.dumps(tree).encode("utf-8", "surrogatepass")
    return damage_bytes(draw, text) if draw(st.integers(0, 4)) == 0 else text


def damage_json(draw: Any, content: bytes) -> bytes:
    """Damage a JSON file."""
    return json_bytes(draw, damage_tree(draw, json.loads(content)))


def damage_json_lines(draw: Any, content: bytes) -> bytes:
    """Damage a file of JSON lines: one line's data, its bytes, the order, a torn end."""
    lines = content.splitlines(keepends=True)
    if not lines:
        raise ValueError("no lines")
    at = draw(st.integers(0, len(lines) - 1))
    change = draw(st.sampled_from(["data", "data", "data", "bytes", "swap", "repeat", "drop", "tear"]))
    if change == "data":
        lines[at] = damage_json(draw, lines[at]) + b"\n"
    elif change == "bytes":
        lines[at] = damage_bytes(draw, lines[at])
    elif change == "swap":
        other = draw(st.integers(0, len(lines) - 1))
        lines[at], lines[other] = lines[other], lines[at]
    elif change == "repeat":
        lines[at:at] = [lines[at]]
    elif change == "drop":
        del lines[at]
    else:
        lines[-1] = lines[-1][: draw(st.integers(0, len(lines[-1])))]
    return b"".join(lines)


def damage_safetensors(draw: Any, content: bytes) -> bytes:
    """Damage the header of a safetensors file: its data with a right length, its length, or its bytes."""
    (length,) = struct.unpack("<Q", content[:8])
    change = draw(st.sampled_from(["data", "data", "length", "bytes"]))
    if change == "data":
        header = json_bytes(draw, damage_tree(draw, json.loads(content[8 : 8 + length])))
        return struct.pack("<Q", len(header)) + header + content[8 + length :]
    if change == "length":
        return struct.pack("<Q", draw(st.integers(0, 2**64 - 1))) + content[8:]
    return damage_bytes(draw, content, within=8 + length)
