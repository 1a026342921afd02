"""The command line: runs a subcommand, and turns errors into one line and an exit code."""

import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from competition.cli.commands import MENDABLE
from competition.cli.flags import Handler, parse
from competition.cli.hints import with_knobs
from competition.common.console import Console, printable
from competition.common.errors import UserError
from competition.common.workspace import Workspace

FAILED, INTERRUPTED, TERMINATED = 1, 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code (see FAILED and the others above; 0 is done)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    workspace = Workspace()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        options = parse(arguments)
        workspace = Workspace(
            data=options.data, folds=options.folds, submissions=options.submissions, seed=options.seed
        )
        options.arguments = arguments
        handler: Handler = options.handler
        return handler(options, workspace, Console()) or 0
    except UserError as error:
        return _say(f"error: {with_knobs(str(error), workspace)}", MENDABLE, debug)
    except OSError as error:  # a full disk, a folder that can't be written
        where = f" ({error.filename})" if error.filename else ""
        return _say(f"error: {error.strerror or error}{where}: make room or mend the permissions", MENDABLE, debug)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != TERMINATED:
            raise
        code = TERMINATED if isinstance(error, SystemExit) else INTERRUPTED
        goes_on = "the same command goes on where this one stopped"
        sent = "look at ledger.csv and the competition's page before sending again"
        return _say(f"interrupted: {sent if 'submit' in arguments[:1] else goes_on}", code, debug)


def _say(text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(printable(text.replace("\n", " ")), file=sys.stderr)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)
