"""Trains the built-in language model from scratch on the built-in text and writes its folder.

    python -m saesweep.builtin.train --out saesweep/builtin/tiny_lm        # 10 to 20 minutes on 2 CPU cores

Features:
- a Llama-type model of about 1.1 million parameters with its own byte-level BPE tokenizer, in Hugging Face format;
- contexts start with BOS and are packed with BOS between documents (SAELens: `prepend_bos: true`,
  `sequence_separator_token: bos`), so SAEs see activations of the kind that the model was trained on;
- 2% of the documents (`text.is_held_out`) are never trained on; `card.json` records the loss there, measured on the
  weights as written, beside the unigram entropy of the same tokens, and the command that reproduces it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from saesweep.builtin.text import documents, documents_digest, is_held_out

# Tensor legend: N = contexts, B = batch of contexts, T = positions in a context, V = vocabulary.


PROMPT = "Return a list of"
"""Start of the sample in the card."""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line (`argv`, default: the process's own)."""
    parser = argparse.ArgumentParser(prog="python -m saesweep.builtin.train", description="Train the built-in model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; created if need be")
    parser.add_argument("--steps", type=int, default=8000, help="optimiser steps")
    parser.add_argument("--batch-contexts", type=int, default=4, help="contexts in a batch")
    parser.add_argument("--context-size", type=int, default=256, help="tokens in a context, BOS included")
    parser.add_argument("--vocab-size", type=int, default=2048, help="tokens in the vocabulary")
    parser.add_argument("--d-model", type=int, default=128, help="width of the residual stream")
    parser.add_argument("--layers", type=int, default=4, help="transformer blocks")
    parser.add_argument("--heads", type=int, default=4, help="attention heads in a block")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (AdamW, cosine to a tenth)")
    parser.add_argument("--weight-decay", type=float, default=0.1, help="AdamW weight decay of matrices")
    parser.add_argument("--max-documents", type=int, default=None, help="use only so many documents (for tests)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; part of the run's identity")
    parser.add_argument("--seed", type=int, default=0, help="seed of initialisation and order")
    return parser.parse_args(argv)


def pack(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, context_size: int) -> Tensor:
    """Packs documents into contexts: `BOS document BOS document ...`, cut so that each context starts with BOS.

    Args:
        texts: Documents.
        tokenizer: Its BOS token starts contexts and separates documents.
        context_size: Tokens in a context (T), BOS included.

    Returns:
        Token ids, shape [N, T], int64. The incomplete last context is dropped.

    Raises:
        ValueError: If the documents do not fill one context.
    """
    bos = tokenizer.bos_token_id
    assert isinstance(bos, int)
    stream: list[int] = []
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        stream.extend([*ids, bos])
    width = context_size - 1  # the first position is always a BOS of its own
    count = len(stream) // width
    if count == 0:
        raise ValueError(f"{len(texts)} documents hold {len(stream)} tokens: fewer than one context of {context_size}")
    tokens_NT = torch.full((count, context_size), bos)
    tokens_NT[:, 1:] = torch.tensor(stream[: count * width]).view(count, width)
    return tokens_NT


def build_model(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A randomly initialised model of the command line's shape, in fp32."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=args.d_model,
            intermediate_size=3 * args.d_model,
            num_hidden_layers=args.layers,
            num_attention_heads=args.heads,
            max_position_embeddings=args.context_size,
            tie_word_embeddings=True,  # a quarter of so small a model would go into a second embedding
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
        )
    )


def next_token_loss(model: LlamaForCausalLM, tokens_BT: Tensor) -> Tensor:
    """Mean cross-entropy of each token given those before it, nats per token, a scalar."""
    logits_BTV = model(input_ids=tokens_BT, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1).float(), tokens_BT[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, tokens_NT: Tensor, batch_contexts: int = 16) -> float:
    """Mean next-token loss over contexts of shape [N, T], nats per token."""
    model.eval()
    total = 0.0
    for start in range(0, len(tokens_NT), batch_contexts):
        batch_BT = tokens_NT[start : start + batch_contexts]
        total += next_token_loss(model, batch_BT).item() * len(batch_BT)
    return total / len(tokens_NT)


