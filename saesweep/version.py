"""The version of the package, for whatever writes or says it."""

__version__ = "0.1.0"
