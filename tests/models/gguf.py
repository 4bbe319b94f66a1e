"""A tiny GGUF file: configuration, weights and tokenizer of a Llama in one."""

from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

from tests.models.tiny import BOS, D_VOCAB, EOS, SPECIAL

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_PIECES = [*"▁w0123456789", "▁w", *(f"▁w{number}" for number in range(D_VOCAB))]
TOKENS = [*SPECIAL, *_PIECES][:D_VOCAB]
"""The words of the other tiny models, in SentencePiece's form, with the pieces that they are merged from."""


def save_gguf(llama: Path, file: Path) -> Path:
    """Write the Llama in `llama` (as `save_llama` makes it) to a GGUF file, with a vocabulary of its own."""
    import gguf

    model = LlamaForCausalLM.from_pretrained(llama)
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([-float(rank) for rank in range(D_VOCAB)])
    types = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.NORMAL] * (D_VOCAB - len(SPECIAL))]
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(_gguf_name(name), _as_stored(name, tensor.float(), config.head_dim))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, number, rest = stem.split(".", 3)
        return f"blk.{number}.{_NAMES[rest]}.{kind}"
    return f"{_NAMES[stem]}.{kind}"


def _as_stored(name: str, tensor: torch.Tensor, head_dim: int) -> np.ndarray:
    """GGUF keeps the rotary halves of queries and keys interleaved; a reader turns that around."""
    if "q_proj" in name or "k_proj" in name:
        tensor = tensor.unflatten(0, (tensor.shape[0] // head_dim, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)
    return tensor.contiguous().numpy()
