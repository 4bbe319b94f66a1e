"""Hooks that are read together: a list in a file (`hook_name: [a, b]`), and one name, `a + b`, wherever a hook has a name.

No module and no hook point has a blank or a plus in its name, so that the text says again which hooks it stands for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

AND = " + "
"""What stands between the names."""
EXPLAINED_AT = "explained_variance@"
"""What the explained variance at one of the hooks is called, before the hook's name."""


def joined(hooks: Iterable[str]) -> str:
    """Return the name of hooks that are read together."""
    return AND.join(hooks)


def hooks_in(name: str) -> tuple[str, ...]:
    """Return the hooks that a name stands for, in the order in which their activations are joined; mostly one."""
    return tuple(name.split(AND))


def is_joint(name: str) -> bool:
    """Return whether a name stands for several hooks."""
    return AND in name


def as_name(value: Any) -> Any:
    """Return a list of names as the name of them all, and anything else as it is."""
    is_list = isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(hook, str) for hook in value)
    return joined(value) if is_list else value
