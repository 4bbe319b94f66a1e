"""One stacked step against autograd through the reference, for every option of SAEs that are stacked."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import CASES, Case, batch, dead_mask, params_for

from saesweep.cohort.engine import ReferenceEngine
from saesweep.cohort.kernels import KernelChoice
from saesweep.cohort.kernels.stacked import stacked_step
from saesweep.cohort.kernels.stacked_select import StackShape, width_for

STACKED = [
    case
    for case in CASES
    if case.architecture in ("topk", "batchtopk", "matryoshka_batchtopk")
    and not case.options.get("use_matryoshka_aux_loss")
]
COPIES = 3


WAYS = {
    "batched": KernelChoice(chunk_elements=96 * 64, stacked="batched"),
    "each": KernelChoice(chunk_elements=96 * 64, stacked="each"),
    "each by oneDNN": KernelChoice(chunk_elements=96 * 64, stacked="each", gemm="onednn"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("case", STACKED, ids=lambda case: case.name)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
def test_losses_gradients_and_firing_counts(
    case: Case, dtype: torch.dtype, tolerance: float, device: str, way: str
) -> None:
    if way == "each by oneDNN" and device == "cuda":
        pytest.skip("oneDNN is for CPUs")
    architecture, x = case.build(), batch(dtype, device=device)
    spec, k, of_batch = architecture.spec, case.knobs.k, case.architecture != "topk"
    dead = dead_mask(device=device) if case.dead else None
    params = params_for(architecture, dtype, device=device)
    exact = {name: weight.double() for name, weight in params.items()}
    want = ReferenceEngine().step(architecture, exact, x.double(), case.knobs, dead)
    shape = StackShape(
        width=min(width_for(k), architecture.d_sae),
        of_batch=of_batch,
        inner_widths=getattr(spec, "inner_widths", ()),
        is_centred=spec.apply_b_dec_to_input,
        is_rescaled=spec.rescale_acts_by_decoder_norm,
        reads_dead=case.dead and architecture.reads_dead,
    )
    stacked = {n: torch.stack([w.t() if n == "W_enc" else w] * COPIES) for n, w in params.items()}
    coefficients = torch.full((COPIES,), spec.aux_loss_coefficient, dtype=dtype, device=device)
    dead_NF = None if dead is None else dead.expand(COPIES, -1)
    ks = torch.full_like(coefficients, int(k * len(x)) if of_batch else int(k))
    got = stacked_step(shape, stacked, x, ks, coefficients, dead_NF, WAYS[way])
    assert list(got.grads) == list(want.grads)
    for index in range(COPIES):
        for name, term in want.losses.items():
            torch.testing.assert_close(got.losses[name][index].double(), term, rtol=tolerance, atol=tolerance)
        for name, grad in want.grads.items():
            found = got.grads[name][index].double()
            error = ((found.t() if name == "W_enc" else found) - grad).abs().max() / grad.abs().max().clamp(min=1e-30)
            assert float(error) <= tolerance, name
        assert torch.equal(got.firing_NF[index], want.firing_F)
