"""Run the command line: python -m competition SUBCOMMAND."""

import sys

from competition.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
