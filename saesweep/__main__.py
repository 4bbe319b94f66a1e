"""`python -m saesweep`."""

import sys

from saesweep.cli import main

if __name__ == "__main__":
    sys.exit(main())
