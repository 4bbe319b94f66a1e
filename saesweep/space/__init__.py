"""The search space from the file to the study: one `Parameter` for each range, one `Space` that holds them in order."""

from saesweep.space.points import all_points, corners, grid_points, grid_size, next_point, space_size, trial_limit
from saesweep.space.space import Parameter, Space, has_settings

__all__ = [
    "Parameter",
    "Space",
    "all_points",
    "corners",
    "grid_points",
    "grid_size",
    "has_settings",
    "next_point",
    "space_size",
    "trial_limit",
]
