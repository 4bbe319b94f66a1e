"""Readers of published SAEs, one file per format; `table.py` lists them in the order in which they are asked.

A reader is a function from a place (a folder here, or one on the Hub) to an SAE, or to None where the files there are of another
format. It returns the peer's own latents and reconstructions on raw activations, or refuses with one message.
"""
