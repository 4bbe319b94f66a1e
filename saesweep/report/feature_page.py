"""The feature page: every latent of an SAE, with the text it fires on, as one HTML page below 5 MB."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from saesweep.errors import UserError
from saesweep.report.feature_data import FeatureData, SAEFeatures
from saesweep.report.features import BINS, INTERVALS, Described
from saesweep.report.html import render
from saesweep.specs.joint_hooks import hooks_in

MAX_BYTES = 5_000_000


def feature_page(data: FeatureData, *, report_link: str | None = None, max_bytes: int = MAX_BYTES) -> str:
    """Return the page. Where it would be larger than `max_bytes`, fewer latents come with examples, and it says so.

    Args:
        data: What was gathered.
        report_link: Address of the report; None where there is none.
        max_bytes: Size of the page.

    Raises:
        UserError: Even without examples the SAEs have too many latents for one page.
    """
    share = 1.0
    page = _page(data, share, report_link)
    fits, too_large = 0.0, 1.0
    if len(page.encode()) <= max_bytes:
        return page
    best = ""
    for _ in range(6):
        share = (fits + too_large) / 2
        page = _page(data, share, report_link)
        if len(page.encode()) <= max_bytes:
            best, fits = page, share
        else:
            too_large = share
    if not best:
        raise UserError(
            f"{data.title}: the feature page would be larger than {max_bytes / 1e6:g} MB without any example"
        )
    return best


def _page(data: FeatureData, share: float, report_link: str | None) -> str:
    kept = [list(one.described)[: round(share * len(one.described))] for one in data.saes]
    used = sorted({e.context for own in kept for latent in own for e in latent.examples})
    places = {context: place for place, context in enumerate(used)}
    contexts, vocabulary = _compact(data, used, kept)
    content = {
        "bins": BINS,
        "intervals": INTERVALS,
        "contexts": contexts,
        "vocabulary": vocabulary,
        "saes": [_sae_json(one, own, places) for one, own in zip(data.saes, kept, strict=True)],
    }
    return render(
        "features.html",
        title=data.title,
        data=data,
        described=[len(own) for own in kept],
        report_link=report_link,
        content=json.dumps(content, separators=(",", ":"), ensure_ascii=False),
    )


def _compact(
    data: FeatureData, used: Sequence[int], kept: Sequence[Sequence[Described]]
) -> tuple[list[list[int]], dict[int, str]]:
    """Return the contexts that are shown, and the text of the tokens that appear anywhere."""
    contexts = [data.contexts[context] for context in used]
    ids = {token for tokens in contexts for token in tokens}
    for one, own in zip(data.saes, kept, strict=True):
        ids |= set(one.scan.peak_token_F.tolist())
        ids |= {token for latent in own for token, _ in (*latent.promoted, *latent.suppressed)}
    return contexts, {token: text for token, text in data.vocabulary.items() if token in ids}


def _sae_json(one: SAEFeatures, kept: Sequence[Described], places: dict[int, int]) -> dict[str, Any]:
    scan = one.scan
    means = (scan.sum_F / scan.fired_F.clamp(min=1)).tolist()
    return {
        "name": one.shown.name,
        "hooks": list(hooks_in(one.shown.hook)),
        "tokens": scan.n_tokens,
        "bands": [band.name for band in one.bands],
        # One entry for each latent: band, tokens on which it fires, mean where it fires, maximum, token of the maximum.
        "b": list(one.band_of),
        "f": scan.fired_F.tolist(),
        "a": [_short(value) for value in means],
        "m": [_short(value) for value in scan.max_F.tolist()],
        "t": scan.peak_token_F.tolist(),
        "latents": {latent.number: _latent_json(latent, places) for latent in kept},
    }


def _latent_json(latent: Described, places: dict[int, int]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "h": latent.histogram,
        "p": [[token, _short(value)] for token, value in latent.promoted],
        "s": [[token, _short(value)] for token, value in latent.suppressed],
        "k": [[number, round(cosine, 3)] for number, cosine in latent.neighbours],
        "x": [
            [
                places[e.context],
                e.begin,
                e.end,
                e.peak,
                -1 if e.interval is None else e.interval,
                [number for at, value in e.activations.items() for number in (at - e.begin, _short(value))],
            ]
            for e in latent.examples
        ],
    }
    if latent.by_hook:
        found["d"] = [_short(share) for share in latent.by_hook]
    if latent.beside is not None:
        found["o"] = [latent.beside[0], round(latent.beside[1], 3)]
    return found


def _short(value: float) -> float:
    return float(f"{value:.3g}")
