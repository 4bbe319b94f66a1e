"""Exit codes of the command line."""

DONE = 0
BUG = 1
MISTAKE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE, what a shell reports of a program that writes to a closed pipe."""
