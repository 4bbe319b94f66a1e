"""The activation streams of an experiment: one, or one per setting of the stream-level parameters of its space."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saesweep.errors import UserError
from saesweep.experiment.document import Place
from saesweep.experiment.experiment import Experiment
from saesweep.experiment.fields import MODEL_PATHS, STREAM_PATHS, parts_of
from saesweep.experiment.overrides import filled
from saesweep.space import grid_points, grid_size, space_size
from saesweep.specs import ExperimentSpec

_PATH_LIKE = ("model_name", "dataset_path", "cached_activations_path")


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One activation stream, and what its trials share."""

    label: str
    """For people, such as `context_size 256`; empty where the experiment has a single stream."""
    folder: str
    """The same as the name of a folder."""
    settings: Mapping[str, Any]
    """Its values of the stream-level parameters, by dotted path."""
    experiment: Experiment
    """The experiment without those parameters: `base` states their values, the conditions on them are settled."""

    @property
    def max_trials(self) -> int | None:
        """Different trials that a grid, a fixed list or the space holds for it; None where a range is continuous."""
        search, parameters = self.experiment.spec.search, self.experiment.parameters()
        if search.sampler == "fixed":
            return len(self.own(search.fixed))
        return grid_size(parameters) if search.sampler == "grid" else space_size(parameters)

    def own(self, given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return those of the given settings (baselines, a fixed list) that its trials can have, completed by its own."""
        return [
            {**settings, **self.settings}
            for settings in given
            if all(settings[path] == value for path, value in self.settings.items() if path in settings)
            and not any(path in STREAM_PATHS and path not in self.settings for path in settings)
        ]

    def has(self, params: Mapping[str, Any]) -> bool:
        """Return whether a trial with these parameters belongs to the stream."""
        return all(path in params and params[path] == value for path, value in self.settings.items())


def streams_of(experiment: Experiment) -> tuple[Stream, ...]:
    """Return the streams in the order in which they run: those of one model next to each other, else as the file says."""
    parameters = [p for p in experiment.parameters() if p.path in STREAM_PATHS]
    if not parameters:
        return (Stream(label="", folder="", settings={}, experiment=experiment),)
    settings = list(grid_points(parameters))
    models = [_model(setting) for setting in settings]
    settings.sort(key=lambda setting: models.index(_model(setting)))
    labels = [_label(setting, settings) for setting in settings]
    return tuple(
        Stream(
            label=label,
            folder=f"{index}-" + re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-")[:60],
            settings=setting,
            experiment=_narrowed(experiment, setting),
        )
        for index, (label, setting) in enumerate(zip(labels, settings, strict=True))
    )


def are_comparable(streams: Sequence[Stream]) -> bool:
    """Return whether metrics of trials of different streams are on one scale: same model, dataset and positions."""
    differing = {path for stream in streams for path in stream.settings if _differs(path, streams)}
    return all(STREAM_PATHS[path] for path in differing)


def stream_of(streams: Sequence[Stream], params: Mapping[str, Any]) -> Stream:
    """Return the stream that a trial belongs to."""
    return next(stream for stream in streams if stream.has(params))


def only_stream(experiment: Experiment) -> Experiment:
    """Return the experiment as its only stream sees it.

    Raises:
        UserError: It has several.
    """
    streams = streams_of(experiment)
    if len(streams) > 1:
        raise UserError(
            f"{experiment.spec.name}: space searches {', '.join(streams[0].settings)}, which makes {len(streams)} "
            "activation streams, and one is needed here; give a file of one, such as the experiment.yaml in the folder "
            "of an exported SAE"
        )
    return streams[0].experiment


def _differs(path: str, streams: Sequence[Stream]) -> bool:
    return len({repr(stream.settings.get(path)) for stream in streams}) > 1


def _model(setting: Mapping[str, Any]) -> list[Any]:
    return [setting.get(path) for path in MODEL_PATHS]


def _label(setting: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for path, value in setting.items():
        if path in _PATH_LIKE and isinstance(value, str):
            short = value.rstrip("/").rpartition("/")[2]
            others = {str(other.get(path)) for other in settings} - {value}
            is_unique = all(other.rstrip("/").rpartition("/")[2] != short for other in others)
            parts.append(short if is_unique else value)
        else:
            parts.append(f"{path} {value}")
    return ", ".join(parts)


def _narrowed(experiment: Experiment, setting: Mapping[str, Any]) -> Experiment:
    """Return the experiment as one stream sees it."""
    tree, references = copy.deepcopy(experiment.tree), dict(experiment.references)
    for path, written in setting.items():
        *blocks, name = parts_of(path)
        place: Place = ("base", *blocks, name)
        references = {known: text for known, text in references.items() if known[: len(place)] != place}
        value = filled(written, experiment.environment)
        if value != written:
            references[place] = written
        block = tree["base"]
        for key in blocks:
            block = block.setdefault(key, {})
        block[name] = value
    space = {}
    for path, entry in tree.get("space", {}).items():
        ranges = [one for one in map(dict, entry if isinstance(entry, list) else [entry]) if _holds(one, setting)]
        if path not in STREAM_PATHS and ranges:
            space[path] = [_settled(one) for one in ranges]
    tree["space"] = space
    return Experiment(
        spec=ExperimentSpec.model_validate(tree),
        tree=tree,
        architectures=experiment.architectures,
        warnings=experiment.warnings,
        references=references,
        environment=experiment.environment,
    )


def _holds(entry: Mapping[str, Any], setting: Mapping[str, Any]) -> bool:
    """Return whether the conditions of a range on stream-level parameters hold."""
    return all(
        path in setting and setting[path] in (values if isinstance(values, (list, tuple)) else [values])
        for path, values in entry.get("when", {}).items()
        if path in STREAM_PATHS
    )


def _settled(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a range without its conditions on stream-level parameters."""
    when = {path: values for path, values in entry.get("when", {}).items() if path not in STREAM_PATHS}
    return {**{k: v for k, v in entry.items() if k != "when"}, **({"when": when} if when else {})}
