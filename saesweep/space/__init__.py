"""The search space from the file to the study: one `Parameter` for each range, one `Space` that holds them in order."""

from saesweep.space.parameter import Parameter
from saesweep.space.points import MAX_LISTED, all_points, corners, grid_points, grid_size, space_size
from saesweep.space.space import Space, has_settings

__all__ = [
    "MAX_LISTED",
    "Parameter",
    "Space",
    "all_points",
    "corners",
    "grid_points",
    "grid_size",
    "has_settings",
    "space_size",
]
