"""Tiny random models with a tokenizer, written to a folder in a fraction of a second."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from saesweep.specs.base_run import BaseRun

WORDS = [f"w{number}" for number in range(120)]
SPECIAL = ["<unk>", "<s>", "</s>"]
BOS, EOS = 1, 2
D_VOCAB = len(SPECIAL) + len(WORDS)
HIDDEN = 32


def word_id(number: int) -> int:
    """Token id of the word `w<number>`."""
    return len(SPECIAL) + number


def save_tokenizer(folder: Path) -> None:
    """A word-level tokenizer that adds BOS by itself, as Llama's does."""
    vocab = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


def save_llama(folder: Path, *, layers: int = 3) -> Path:
    """A random Llama; weights large enough that activations differ well beyond rounding."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=D_VOCAB,
        max_position_embeddings=64,
        bos_token_id=BOS,
        eos_token_id=EOS,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_gpt2(folder: Path) -> Path:
    """A random GPT-2: query, key and value in one weight."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=HIDDEN, n_layer=2, n_head=4, vocab_size=D_VOCAB, n_positions=64, bos_token_id=BOS, eos_token_id=EOS
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_bert(folder: Path) -> Path:
    """A random BERT: no causal mask, no next-token head."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=D_VOCAB,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_mixtral(folder: Path) -> Path:
    """A random mixture of experts in float32, whose grouped product has no rule for tensors without values."""
    torch.manual_seed(0)
    config = MixtralConfig(
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        vocab_size=D_VOCAB,
        max_position_embeddings=64,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_t5(folder: Path) -> Path:
    """A random encoder-decoder."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=D_VOCAB, d_model=HIDDEN, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_vit(folder: Path) -> Path:
    """A random model of images."""
    config = ViTConfig(
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=32,
        patch_size=16,
    )
    ViTModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def run_of(**fields: Any) -> BaseRun:
    """A small base run on the CPU."""
    values: dict[str, Any] = {
        "hook_name": "model.layers.1",
        "dataset_path": "unused",
        "device": "cpu",
        "context_size": 16,
        "train_batch_size_tokens": 64,
        "store_batch_size_prompts": 4,
        "buffer_tokens": 512,
        "sae": {"architecture": "topk", "k": 4, "d_sae": 64},
    }
    return BaseRun.model_validate({**values, **fields})
