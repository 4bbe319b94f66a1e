"""The experiment file: loading with line marks, overrides, `from_cfg`, located errors. Torch-free."""

from saesweep.experiment.authoring import experiment_schema
from saesweep.experiment.check_search import SAMPLERS, rung_steps
from saesweep.experiment.experiment import Experiment, TrialSettings, control_plan, settings_for, with_widths
from saesweep.experiment.fields import ARCHITECTURE, TARGET_L0
from saesweep.experiment.identity import describe_changes, fingerprint_of, space_changes
from saesweep.experiment.load import load_experiment
from saesweep.experiment.overrides import AsWritten, has_reference
from saesweep.experiment.single_run import load_single_run
from saesweep.experiment.streams import Stream, are_comparable, only_stream, stream_of, streams_of
from saesweep.experiment.yaml_text import dump_yaml
from saesweep.space import Parameter

__all__ = [
    "ARCHITECTURE",
    "SAMPLERS",
    "TARGET_L0",
    "AsWritten",
    "Experiment",
    "Parameter",
    "Stream",
    "TrialSettings",
    "are_comparable",
    "control_plan",
    "describe_changes",
    "dump_yaml",
    "experiment_schema",
    "fingerprint_of",
    "has_reference",
    "load_experiment",
    "load_single_run",
    "only_stream",
    "rung_steps",
    "settings_for",
    "space_changes",
    "stream_of",
    "streams_of",
    "with_widths",
]
