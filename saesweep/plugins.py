"""Third-party architectures, metrics and trackers: modules that register them, from installed packages or named by the user.

Code runs only where the user installed it (entry points of the group `saesweep.plugins`) or named it (`--plugin`,
`load_plugin`). An experiment file and a Hub repository name none.
"""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import walk_tb

from saesweep.errors import UserError

GROUP = "saesweep.plugins"
"""Entry-point group of packages that add to saesweep: each entry is a module that registers things when imported."""

_loaded: dict[str, str] = {}
_named: list[str] = []
_packages: dict[str, str] = {}
"""Top-level package, or module, of each plugin -> the plugin as messages call it."""


def load_plugin(source: str | Path) -> None:
    """Import a module that registers architectures, metrics or trackers; a second time, do nothing.

    Args:
        source: The name of an importable module, or the path of a Python file (`my_sae.py`).

    Raises:
        UserError: There is no such module or file, or importing it fails.
    """
    name = str(source)
    if name in _named:
        return
    if name.endswith(".py"):
        path = Path(name)
        _import_file(path)
        _packages[path.stem] = name
        _loaded[path.name] = f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    else:
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise _broken(name, error) from error
            raise UserError(
                f"plugin {name!r}: no module of that name can be imported; install it, or name a file such as ./{name}.py"
            ) from error
        except Exception as error:
            raise _broken(name, error) from error
        _packages[name.partition(".")[0]] = name
        _loaded[name] = str(getattr(module, "__version__", "unknown version"))
    _named.append(name)


@cache
def load_installed_plugins() -> None:
    """Import the plugins of installed packages, once in a process.

    Raises:
        UserError: Importing one of them fails.
    """
    from importlib.metadata import entry_points  # slow, and only experiments need it

    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        try:
            entry.load()
        except Exception as error:
            package = f", of the installed package {entry.dist.name}" if entry.dist is not None else ""
            raise _broken(f"{entry.name}{package}", error) from error
        _packages[entry.module.partition(".")[0]] = entry.name
        _loaded[entry.name] = "unknown version" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def loaded_plugins() -> dict[str, str]:
    """Return the plugins of this process by name, each with its version, or the SHA-256 of its file."""
    return dict(_loaded)


def named_plugins() -> tuple[str, ...]:
    """Return what `load_plugin` was given: the `--plugin` arguments that another process needs."""
    return tuple(_named)


def fault_of_plugin(error: BaseException) -> str | None:
    """Return which plugin raised an error, and where in it; None where none did, or what it called of saesweep."""
    found = None
    for frame, line in walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package == "saesweep":
            found = None
        elif package in _packages:
            where = f"{Path(frame.f_code.co_filename).name}:{line}"
            found = f"plugin {_packages[package]}: {type(error).__name__}: {error} ({where}); correct it, and run the same again"
    return found


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"plugin {path}: no such file")
    name = path.stem
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    if name in sys.modules:
        raise UserError(f"plugin {path}: a module {name!r} is imported already; give the file another name")
    module = module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks up annotations there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _broken(str(path), error) from error


def _broken(name: str, error: Exception) -> UserError:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"
    return UserError(f"plugin {name}: cannot be imported: {type(error).__name__}: {error}{where}")
