"""Named sets of overrides for `by_architecture`."""

from __future__ import annotations

from typing import Any

from saesweep.specs.architectures import spec_class

PRESETS: dict[str, dict[str, Any]] = {
    # Anthropic's January 2025 update on dictionary learning: JumpReLU with a tanh penalty.
    "anthropic-jan-2025": {
        "sae.jumprelu_sparsity_loss_mode": "tanh",
        "sae.jumprelu_tanh_scale": 4.0,
        "sae.jumprelu_bandwidth": 2.0,
        "sae.jumprelu_init_threshold": 0.1,
        "sae.pre_act_loss_coefficient": 3e-6,
        "sae.l0_warm_up_steps": "100%",
        "sae.normalize_activations": "expected_average_only_in",
        "lr_decay_steps": "20%",
    },
}
PRESET_ARCHITECTURE = {"anthropic-jan-2025": "jumprelu"}


def presets_of(architecture: str) -> tuple[str, ...]:
    """Return the presets that an architecture can have: its own, and a transcoder those of its SAE."""
    trained_as = getattr(spec_class(architecture), "trained_as", architecture)
    return tuple(preset for preset, owner in PRESET_ARCHITECTURE.items() if owner == trained_as)
