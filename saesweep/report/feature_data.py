"""Runs the model over held-out text and gathers what the feature page and the exports show, in density bands that fit the tokens counted."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from saesweep.activations import open_source
from saesweep.activations.encoding import special_token
from saesweep.errors import UserError
from saesweep.evaluation.compare import check_widths
from saesweep.models import resolve_device
from saesweep.report.feature_scan import Scan, scan
from saesweep.report.feature_sources import FeatureSource, Shown
from saesweep.report.features import Described, describe, nearest, unembedding_of

JUDGED_ON = 10
"""Tokens that a latent must fire on before its density says anything."""
_INTERPRETABLE = 0.01
"""Latents that fire on more of the tokens than this are seldom about one thing."""


@dataclass(frozen=True)
class Band:
    """Latents that fire about as often."""

    name: str
    low: float
    """Share of the tokens, included."""
    high: float
    """Share of the tokens, left out."""
    n_latents: int


def bands_of(densities: Sequence[float], n_tokens: int) -> list[Band]:
    """Return the bands that hold latents, interpretable ones first, then denser ones, then those that fire too seldom.

    Args:
        densities: Share of the tokens on which each latent fires.
        n_tokens: Tokens that were counted; below ten of them a latent is too rare to be judged.
    """
    floor = min(1.0, JUDGED_ON / max(1, n_tokens))
    edges = [floor, *(edge for edge in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1) if edge > 1.5 * floor), float("inf")]
    ranges = list(itertools.pairwise(edges))
    ordered = [pair for pair in reversed(ranges) if pair[1] <= _INTERPRETABLE]
    ordered += [pair for pair in ranges if pair[1] > _INTERPRETABLE]
    named = [
        (f"fires on {_share(low)} to {_share(high)}" if high <= 1 else f"fires on more than {_share(low)}", low, high)
        for low, high in ordered
    ]
    named += [(f"fires on fewer than {JUDGED_ON} of {n_tokens:,} tokens", 1e-300, floor), ("never fires", 0.0, 1e-300)]
    found = []
    for name, low, high in named:
        count = sum(low <= density < high for density in densities)
        if count:
            found.append(Band(name, low, high, count))
    return found


def _share(value: float) -> str:
    return f"{100 * value:.2g}%"


def band_index(bands: Sequence[Band], density: float) -> int:
    """Return the band of a latent."""
    return next(i for i, band in enumerate(bands) if band.low <= density < band.high)


MAX_DESCRIBED = 4096
"""Latents in detail, of all SAEs of a page together: more would not fit into it."""


@dataclass(frozen=True, kw_only=True)
class SAEFeatures:
    """One SAE of the page and its latents."""

    shown: Shown
    scan: Scan
    bands: Sequence[Band]
    band_of: Sequence[int]
    """The band of each latent."""
    described: Sequence[Described]
    """In the order in which they are kept where not all have room."""


@dataclass(frozen=True, kw_only=True)
class FeatureData:
    """Everything that a feature page shows."""

    title: str
    saes: Sequence[SAEFeatures]
    dataset: str
    model: str
    context_size: int
    contexts: dict[int, list[int]]
    """Token ids of the contexts that examples come from."""
    vocabulary: dict[int, str]
    is_separated: bool
    """Whether a token stands between the documents of a context."""
    unembedding_VD: Tensor | None
    notes: Sequence[str]


def gather(
    source: FeatureSource, *, max_tokens: int, latents: Sequence[int] = (), max_described: int = MAX_DESCRIBED
) -> FeatureData:
    """Run the language model over the held-out `test` part and look at every latent.

    Args:
        source: SAEs and where their text comes from.
        max_tokens: Held-out activations to look at.
        latents: Latents that are described whatever their number.
        max_described: Latents to describe in detail, of all SAEs together.

    Raises:
        UserError: A latent does not exist, or the model, the text or a hook cannot be had.
    """
    first = source.shown[0].sae
    strangers = [number for number in latents if not 0 <= number < first.d_sae]
    if strangers:
        raise UserError(f"--latents: the SAE has latents 0 to {first.d_sae - 1}, no {strangers[0]}")
    run = source.experiment.base_run()
    device = resolve_device(run.device)
    opened = open_source(run, source.experiment.spec.evaluation, source.hooks)
    try:
        if opened.model is None:
            raise UserError(f"{source.title}: cached activations have no text; name a model and a dataset")
        check_widths(
            [own.name for own in source.shown],
            [own.sae for own in source.shown],
            [own.hook for own in source.shown],
            opened,
        )
        tokenizer, held_out = opened.model.tokenizer, opened.test
        separators = {token for name in ("bos", "eos", "sep") if (token := special_token(tokenizer, name)) is not None}
        if isinstance(run.sequence_separator_token, int):
            separators.add(run.sequence_separator_token)
        # A crosscoder has no one decoder direction to multiply with the unembedding.
        has_direction = any(own.sae.n_layers == 1 for own in source.shown)
        unembedding_VD = unembedding_of(opened.model) if has_direction else None
        found: list[SAEFeatures] = []
        always = list(latents)
        scans = [scan(shown.sae.to(device), held_out, shown.hook, max_tokens) for shown in source.shown]
        for i, (shown, scanned) in enumerate(zip(source.shown, scans, strict=True)):
            sae = shown.sae.to(device)
            densities = scanned.density_F.tolist()
            bands = bands_of(densities, scanned.n_tokens)
            band_of = [band_index(bands, density) for density in densities]
            numbers = _order(band_of, always, run.seed)[: max(1, max_described // len(source.shown))]
            described = describe(
                sae,
                held_out,
                shown.hook,
                scanned,
                numbers,
                max_tokens=max_tokens,
                unembedding_VD=unembedding_VD,
                separators=separators,
                seed=run.seed,
            )
            found.append(SAEFeatures(shown=shown, scan=scanned, bands=bands, band_of=band_of, described=described))
            if len(source.shown) == 2 and sae.d_in == source.shown[1].sae.d_in:
                other = source.shown[1 - i].sae.to(device)
                for own, near in zip(described, nearest(sae, other, numbers, 1, scans[1 - i]), strict=True):
                    own.beside = next(iter(near), None)
                always = [own.beside[0] for own in described if own.beside is not None]
        used = {e.context for one in found for own in one.described for e in own.examples}
        assert held_out.tokens_NT is not None
        contexts = {context: held_out.tokens_NT[context].tolist() for context in sorted(used)}
        vocabulary = _vocabulary(tokenizer, found, contexts)
    finally:
        opened.close()
    return FeatureData(
        title=source.title,
        saes=found,
        dataset=run.dataset_label,
        model=str(run.model_name),
        context_size=run.context_size,
        contexts=contexts,
        vocabulary=vocabulary,
        is_separated=run.sequence_separator_token is not None or run.disable_concat_sequences,
        unembedding_VD=unembedding_VD,
        notes=source.notes,
    )


def _order(band_of: Sequence[int], always: Sequence[int], seed: int) -> list[int]:
    """Return the latents in the order in which they are described: those asked for, then band by band at random."""
    luck = random.Random(seed)
    numbers = list(range(len(band_of)))
    luck.shuffle(numbers)
    numbers.sort(key=lambda number: band_of[number])
    return list(dict.fromkeys([*always, *numbers]))


def _vocabulary(tokenizer: Any, saes: Sequence[SAEFeatures], contexts: dict[int, list[int]]) -> dict[int, str]:
    ids = {token for tokens in contexts.values() for token in tokens}
    for one in saes:
        ids |= {token for token in one.scan.peak_token_F.tolist() if token >= 0}
        for own in one.described:
            ids |= {token for token, _ in (*own.promoted, *own.suppressed)}
    return {token: token_text(tokenizer, token) for token in sorted(ids)}


def _byte_characters() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for, by GPT-2's table, which all share."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(moved)}


_BYTE_OF = _byte_characters()
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


def token_text(tokenizer: Any, token: int) -> str:
    """Return a token as it reads inside a text: SentencePiece's decoding of a single token drops its leading space.

    Bytes that are only part of a character are written as SentencePiece does, `<0xE2>`, whatever the tokenizer.
    """
    text: str = tokenizer.decode([token])
    piece = str(tokenizer.convert_ids_to_tokens(token))
    if piece.startswith("\u2581") and not text.startswith(" "):
        return " " + text
    if piece.startswith("<0x") and text == "\ufffd":  # one byte of a character
        return piece
    if "\ufffd" in text and all(character in _BYTE_OF for character in piece):
        raw = bytes(_BYTE_OF[character] for character in piece)
        return _ESCAPED.sub(lambda match: f"<0x{match[1].upper()}>", raw.decode("utf-8", "backslashreplace"))
    return text
