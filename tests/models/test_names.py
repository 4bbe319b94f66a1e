"""Names of hooks and devices; shapes."""

import pytest
import torch

from saesweep.errors import UserError
from saesweep.models import resolve_device, shape_activations, transformer_lens_hook


@pytest.mark.parametrize(
    ("hook", "found"),
    [
        ("model.layers.12", "blocks.12.hook_resid_post"),
        ("transformer.h.8", "blocks.8.hook_resid_post"),
        ("gpt_neox.layers.3", "blocks.3.hook_resid_post"),
        ("gpt_neox.layers.3.mlp", "blocks.3.hook_mlp_out"),
        ("transformer.h.0.attn", "blocks.0.hook_attn_out"),
        ("model.layers.12.mlp", None),  # Gemma 2 normalises it before the residual stream
        ("model.layers.12.mlp.up_proj", None),
        ("blocks.1.hook_resid_post", None),
        ("lm_head", None),
    ],
)
def test_transformer_lens_names(hook: str, found: str | None) -> None:
    assert transformer_lens_hook(hook) == found


def test_devices() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(UserError, match=r"base\.device: 'tpu9' is no device"):
        resolve_device("tpu9")
    with pytest.raises(UserError, match="llm_device: 'cuda:99' asks for a CUDA device"):
        resolve_device("cuda:99", place="llm_device")


def test_an_output_of_another_rank_is_refused() -> None:
    with pytest.raises(UserError, match="a hook must give"):
        shape_activations(torch.zeros(2, 3))
