"""`saesweep.run`: a run that shows its progress, from Python and from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saesweep.activity import doing
from saesweep.display import DisplayKind, make_display
from saesweep.events import reporting_activity

if TYPE_CHECKING:
    from saesweep.driver import Result
    from saesweep.engines.protocol import Engine
    from saesweep.events import Listener
    from saesweep.experiment import Experiment


def run(
    experiment: str | Path | Mapping[str, Any] | Experiment,
    *,
    run_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    engine: Engine | None = None,
    display: DisplayKind = "auto",
    verbose: bool = False,
) -> Result:
    """Run an experiment, or resume it; the same call resumes.

    Args:
        experiment: A YAML file, the same as a mapping, or a loaded experiment.
        run_dir: Where everything goes; `runs/<name>` when left out.
        overrides: `path=value` pairs over the file, as `--set` takes them.
        listeners: Called with every event.
        engine: Where workers run, as `saesweep.engines.protocol` has it; the file says it when left out.
        display: `live`: a leaderboard that updates in place, on a terminal or in a notebook; `plain`: lines of text;
            `json`: one object per event; `none`: silence. `auto`: `$SAESWEEP_DISPLAY`, else live on a terminal and in a
            notebook, and plain elsewhere.
        verbose: Also show what was chosen and why, when trials start and when checkpoints are saved.

    Returns:
        The result, also where the run was interrupted by Ctrl-C.

    Raises:
        UserError: The experiment, the model, the data or the run directory has a mistake; nothing was trained.
        KeyboardInterrupt: Ctrl-C was pressed twice, or before or after training; its text is the command that resumes.
    """
    # Something is on the screen before PyTorch is imported, which takes seconds.
    with make_display(display, verbose=verbose) as shown, reporting_activity(shown):
        from saesweep.at_hand import check_here
        from saesweep.experiment import Experiment, load_experiment

        if not isinstance(experiment, Experiment):  # mistakes are said before anything heavy is loaded
            load_experiment(experiment, overrides=overrides, also=(check_here,))
        doing("loading PyTorch")
        from saesweep.driver import run as sweep

        return sweep(experiment, run_dir=run_dir, overrides=overrides, listeners=(shown, *listeners), engine=engine)
