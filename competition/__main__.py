"""Run the command line: python -m competition SUBCOMMAND."""

import sys
import traceback

import competition.common.collector  # noqa: F401
from competition.common.errors import USER_ERROR, UserError
from competition.common.imports import importing_models


def run() -> int:
    """Import and run the command line; report in one line that `models` can't be imported."""
    try:
        with importing_models():
            from competition.cli.main import main
    except UserError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    return main()


if __name__ == "__main__":
    sys.exit(run())
