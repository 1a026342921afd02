"""python -m competition SUBCOMMAND."""

import sys

from competition.cli import main

if __name__ == "__main__":
    sys.exit(main())
