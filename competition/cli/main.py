"""Entry point of the command line: runs a subcommand and turns errors into one line and an exit code."""

import errno
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

from competition.cli.hints import describe
from competition.cli.parser import Invocation, parse
from competition.common.console import Console, printable
from competition.common.errors import USER_ERROR, UserError
from competition.common.stop import INTERRUPTED, TERMINATED
from competition.common.workspace import Workspace

_SPACE: Final = "free disk space or fix the permissions"
_FIXES: Final = {  # by the code of an OSError that has another cause
    errno.EISDIR: "expected a file, not a folder",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENAMETOOLONG: "use shorter names",
    errno.EIO: "the disk or the network drive failed",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0, USER_ERROR, INTERRUPTED or TERMINATED."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _terminate)
    invocation = None
    try:
        invocation = parse(arguments)
        Console().activate()
        return invocation.run() or 0
    except (UserError, OSError, KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != TERMINATED:
            raise
        if "--debug" in arguments:
            traceback.print_exc()
        return _print_line(*_explain(error, invocation))


def _explain(error: BaseException, invocation: Invocation | None) -> tuple[str, int]:
    """Return the line and the exit code for the end of a command, or of parsing (without `invocation`)."""
    if isinstance(error, UserError):
        return f"error: {describe(error, invocation.workspace if invocation else Workspace())}", USER_ERROR
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        fix = _FIXES.get(error.errno or 0, _SPACE)
        return f"error: {error.strerror or error}{where}: {fix}", USER_ERROR
    code = TERMINATED if isinstance(error, SystemExit) else INTERRUPTED
    if invocation and invocation.command == "submit":
        return "interrupted: check ledger.csv and the competition's page before you submit again", code
    return "interrupted: run the same command again; data, train, tune and reproduce resume where they stopped", code


def _print_line(text: str, code: int) -> int:
    print(printable(text.replace("\n", " ")), file=sys.stderr)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)