def unigram_entropy(tokens_NT: Tensor) -> float:
    """Entropy, nats per token, of the frequencies of the predicted tokens themselves (the first column is given).

    The best that any context-free predictor could reach on these very tokens, so a strict bar for a model.
    """
    counts_V = torch.bincount(tokens_NT[:, 1:].flatten()).double()
    probabilities_V = counts_V[counts_V > 0] / counts_V.sum()
    return -(probabilities_V * probabilities_V.log()).sum().item()


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 2% of the steps, then a cosine down to a tenth of the peak."""
    warm_up_steps = max(1, steps // 50)
    if step < warm_up_steps:
        return peak * (step + 1) / warm_up_steps
    progress = (step - warm_up_steps) / max(1, steps - warm_up_steps)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def train(model: LlamaForCausalLM, train_NT: Tensor, held_out_NT: Tensor, args: argparse.Namespace) -> float:
    """Trains `model` in place and prints progress.

    Args:
        model: Model in fp32.
        train_NT: Contexts to train on, drawn without replacement in every epoch.
        held_out_NT: Contexts to report the loss on.
        args: The command line.

    Returns:
        Seconds that the loop took.
    """
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    gains = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": args.weight_decay}, {"params": gains, "weight_decay": 0.0}],
        lr=args.lr,
        betas=(0.9, 0.95),
    )
    generator = torch.Generator().manual_seed(args.seed)
    order: list[int] = []
    started = time.monotonic()
    for step in range(args.steps):
        while len(order) < args.batch_contexts:
            order.extend(torch.randperm(len(train_NT), generator=generator).tolist())
        batch_BT, order = train_NT[order[: args.batch_contexts]], order[args.batch_contexts :]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        model.train()
        loss = next_token_loss(model, batch_BT)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        if done % 100 == 0 or done == args.steps:
            seconds = time.monotonic() - started
            tokens_per_second = done * batch_BT.numel() / seconds
            left_seconds = seconds / done * (args.steps - done)
            held_out = f", held out {held_out_loss(model, held_out_NT):.3f}" if done % 500 == 0 else ""
            print(
                f"step {done}/{args.steps}: loss {loss.item():.3f}{held_out}, "
                f"{tokens_per_second:,.0f} tokens/s, {left_seconds:.0f} s left",
                flush=True,
            )
    return time.monotonic() - started


def write_folder(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> LlamaForCausalLM:
    """Writes model and tokenizer, weights in fp16, and returns the model as read back from the folder, in fp32."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # fp16 halves the file; the config says fp32 so that a plain `from_pretrained` computes in fp32, also on CPUs.
    config = json.loads((folder / "config.json").read_text())
    _write_json(folder / "config.json", {**config, "dtype": "float32"})
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert isinstance(loaded, LlamaForCausalLM)
    return loaded


@torch.no_grad()
def sample(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, seed: int, tokens: int = 80
) -> str:
    """Continues `prompt` by up to `tokens` tokens drawn at temperature 0.7, stopping where a document ends."""
    generator = torch.Generator().manual_seed(seed)
    bos = tokenizer.bos_token_id
    ids = [bos, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    for _ in range(tokens):
        logits_V = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].float()
        chosen = int(torch.multinomial(torch.softmax(logits_V / 0.7, -1), 1, generator=generator))
        if chosen == bos:
            break
        ids.append(chosen)
    return str(tokenizer.decode(ids[1:]))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the script; returns the card it wrote."""
    args = parse_arguments(argv)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    texts = documents()[: args.max_documents]
    train_texts = [text for text in texts if not is_held_out(text)]
    tokenizer = train_tokenizer(train_texts, args.vocab_size)
    train_NT = pack(train_texts, tokenizer, args.context_size)
    held_out_NT = pack([text for text in texts if is_held_out(text)], tokenizer, args.context_size)
    model = build_model(args, tokenizer)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters; {train_NT.numel():,} tokens to train on, {held_out_NT.numel():,} held out")

    seconds = train(model, train_NT, held_out_NT, args)
    model = write_folder(model, tokenizer, args.out)
    card = {
        "description": "Llama-type language model trained from scratch on the English of the Python standard library",
        "held_out_loss_nats_per_token": round(held_out_loss(model, held_out_NT), 4),
        "held_out_unigram_entropy_nats_per_token": round(unigram_entropy(held_out_NT), 4),
        "held_out_tokens": held_out_NT.numel(),
        "parameters": parameters,
        "training_tokens": args.steps * args.batch_contexts * args.context_size,
        "training_tokens_unique": train_NT.numel(),
        "training_seconds": round(seconds),
        "seed": args.seed,
        "threads": args.threads,
        "documents_sha256": documents_digest(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "command": shlex.join(["python", "-m", "saesweep.builtin.train", *(sys.argv[1:] if argv is None else argv)]),
        "arguments": {name: value for name, value in vars(args).items() if name != "out"},
        "sample": {"seed": args.seed, "temperature": 0.7, "text": sample(model, tokenizer, PROMPT, args.seed)},
    }
    _write_json(args.out / "card.json", card)
    print(json.dumps(card, indent=2))
    return card


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

BOS_TOKEN = "<|bos|>"
EOS_TOKEN = "<|eos|>"


def train_tokenizer(documents: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE, which can write any text: there is no unknown token.

    It adds no special tokens by itself, as GPT-2's and Pythia's: whoever packs contexts puts BOS where it belongs.

    Args:
        documents: The training text.
        vocab_size: Tokens in the vocabulary, `BOS_TOKEN` (id 0), `EOS_TOKEN` (id 1) and the 256 bytes included.

    Returns:
        The tokenizer; `save_pretrained` writes it as `AutoTokenizer.from_pretrained` reads it.
    """
    bpe = Tokenizer(models.BPE())
    # Runs of spaces are one token each (they indent examples) and digits stay single, as in most recent tokenizers.
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS_TOKEN, EOS_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        pad_token=EOS_TOKEN,
        clean_up_tokenization_spaces=False,  # decode gives back exactly the text that was encoded
    )
