"""Architectures, options and inputs that the kernel tests share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from saesweep.saes import Architecture, Knobs, Params, architecture_for
from saesweep.specs.architectures import spec_class

D, F, B = 24, 96, 80
D_OUT = 20
"""Width that transcoders reconstruct."""
N_LAYERS = 3
"""Hooks that crosscoders read, in equal parts of D."""


@dataclass(frozen=True)
class Case:
    name: str
    architecture: str
    options: dict[str, Any]
    knobs: Knobs
    dead: bool = False

    @property
    def kind(self) -> str:
        """The SAE's architecture: the case's own, or the one that a transcoder or crosscoder has the latents and losses of."""
        return self.architecture.removesuffix("_crosscoder").removesuffix("_transcoder").removesuffix("_skip")

    @property
    def is_transcoder(self) -> bool:
        return self.architecture.endswith("_transcoder")

    def build(self, d_in: int = D, d_sae: int = F) -> Architecture[Any]:
        widths = {"d_in": d_in, "d_sae": d_sae, **({"d_out": D_OUT} if self.is_transcoder else {})}
        if self.architecture.endswith("_crosscoder"):
            widths["n_layers"] = N_LAYERS
        return architecture_for(spec_class(self.architecture)(architecture=self.architecture, **widths, **self.options))

    def target(self, x: torch.Tensor) -> torch.Tensor | None:
        """What a transcoder reconstructs from `x`; None for an SAE."""
        if not self.is_transcoder:
            return None
        g = torch.Generator().manual_seed(4)
        return (torch.randn(len(x), D_OUT, generator=g, dtype=torch.float64) - 0.2).to(x)


def _topk_cases() -> list[Case]:
    k = Knobs(k=6)
    found = []
    for name in ("topk", "batchtopk", "matryoshka_batchtopk"):
        extra: dict[str, Any] = {"k": 6}
        if name == "matryoshka_batchtopk":
            extra["matryoshka_widths"] = (16, 40)
        for label, options in {
            "": {},
            " plain norms": {"rescale_acts_by_decoder_norm": False},
            " uncentred": {"apply_b_dec_to_input": False},
        }.items():
            found.append(Case(name + label, name, extra | options, k))
            found.append(Case(name + label + " dead", name, extra | options, k, dead=True))
    found.append(Case("topk no aux dead", "topk", {"k": 6, "aux_loss_coefficient": 0.0}, k, dead=True))
    found.append(Case("topk weak aux dead", "topk", {"k": 6, "aux_loss_coefficient": 0.03}, k, dead=True))
    found.append(
        Case(
            "matryoshka aux by level dead",
            "matryoshka_batchtopk",
            {"k": 6, "matryoshka_widths": (8, 40, F), "use_matryoshka_aux_loss": True},
            k,
            dead=True,
        )
    )
    found.append(Case("matryoshka one level", "matryoshka_batchtopk", {"k": 6, "matryoshka_widths": (F,)}, k))
    found.append(Case("batchtopk broken k", "batchtopk", {"k": 2.7}, Knobs(k=2.7)))
    # So many that some pairs are not positive.
    found.append(Case("topk mostly inactive", "topk", {"k": 80}, Knobs(k=80)))
    found.append(Case("batchtopk mostly inactive", "batchtopk", {"k": 80}, Knobs(k=80)))
    return found


def _penalised_cases() -> list[Case]:
    l1, l0 = Knobs(l1_coefficient=0.7), Knobs(l0_coefficient=0.3)
    found = [Case(f"standard p={p}", "standard", {"lp_norm": p}, l1) for p in (0.5, 1.0, 1.5, 2.0, 3.0)] + [
        Case("standard p=0.5 to the p", "standard", {"lp_norm": 0.5, "sparsity_function": "Lp^p"}, l1),
        Case("standard p=2.0 to the p", "standard", {"lp_norm": 2.0, "sparsity_function": "Lp^p"}, l1),
        Case("standard uncentred", "standard", {"apply_b_dec_to_input": False}, l1),
        Case("gated", "gated", {}, l1),
        Case("gated detached", "gated", {"detach_aux_decoder": True}, l1),
        Case("gated uncentred", "gated", {"apply_b_dec_to_input": False}, l1),
    ]
    for mode in ("step", "tanh", "quadratic"):
        for ste in (False, True):
            for dead in (False, True):
                options: dict[str, Any] = {
                    "jumprelu_sparsity_loss_mode": mode,
                    "jumprelu_ste_to_input": ste,
                    "jumprelu_bandwidth": 0.6,
                }
                if mode == "quadratic":
                    options["target_l0"] = 7.0
                if dead:
                    options["pre_act_loss_coefficient"] = 0.2
                label = f"jumprelu {mode}{' ste' if ste else ''}{' dead' if dead else ''}"
                found.append(Case(label, "jumprelu", options, l0, dead=dead))
    found.append(
        Case(
            "jumprelu wide window",
            "jumprelu",
            {"jumprelu_sparsity_loss_mode": "tanh", "jumprelu_ste_to_input": True, "jumprelu_bandwidth": 2.0},
            l0,
        )
    )
    return found


def _transcoder_cases() -> list[Case]:
    """Both transcoders of one case of each architecture, and of what treats reconstructions in a way of its own."""
    chosen = (
        "topk dead",
        "batchtopk dead",
        "matryoshka_batchtopk plain norms dead",
        "matryoshka aux by level dead",
        "standard p=1.0",
        "gated",
        "gated detached",
        "jumprelu tanh ste dead",
        "jumprelu quadratic",
    )
    found = []
    for case in (c for c in _topk_cases() + _penalised_cases() if c.name in chosen):
        for skip in ("", "_skip"):
            name = f"{case.architecture}{skip}_transcoder"
            found.append(replace(case, name=f"{case.name}{skip} transcoder", architecture=name))
    return found


def _crosscoder_cases() -> list[Case]:
    """The crosscoder of a case of each architecture, and of everything that weighs by decoder norms."""
    chosen = (
        "topk uncentred dead",
        "batchtopk uncentred dead",
        "standard p=1.0",
        "standard p=3.0",
        "jumprelu tanh ste dead",
        "jumprelu quadratic dead",
        "jumprelu wide window",
    )
    cases = {case.name: case for case in _topk_cases() + _penalised_cases()}
    return [
        replace(
            cases[name],
            name=f"{name} crosscoder",
            architecture=f"{cases[name].architecture}_crosscoder",
            options={key: value for key, value in cases[name].options.items() if key != "apply_b_dec_to_input"},
        )
        for name in chosen
    ]


CASES = _topk_cases() + _penalised_cases() + _transcoder_cases() + _crosscoder_cases()


def params_for(
    architecture: Architecture[Any], dtype: torch.dtype, *, bias: float = 0.0, device: str = "cpu"
) -> Params:
    """Weights off their initial symmetry; `bias` lowers every encoder bias and so the density."""
    g = torch.Generator().manual_seed(1)
    params = architecture.init(g, dtype=torch.float64)
    for name, p in params.items():
        noise = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if name in ("W_enc", "W_dec"):
            p += 0.1 * noise
        elif name == "threshold":
            p += 0.3 + 0.2 * noise.abs()
        else:
            p += 0.1 * noise
            if name in ("b_enc", "b_gate"):
                p -= bias
    return {
        name: (p.t().contiguous().to(device, dtype).t() if name == "W_enc" else p.to(device, dtype))
        for name, p in params.items()
    }


def batch(dtype: torch.dtype, n_tokens: int = B, d_in: int = D, device: str = "cpu") -> torch.Tensor:
    g = torch.Generator().manual_seed(2)
    return (torch.randn(n_tokens, d_in, generator=g, dtype=torch.float64) + 0.3).to(device, dtype)


def dead_mask(d_sae: int = F, share: float = 0.3, device: str = "cpu") -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    return (torch.rand(d_sae, generator=g) < share).to(device)
