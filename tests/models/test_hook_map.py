"""The map of hook names is what the numbers say, for every family in it."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tr

from saesweep.experiment.hook_names import _FAMILIES, hugging_face_hook, transformer_lens_hook
from saesweep.models.bridge import BridgeModel, build_bridge
from saesweep.models.huggingface import HuggingFaceModel
from saesweep.models.pretrained import quiet
from saesweep.models.shape import shape_activations
from tests.models.tiny import D_VOCAB, save_tokenizer

PLAIN: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": D_VOCAB,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA: dict[str, Any] = {**PLAIN, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": D_VOCAB}
IDS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}

CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: tr.GPT2Config(**GPT2, **IDS),
    "gpt_neo": lambda: tr.GPTNeoConfig(
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        vocab_size=D_VOCAB,
        max_position_embeddings=64,
        attention_types=[[["global", "local"], 1]],
        **IDS,
    ),
    "gptj": lambda: tr.GPTJConfig(**GPT2, rotary_dim=4, **IDS),
    "gpt_neox": lambda: tr.GPTNeoXConfig(**PLAIN, intermediate_size=48, max_position_embeddings=64),
    "llama": lambda: tr.LlamaConfig(**LLAMA),
    "mistral": lambda: tr.MistralConfig(**LLAMA),
    "mixtral": lambda: tr.MixtralConfig(**LLAMA, num_local_experts=4),
    "stablelm": lambda: tr.StableLmConfig(**LLAMA),
    "olmo": lambda: tr.OlmoConfig(**LLAMA, pad_token_id=0),
    "olmo2": lambda: tr.Olmo2Config(**LLAMA, pad_token_id=0),
    "qwen2": lambda: tr.Qwen2Config(**LLAMA),
    "qwen3": lambda: tr.Qwen3Config(**LLAMA, head_dim=8),
    "gemma": lambda: tr.GemmaConfig(**LLAMA, head_dim=8),
    "gemma2": lambda: tr.Gemma2Config(**LLAMA, head_dim=8),
    "gemma3_text": lambda: tr.Gemma3TextConfig(**LLAMA, head_dim=8),
    "phi": lambda: tr.PhiConfig(**LLAMA),
    "phi3": lambda: tr.Phi3Config(**LLAMA, pad_token_id=0),
    "falcon": lambda: tr.FalconConfig(**PLAIN),
    "opt": lambda: tr.OPTConfig(
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=D_VOCAB,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
        init_std=0.2,
    ),
    "bloom": lambda: tr.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=D_VOCAB, **IDS),
}
POINTS = ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")


def test_every_family_is_tested() -> None:
    assert CONFIGS.keys() == _FAMILIES.keys()


@pytest.mark.parametrize("family", CONFIGS)
def test_corresponding_hooks_hold_the_same_activations(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)  # TransformerLens prefers other names
    save_tokenizer(tmp_path)
    tokenizer = tr.AutoTokenizer.from_pretrained(tmp_path)
    torch.manual_seed(0)
    model = tr.AutoModelForCausalLM.from_config(CONFIGS[family](), attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # a norm that is 1 or a bias that is 0 would hide a wrong place
            torch.nn.init.normal_(parameter, float(parameter.detach().mean()), 0.3)
    ours = HuggingFaceModel(copy.deepcopy(model), tokenizer)
    model_type = model.config.model_type
    assert model_type == family
    model.config.architectures = [type(model).__name__]
    with quiet():
        theirs = BridgeModel(build_bridge(model, tokenizer, family, torch.float32, "cpu"), tokenizer)
    tokens = torch.randint(3, D_VOCAB, (3, 9), generator=torch.Generator().manual_seed(1))

    mapped = 0
    for point in POINTS:
        name = f"blocks.1.{point}"
        hook = hugging_face_hook(name, model_type)
        if hook is None:
            continue
        mapped += 1
        assert transformer_lens_hook(hook, model_type) == name
        a, b = ours.activations(tokens, [hook])[hook], shape_activations(theirs.activations(tokens, [name])[name])
        assert b.std() > 0.05
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        # Two places with the same values would prove nothing, so the others must differ.
        for other in POINTS:
            if other != point:
                elsewhere = shape_activations(theirs.activations(tokens, [f"blocks.1.{other}"])[f"blocks.1.{other}"])
                assert not torch.allclose(a, elsewhere, atol=1e-2)
    assert mapped >= 4


def test_a_bare_body_has_shorter_names() -> None:
    assert transformer_lens_hook("layers.3.mlp", "llama") == "blocks.3.hook_mlp_out"
    assert transformer_lens_hook("h.0", "gpt2") == "blocks.0.hook_resid_post"
    assert transformer_lens_hook("layers.3") is None


def test_names_without_a_counterpart() -> None:
    # Gemma 2 normalises its MLP's output first; an OPT block has no MLP module.
    assert transformer_lens_hook("model.layers.3.mlp", "gemma2") is None
    assert hugging_face_hook("blocks.3.hook_mlp_out", "opt") is None
    assert transformer_lens_hook("model.layers.3.mlp:input", "llama") is None
    assert transformer_lens_hook("model.layers.3:input", "llama") == "blocks.3.hook_resid_pre"
    assert hugging_face_hook("blocks.3.hook_resid_pre", "llama") == "model.layers.3:input"
    assert hugging_face_hook("blocks.3.attn.hook_z", "gpt2") == "transformer.h.3.attn.c_proj:input"
    assert transformer_lens_hook("model.layers.3.self_attn.o_proj:input", "some new type") is None
    assert hugging_face_hook("blocks.3.hook_resid_post", "some new type") is None
    assert transformer_lens_hook("model.layers.3", "some new type") == "blocks.3.hook_resid_post"
