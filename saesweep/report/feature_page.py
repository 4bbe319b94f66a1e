"""The feature page: a sample of the winner's latents with the text they fire on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saesweep.errors import UserError
from saesweep.experiment import AsWritten, load_experiment, stream_of, streams_of
from saesweep.report.data import RunData
from saesweep.report.densities import counted_on, read_log10_densities
from saesweep.report.features import BANDS, Latent, describe_latents, sample_latents, unembedding_of
document = escape = json_script = None

MAX_BYTES = 5_000_000


def why_no_features(run: RunData) -> str | None:
    """Return why a run can have no feature page; None where it can."""
    if run.best is None or not (run.directory.best / "cfg.json").exists():
        return "There is no feature page: no SAE is exported yet."
    if load_experiment(run.directory.experiment_file, env=AsWritten()).base_run().is_synthetic:
        return "There is no feature page: synthetic activations have no text."
    return None


def feature_page(
    run: RunData,
    *,
    per_band: int,
    latents: Sequence[int],
    max_tokens: int,
    report_link: str,
    allow_code_execution: bool = False,
) -> str:
    """Return the page of the best SAE; runs the language model over the held-out `test` part.

    Args:
        run: A run with an exported SAE.
        per_band: Latents per density band.
        latents: Further latents to show.
        max_tokens: Held-out activations to look at.
        report_link: Address of the report.
        allow_code_execution: Let the run's file say that code beside the model may run; a run directory can be a
            stranger's.

    Raises:
        UserError: The run has no text or no exported SAE, or a latent does not exist.
    """
    from saesweep.activations import open_source
    from saesweep.models import resolve_device
    from saesweep.saes import load_sae_folder

    best = run.best
    why_not = why_no_features(run)
    if best is None or why_not is not None:
        raise UserError(f"{run.directory.path}: {why_not}")
    whole = load_experiment(run.directory.experiment_file, is_own=allow_code_execution)
    experiment = stream_of(streams_of(whole), best.params).experiment
    base = experiment.base_run()
    sae = load_sae_folder(run.directory.best).to(resolve_device(base.device))
    strangers = [number for number in latents if not 0 <= number < sae.d_sae]
    if strangers:
        raise UserError(f"--latents: the SAE has latents 0 to {sae.d_sae - 1}, no {strangers[0]}")
    frequencies = read_log10_densities(run.directory.best)
    chosen = sample_latents(frequencies, per_band, seed=base.seed, always=latents)
    source = open_source(base, experiment.spec.evaluation, experiment.hook_names())
    assert source.model is not None
    try:
        found = describe_latents(
            sae,
            source.test,
            best.hook,
            chosen,
            max_tokens=max_tokens,
            unembedding_VD=unembedding_of(source.model),
        )
        tokens = min(max_tokens, source.test.n_tokens)
        vocabulary = _vocabulary(source.model.tokenizer, found)
    finally:
        source.close()
    data = {
        "bands": [name for _, _, name in BANDS],
        "tokens": tokens,
        "d_sae": sae.d_sae,
        "vocabulary": vocabulary,
        "latents": [_json(latent) for latent in found],
    }
    title = f"{run.board.name}: latents of trial {best.number}"
    body = (
        f"<h1>{escape(title)}</h1><p>{escape(best.architecture)} {escape(best.sparsity)} at {escape(best.hook)} · "
        f'<a href="{escape(report_link)}">report</a></p>'
        f'<p class="note">A random sample of each density band ({escape(counted_on(run.directory.best))}). '
        "Snippets are the strongest contexts of the held-out "
        "<i>test</i> part; the outlined token is where the latent is strongest, shades are relative to its maximum. "
        "Promoted and suppressed output tokens: decoder direction times unembedding (direct path only).</p>"
        '<div id="controls"><input type="search" id="search" placeholder="number, token or text" aria-label="search">'
        '<select id="band" aria-label="density band"><option value="">all densities</option></select>'
        '<span id="count"></span></div><div id="latents"></div>' + json_script("data", data)
    )
    page = document(title, body, css=("page.css", "features.css"), scripts=("features.js",))
    if len(page.encode()) > MAX_BYTES:
        raise UserError(f"the feature page would be larger than 5 MB; show fewer than {per_band} latents per band")
    return page


def _json(latent: Latent) -> dict[str, Any]:
    return {
        "n": latent.number,
        "b": latent.band,
        "d": _short(latent.density),
        "a": _short(latent.mean_active),
        "m": _short(latent.maximum),
        "p": [[token, _short(value)] for token, value in latent.promoted],
        "s": [[token, _short(value)] for token, value in latent.suppressed],
        "c": [[s.tokens, [_short(value) for value in s.activations], s.peak] for s in latent.snippets],
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _vocabulary(tokenizer: Any, latents: Sequence[Latent]) -> dict[int, str]:
    ids = {
        token
        for latent in latents
        for token in (
            *(token for token, _ in (*latent.promoted, *latent.suppressed)),
            *(token for snippet in latent.snippets for token in snippet.tokens),
        )
    }
    return {token: token_text(tokenizer, token) for token in sorted(ids)}


def token_text(tokenizer: Any, token: int) -> str:
    """Return a token as it reads inside a text: SentencePiece's decoding of a single token drops its leading space."""
    text: str = tokenizer.decode([token])
    piece = str(tokenizer.convert_ids_to_tokens(token))
    if piece.startswith("\u2581") and not text.startswith(" "):
        return " " + text
    if piece.startswith("<0x") and text == "\ufffd":  # one byte of a character
        return piece
    return text
