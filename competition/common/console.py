"""What the command line shows: notes, tables, and progress bars that turn into plain lines without a terminal."""

import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

Advance: TypeAlias = Callable[[int, str], None]  # (how many more are done, what to show beside the bar)

_OBEYED = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of letters, other line ends
PLAIN_SECONDS = 60.0  # between two lines of the same work where there is no terminal


class Console:
    """Shows what the work tells of itself; `quiet` nothing, `plain` only lines, for who shares the terminal."""

    def __init__(self, *, quiet: bool = False, plain: bool = False) -> None:
        self.rich = RichConsole(  # without markup: names of folders are shown as they are
            quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False,
            force_terminal=False if plain else None,
        )  # fmt: skip
        if not self.rich.is_terminal:
            self.rich.width = 160  # a log file has no edge to wrap at

    def note(self, text: str) -> None:
        """Say one line; the text is shown as it is, never as markup."""
        self.rich.print(printable(text), markup=False)

    def ask(self, question: str) -> str:
        """Ask for a line; EOFError where no one can answer."""
        return self.rich.input(question, markup=False)

    def table(self, table: Table) -> None:
        self.rich.print(table)

    @contextmanager
    def bar(self, label: str, total: int | None, after: str = "") -> Iterator[Advance]:
        """Show the progress of `total` steps (None: unknown): a bar on a terminal, otherwise a line a minute.

        What was last told stays beside it, and `after` behind that.
        """
        if not self.rich.is_terminal:
            yield self._plain(label, total, after)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),  # gives way where the terminal is narrow
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[text]}", markup=False),
        )
        with Progress(*columns, console=self.rich, transient=True) as progress:
            task = progress.add_task(label, total=total, text=after.lstrip(", "))

            def tell(count: int, text: str) -> None:
                progress.update(task, advance=count)
                if text:
                    progress.update(task, text=text + after)

            yield tell

    def _plain(self, label: str, total: int | None, after: str) -> Advance:
        done, last, said = 0, time.monotonic(), ""

        def advance(count: int, text: str) -> None:
            nonlocal done, last, said
            done, said = done + count, text or said
            if time.monotonic() - last >= PLAIN_SECONDS:
                last = time.monotonic()
                self.note(f"{label}: {done} of {total or '?'} {said}{after if said else after.lstrip(', ')}".rstrip())

        return advance


def printable(text: str) -> str:
    """Replace what a terminal would obey, such as colours and the cursor's moves in the name of a foreign folder."""
    return "".join(letter if letter == "\n" or unicodedata.category(letter) not in _OBEYED else "?" for letter in text)


def duration(seconds: float) -> str:
    """Say a duration in words short enough for a progress line."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
