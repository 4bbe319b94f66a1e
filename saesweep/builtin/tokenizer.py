"""The built-in language model's tokenizer: byte-level BPE trained on the built-in text."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

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
