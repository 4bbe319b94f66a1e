"""Where a trial will be at its end, and how sure that is: one piece for rungs, plans, steering and verdicts. Torch-free."""

from saesweep.forecast.course import Course, Family, kind_of
from saesweep.forecast.evidence import Evidence, Key, Moments, centring, features_of, names_of
from saesweep.forecast.forecast import (
    MIN_EVIDENCE,
    Ahead,
    Forecast,
    Report,
    forecast_all,
    probability_better,
)
from saesweep.forecast.noise import Noise, noises_of
from saesweep.forecast.scale import from_scale, orientation, to_scale
from saesweep.forecast.table import Entry, Prior, Table, from_json, shipped_table

__all__ = [
    "MIN_EVIDENCE",
    "Ahead",
    "Course",
    "Entry",
    "Evidence",
    "Family",
    "Forecast",
    "Key",
    "Moments",
    "Noise",
    "Prior",
    "Report",
    "Table",
    "centring",
    "features_of",
    "forecast_all",
    "from_json",
    "from_scale",
    "kind_of",
    "names_of",
    "noises_of",
    "orientation",
    "probability_better",
    "shipped_table",
    "to_scale",
]
