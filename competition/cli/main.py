"""Entry point of the command line: runs a subcommand and turns errors into one line and an exit code."""

import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from competition.cli.commands import USER_ERROR
from competition.cli.flags import Handler, parse
from competition.cli.hints import complete_commands, describe
from competition.common.console import Console, printable
from competition.common.errors import UserError
from competition.common.workspace import Workspace

FAILED, INTERRUPTED, TERMINATED = 1, 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0, USER_ERROR, FAILED, INTERRUPTED or TERMINATED."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    workspace = Workspace()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        options = parse(arguments)
        workspace = Workspace(
            data=options.data, folds=options.folds, submissions=options.submissions, seed=options.seed
        )
        handler: Handler = options.handler
        console = Console()
        console.activate()
        return handler(options, workspace, console) or 0
    except UserError as error:
        return _print_error(f"error: {complete_commands(describe(error, workspace), workspace)}", USER_ERROR, debug)
    except OSError as error:  # a full disk, a read-only folder
        where = f" ({error.filename})" if error.filename else ""
        message = f"error: {error.strerror or error}{where}: free disk space or fix the permissions"
        return _print_error(message, USER_ERROR, debug)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != TERMINATED:
            raise
        code = TERMINATED if isinstance(error, SystemExit) else INTERRUPTED
        resume = "run the same command again; data, train and reproduce resume where they stopped"
        submitted = "check ledger.csv and the competition's page before you submit again"
        return _print_error(f"interrupted: {submitted if 'submit' in arguments[:1] else resume}", code, debug)


def _print_error(text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(printable(text.replace("\n", " ")), file=sys.stderr)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)
