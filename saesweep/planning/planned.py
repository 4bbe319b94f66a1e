"""The plan of an experiment, and how it is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from saesweep.messages import short_bytes, short_count
from saesweep.scheduler import Policy


@dataclass(frozen=True)
class PlannedTrial:
    """One setting that the sampler would suggest first."""

    number: int
    architecture: str
    sparsity: str
    params: dict[str, Any]


@dataclass(frozen=True)
class PlannedStream:
    """One activation stream: the trials that share it, and the cohort that they train in."""

    label: str
    """Empty where all trials share one stream."""
    model_name: str | None
    trials: int
    hooks: tuple[str, ...]
    slots: int
    slots_reason: str
    total_tokens: int
    """Tokens of a full trial."""
    block_tokens: int
    rungs_tokens: tuple[int, ...]
    slot_bytes: int
    shared_bytes: int
    measuring_bytes: int
    """Part of `shared_bytes` where it is more than what a training step takes."""
    policy: Policy | None
    """The scheduler's rules there; None where the stream has no trials. With several streams, trials are numbered through
    and the budget is that of the streams up to this one."""


@dataclass(frozen=True)
class Seconds:
    """Where the time of a search goes, in seconds."""

    sae: float
    """Training steps."""
    language_model: float
    """Forward passes for the training batches, with reading and tokenising the text."""
    measuring: float
    """Held-out metrics at rungs and ends, with the language model's forward passes for them."""
    start_up: float
    """Loading the model, splitting off the held-out text, the first window of activations."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.sae + self.language_model + self.measuring + self.start_up

    @property
    def measuring_share(self) -> float:
        """Which part of it measuring takes, 0 to 1."""
        return self.measuring / self.total

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(
            self.sae + other.sae,
            self.language_model + other.language_model,
            self.measuring + other.measuring,
            self.start_up + other.start_up,
        )


@dataclass(frozen=True)
class Calibration:
    """What `--calibrate` measured on one stream, on this device, now."""

    label: str
    model_tokens_per_second: float
    """Activations that the stream serves each second."""
    step_seconds: dict[str, float]
    """One training step of one SAE, by architecture, at its size."""
    reconstruction_seconds: float
    """Reconstruction metrics of one SAE on the whole `select` part."""
    splice_seconds: float
    """Cross-entropy metrics of one SAE on as many tokens of the `select` part as a finished trial takes; 0 without a
    language-model head."""
    start_up_seconds: float
    probes_seconds: float = 0.0
    """Probes of one SAE, once the language model has read their texts; 0 without `evaluation.probes`."""
    warnings: tuple[str, ...] = ()
    """What opening the stream showed, such as attention sinks."""


@dataclass(frozen=True)
class Plan:
    """The plan of one experiment. Sizes are those of its first stream where it has several."""

    name: str
    trials: int
    samples: tuple[PlannedTrial, ...]
    streams: tuple[PlannedStream, ...]
    """In the order in which they run."""
    model_loads: int
    """How often a language model is loaded: streams of one model are next to each other."""
    hooks: tuple[str, ...]
    device: str
    slots: int
    slots_reason: str
    total_tokens: int
    block_tokens: int
    rungs_tokens: tuple[int, ...]
    slot_bytes: int
    shared_bytes: int
    measuring_bytes: int
    """Maximum memory that measuring takes; part of `shared_bytes` where it is more than what a training step takes."""
    sae_tokens_full: int
    """SAE-tokens of all trials if none is pruned."""
    sae_tokens_pruned: int
    """An estimate with pruning: what the scheduler leaves of trials that change as recorded ones did."""
    finished_pruned: int
    """Trials that are expected to finish, by the same estimate."""
    first_judged_step: int | None
    """The step of a trial at which it is first judged; None where no trial is."""
    confirm_sae_tokens: int
    """SAE-tokens of the confirmation of the finalists; 0 without one."""
    gflops: float
    """Speed of a matrix product measured now on the device, GFLOP/s."""
    sae_seconds: tuple[float, float]
    """Minimum and maximum time of the SAEs at that speed, without the language model."""
    mixture: str = ""
    """The datasets of a mixture with their shares of the tokens, such as `0.7 of a.txt, 0.3 of b.txt`."""
    schedules: tuple[str, ...] = ()
    """What of each architecture's settings changes over a run, such as `topk k 512 to 16 over 100 steps`."""
    matched: str = ""
    """How trials are shared between targets, with `objective.matched`."""
    probes: str = ""
    """What `evaluation.probes` takes for each SAE by the number of operations; empty without probes, or where it was measured."""
    calibrations: tuple[Calibration, ...] = ()
    """One per stream with `--calibrate`; empty without."""
    seconds_full: Seconds | None = None
    """From the calibration: the time if no trial is pruned, confirmation included."""
    seconds_pruned: Seconds | None = None
    """The same with pruning."""
    measuring_share: float | None = None
    """Which part of the time measuring is expected to take with pruning, 0 to 1: from the calibration, else from the number of
    operations; None where the language model's configuration is not on this machine."""
    model_bytes: int | None = None
    """Weights of the language model of the first stream; None where they are not known."""
    peak_bytes: int | None = None
    """Main memory of the whole process at its peak, where SAEs train there; None on a GPU, or where the model is not known."""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the plan as text."""
        rungs = ", ".join(short_count(t) for t in self.rungs_tokens) or "none"
        return [
            f"{self.name}: {self.trials} trials of {short_count(self.total_tokens)} tokens, hooks {', '.join(self.hooks)}",
            *self._stream_lines(),
            *([f"  tokens: {self.mixture}"] if self.mixture else []),
            *([f"  {self.matched}"] if self.matched else []),
            *(f"  schedule: {schedule}" for schedule in self.schedules),
            f"  blocks of {short_count(self.block_tokens)} tokens, rungs at {rungs}",
            f"  {self._pruning_text()}",
            f"  cohort of {self.slots} on {self.device} ({self.slots_reason})",
            f"  memory: {self.slots} x {short_bytes(self.slot_bytes)} + {short_bytes(self.shared_bytes)} shared"
            f" = {short_bytes(self.slots * self.slot_bytes + self.shared_bytes)}, "
            + ("" if self.model_bytes is None else f"language model {short_bytes(self.model_bytes)}")
            + ("language model not counted" if self.model_bytes is None else "")
            + f" (measuring takes up to {short_bytes(self.measuring_bytes)} of what is shared)",
            *(
                [f"  peak of the whole process: about {short_bytes(self.peak_bytes)}"]
                if self.peak_bytes is not None
                else []
            ),
            f"  SAE-tokens: {short_count(self.sae_tokens_full)} if every trial runs to its end,"
            f" about {short_count(self.sae_tokens_pruned)} with pruning"
            + (f"; {short_count(self.confirm_sae_tokens)} more to confirm" if self.confirm_sae_tokens else ""),
            *self._time_lines(),
            "  first settings the sampler would try:",
            *(f"    {s.number}: {s.architecture} {s.sparsity}  {_settings(s.params)}" for s in self.samples),
            *(f"  warning: {warning}" for warning in self.warnings),
        ]

    def _measuring_lines(self) -> list[str]:
        if self.measuring_share is None:
            return [
                "  measuring: its share depends on the model, which is not on this machine; --calibrate measures it"
            ]
        return [
            f"  measuring: about {100 * self.measuring_share:.0f}% of the time with pruning, by the number of operations;"
            " --calibrate measures it"
        ]

    def _pruning_text(self) -> str:
        """Return when trials are first judged, and how many are expected to finish."""
        if self.first_judged_step is None:
            return "pruning: no trial is judged, each trains to its end"
        return (
            f"pruning: a trial is first judged at step {self.first_judged_step} ({short_count(self.rungs_tokens[0])} tokens); "
            f"about {self.finished_pruned} of {self.trials} trials are expected to finish, as recorded learning curves went"
        )

    def _stream_lines(self) -> list[str]:
        if not self.streams[0].label:
            return []
        loads = f"{self.model_loads} load{'s' * (self.model_loads != 1)} of a language model"
        return [
            f"  {len(self.streams)} activation streams, one after the other, {loads}; sizes below are the first one's:",
            *(
                f"    {s.label}: {s.trials} trials of {short_count(s.total_tokens)} tokens,"
                f" cohort of {s.slots}, hooks {', '.join(s.hooks)}"
                for s in self.streams
            ),
        ]

    def _time_lines(self) -> list[str]:
        if self.seconds_full is None or self.seconds_pruned is None:
            low, high = (_duration(s) for s in self.sae_seconds)
            return [
                f"  SAE time: {low} to {high} at {self.gflops:.0f} GFLOP/s measured now, language model not counted;"
                " --calibrate measures both",
                *self._measuring_lines(),
                *([f"  {self.probes}"] if self.probes else []),
            ]
        return [
            *(_calibration_line(c) for c in self.calibrations),
            f"  time: about {_duration(self.seconds_pruned.total)} with pruning, "
            f"{_duration(self.seconds_full.total)} if every trial runs to its end",
            f"    with pruning: {_parts(self.seconds_pruned)}",
        ]


def _calibration_line(calibration: Calibration) -> str:
    steps = ", ".join(f"{name} {1000 * s:.1f} ms" for name, s in calibration.step_seconds.items())
    label = f"{calibration.label}: " if calibration.label else ""
    rate = short_count(int(round(calibration.model_tokens_per_second, -2)))
    probes = f"; probes of one SAE {calibration.probes_seconds:.1f} s" if calibration.probes_seconds else ""
    return f"  measured now: {label}{rate} activations/s from the stream; a training step of {steps}{probes}"


def _parts(seconds: Seconds) -> str:
    parts = {
        "SAEs": seconds.sae,
        "language model": seconds.language_model,
        "measuring": seconds.measuring,
        "start-up": seconds.start_up,
    }
    return ", ".join(f"{name} {_duration(s)} ({100 * s / seconds.total:.0f}%)" for name, s in parts.items())


def _settings(params: dict[str, Any]) -> str:
    shown = {k: v for k, v in params.items() if k != "sae.architecture"}
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in shown.items())


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def shared_loads(models: Sequence[object]) -> int:
    """Return how often a model is loaded where streams follow each other."""
    return sum(model is not None and (i == 0 or model != models[i - 1]) for i, model in enumerate(models))
