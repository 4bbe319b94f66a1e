"""Where a trial will be at its end, and how sure that is: one piece for rungs, plans, steering and verdicts. Torch-free."""

from saesweep.forecast.columns import Column, Forecasts, tie_threshold
from saesweep.forecast.course import Course, Family, kind_of
from saesweep.forecast.evidence import Evidence, Key, Moments, centring, features_of, names_of
from saesweep.forecast.forecast import Forecast, from_scale, orientation, probability_better, to_scale
from saesweep.forecast.noise import Noise, noises_of
from saesweep.forecast.regression import MIN_EVIDENCE, Ahead, Report, column_of, forecast_all, forecast_column
from saesweep.forecast.table import Entry, Prior, Table, from_json, shipped_table

__all__ = [
    "MIN_EVIDENCE",
    "Ahead",
    "Column",
    "Course",
    "Entry",
    "Evidence",
    "Family",
    "Forecast",
    "Forecasts",
    "Key",
    "Moments",
    "Noise",
    "Prior",
    "Report",
    "Table",
    "centring",
    "column_of",
    "features_of",
    "forecast_all",
    "forecast_column",
    "from_json",
    "from_scale",
    "kind_of",
    "tie_threshold",
    "names_of",
    "noises_of",
    "orientation",
    "probability_better",
    "shipped_table",
    "to_scale",
]
