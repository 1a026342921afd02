"""Console output: lines, tables and progress bars, which become plain lines when there is no terminal.

Modules print lines through `logging` and show progress with `bar`; both are silent until a program calls
`Console.activate`, except for warnings, which logging prints anyway.
"""

import logging
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

Advance: TypeAlias = Callable[[int, str], None]  # (number of steps done since the last call, text beside the bar)

_CONTROL = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control, surrogate, line and paragraph separators
PLAIN_SECONDS = 60.0  # between two progress lines when there is no terminal


class Console:
    """Prints lines, tables and progress.

    `quiet` prints nothing. `plain` prints lines instead of bars, for processes that share a terminal; each line of
    progress then begins with `name`.
    """

    def __init__(self, *, quiet: bool = False, plain: bool = False, name: str = "") -> None:
        self.name = name
        self.rich = RichConsole(  # no markup: folder names may look like it
            quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False,
            force_terminal=False if plain else None,
        )  # fmt: skip
        if not self.rich.is_terminal:
            self.rich.width = 160  # of a log file

    def note(self, text: str) -> None:
        """Print one line of text, without interpreting markup."""
        self.rich.print(printable(text), markup=False)

    def ask(self, question: str) -> str:
        """Print a question and read a line; raise EOFError when standard input is closed."""
        return self.rich.input(question, markup=False)

    def table(self, table: Table) -> None:
        self.rich.print(table)

    def activate(self) -> None:
        """Make this console print the records of the logger `competition` and the bars of this process."""
        global _active
        _active = self
        logger = logging.getLogger("competition")
        logger.handlers = [_LineHandler(self)]
        logger.setLevel(logging.INFO)
        logger.propagate = False

    @contextmanager
    def bar(self, label: str, total: int | None, after: str = "") -> Iterator[Advance]:
        """Show the progress of `total` steps (None: unknown): a bar on a terminal, otherwise one line per minute.

        The last non-empty text stays beside the bar, followed by `after`.
        """
        if not self.rich.is_terminal:
            yield self._plain(f"{self.name} {label}".lstrip(), total, after)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),  # shrinks on a narrow terminal
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[text]}", markup=False),
        )
        with Progress(*columns, console=self.rich, transient=True) as progress:
            task = progress.add_task(label, total=total, text=after.lstrip(", "))

            def advance(count: int, text: str) -> None:
                progress.update(task, advance=count)
                if text:
                    progress.update(task, text=text + after)

            yield advance

    def _plain(self, label: str, total: int | None, after: str) -> Advance:
        done, last, shown = 0, time.monotonic(), ""

        def advance(count: int, text: str) -> None:
            nonlocal done, last, shown
            done, shown = done + count, text or shown
            if time.monotonic() - last >= PLAIN_SECONDS:
                last = time.monotonic()
                self.note(f"{label}: {done} of {total or '?'} {shown}{after if shown else after.lstrip(', ')}".rstrip())

        return advance


class _LineHandler(logging.Handler):
    """Prints each record as one line; warnings begin with `warning:`."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self.console.note(prefix + record.getMessage())


_active = Console(quiet=True)


def active() -> Console:
    """Return the console that the program activated, for tables and questions; a quiet one if it activated none."""
    return _active


def bar(label: str, total: int | None, after: str = "") -> AbstractContextManager[Advance]:
    """Show progress on the active console (see `Console.bar`); show nothing if there is none."""
    return _active.bar(label, total, after)


def printable(text: str) -> str:
    """Replace control characters, which a terminal would execute, by question marks; line feeds stay."""
    return "".join(letter if letter == "\n" or unicodedata.category(letter) not in _CONTROL else "?" for letter in text)


def duration(seconds: float) -> str:
    """Format a duration in seconds, such as 12 s, 5 min or 1 h 30 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
