"""From a YAML file, or a mapping, to a validated experiment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saesweep.errors import UserError
from saesweep.experiment.advice import warnings_for
from saesweep.experiment.check_at_hand import join_hooks, translate_hooks
from saesweep.experiment.check_base import check_base, check_by_architecture, check_runs
from saesweep.experiment.check_matched import check_matched
from saesweep.experiment.check_objective import check_objective, check_probes
from saesweep.experiment.check_search import check_confirm, check_search
from saesweep.experiment.check_space import check_space
from saesweep.experiment.document import Document, from_mapping
from saesweep.experiment.draft import Draft, read_draft
from saesweep.experiment.experiment import Experiment
from saesweep.experiment.foreign import correct_foreign_syntax
from saesweep.experiment.from_cfg import apply_from_cfg
from saesweep.experiment.overrides import LABEL, AsWritten, apply_overrides, check_overridden, fill_environment
from saesweep.experiment.parameters import target_parameters
from saesweep.experiment.yaml_text import read_yaml
from saesweep.plugins import load_installed_plugins
from saesweep.specs import ExperimentSpec
from saesweep.specs.model_loading import OPT_IN


def load_experiment(
    source: str | Path | Mapping[Any, Any],
    *,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    is_own: bool = True,
    reads_environment: bool = True,
    also: Sequence[Callable[[Draft], None]] = (),
) -> Experiment:
    """Read and check an experiment. No network (but for a Hub id in `from_cfg`), no weights, no torch (but in a plugin).

    Args:
        source: Path of a YAML file, or the same data as a mapping.
        overrides: `path=value` texts, applied in order over the file.
        env: Variables for `${env:NAME}`; the process's own when left out.
        is_own: False for a file that lies beside an SAE or in a run directory and is read without being named: its
            permission to run code does not count, only one among the overrides does.
        reads_environment: False for a file that may be somebody else's, such as what lies beside an SAE: its references
            stay as they are, and variables are filled in among the overrides alone.
        also: Further checks, such as those of what is on this machine; their findings are among the mistakes.

    Raises:
        ExperimentError: The file has mistakes; it names all of them, with their places.
        UserError: There is no such file, or an installed plugin cannot be imported.
    """
    document = from_mapping(source) if isinstance(source, Mapping) else read_yaml(read_file(source), str(source))
    document.raise_problems()  # keys that were not read would only lead to wrong advice
    if not is_own and isinstance(document.tree.get("base"), dict):
        document.tree["base"].pop(OPT_IN, None)
    apply_overrides(document, overrides)
    check_overridden(document, overrides)
    if not reads_environment:
        fill_environment(document, os.environ if env is None else env, only_from=LABEL)
        env = AsWritten()
    return checked(document, env, also)


def checked(
    document: Document, env: Mapping[str, str] | None = None, also: Sequence[Callable[[Draft], None]] = ()
) -> Experiment:
    """Return the experiment of a document that the command line has had its say in.

    Args:
        document: The document.
        env: Variables for `${env:NAME}`; the process's own when left out.
        also: Further checks.

    Raises:
        ExperimentError: It has mistakes; the error names all of them, with their places.
        UserError: An installed plugin cannot be imported.
    """
    load_installed_plugins()
    env = os.environ if env is None else env
    fill_environment(document, env)
    imported_warnings, filled = apply_from_cfg(document)
    join_hooks(document)
    correct_foreign_syntax(document)
    translated = translate_hooks(document)
    draft = read_draft(document, filled)
    parameters = (*check_space(draft), *target_parameters(draft.objective))
    check_base(draft)
    check_by_architecture(draft)
    runs = check_runs(draft, parameters)
    check_objective(draft, runs)
    check_probes(draft, runs)
    check_matched(draft, parameters, runs)
    check_search(draft, parameters, runs[0] if runs else None)
    check_confirm(draft, runs)
    for check in also:
        check(draft)
    document.raise_problems()
    experiment = Experiment(
        spec=ExperimentSpec.model_validate(document.tree),
        tree=document.tree,
        architectures=draft.architectures,
        references=document.references,
        environment=document.environment,
    )
    warnings = warnings_for(draft, parameters, runs, experiment.n_trials)
    return replace(experiment, warnings=(*imported_warnings, *translated, *warnings))


def read_file(source: str | Path) -> str:
    """Return the text of an experiment file.

    Raises:
        UserError: It cannot be read; the message names what is there instead.
    """
    path = Path(source)
    if path.is_dir():
        inside = path / "experiment.yaml"
        hint = f"; name {inside}" if inside.is_file() else ""
        raise UserError(f"{path} is a folder, not an experiment file{hint}")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f"; {path.parent} has {', '.join(near[:8])}" if near else "; `saesweep init` writes a commented start"
        raise UserError(f"{path}: no such experiment file{hint}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
