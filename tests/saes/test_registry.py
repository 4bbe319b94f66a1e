"""A third-party architecture: configuration and implementation in one file outside the package."""

import subprocess
import sys
from pathlib import Path

import pytest

from saesweep.errors import UserError
from saesweep.saes import Architecture, architecture_for, register_architecture

from .plain_formulas import make_spec

PLUGIN = '''
"""An SAE with an absolute-value activation, exported as standard of twice the width."""
from typing import ClassVar, Literal

import torch
from saesweep.saes import Architecture, register_architecture
from saesweep.specs.architectures import SAESpec, register_spec


@register_spec("shifted")
class ShiftedSpec(SAESpec):
    saved_as: ClassVar[str] = "standard"
    architecture: Literal["shifted"] = "shifted"
    shift: float = 0.5


@register_architecture("shifted")
class Shifted(Architecture[ShiftedSpec]):
    """f = relu(h - shift): a fixed bias."""

    def init(self, generator, *, dtype=torch.float32, device="cpu"):
        return self.init_dictionary(generator, dtype=dtype, device=device)

    def encode_parts(self, params, x_BD, knobs):
        hidden = x_BD @ params["W_enc"] - self.spec.shift
        return hidden.relu(), hidden

    def penalties(self, state):
        return {"l1_loss": state.feature_acts_BF.sum(-1).mean()}

    def fold(self, tensors, normalizer, threshold):
        bias = torch.full_like(tensors["W_dec"][:, 0], -self.spec.shift)
        return super().fold(tensors | {"b_enc": bias}, normalizer, threshold)
'''

USE = """
import torch
import shifted_plugin
from pathlib import Path
from saesweep.saes import Knobs, Normalizer, architecture_for, load_sae_folder, save_sae_folder
from saesweep.specs.architectures import architectures, spec_class

assert "shifted" in architectures()
spec = spec_class("shifted")(expansion_factor=4, normalize_activations="expected_average_only_in").resolve_widths(8)
implementation = architecture_for(spec)
params = {k: v.requires_grad_() for k, v in implementation.init(torch.Generator().manual_seed(0)).items()}
x = 20 * torch.randn(64, 8)
normalizer = Normalizer.fit(spec.normalize_activations, [x], 8)
output = implementation.forward(params, normalizer.apply(x), Knobs())
assert set(output.losses) == {"mse_loss", "l1_loss"}
output.loss.backward()
assert all(p.grad is not None for p in params.values())
save_sae_folder(Path("sae"), implementation.export(params, normalizer), sparsity_F=None)
loaded = load_sae_folder(Path("sae"))
assert loaded.metadata["training_architecture_details"]["shift"] == 0.5
torch.testing.assert_close(loaded(x), output.recon_BD.detach() / normalizer.scale)
"""


def test_one_file_adds_an_architecture(tmp_path: Path) -> None:
    (tmp_path / "shifted_plugin.py").write_text(PLUGIN)
    (tmp_path / "use.py").write_text(USE)  # a process of its own: the registries are global
    done = subprocess.run([sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="registered already"):

        @register_architecture("topk")
        class Mine(Architecture): ...


def test_a_spec_without_implementation_is_named() -> None:
    spec = make_spec("topk").model_copy(update={"architecture": "unheard_of"})
    with pytest.raises(UserError, match="'unheard_of' has no registered implementation"):
        architecture_for(spec)
