"""Tokenise and pack a dataset once, for any number of runs of saesweep and of SAELens."""

from saesweep.activations.pretokenize.run import Pretokenized, PretokenizeProgress, pretokenize

__all__ = ["PretokenizeProgress", "Pretokenized", "pretokenize"]
