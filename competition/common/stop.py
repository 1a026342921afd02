"""Deferred SIGTERM and Ctrl-C: the first signal is recorded, so that work stops at a safe point; a second ends it."""

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED, TERMINATED = 130, 143  # the exit codes after SIGINT and SIGTERM


class Stop:
    """Records SIGTERM and SIGINT while its block runs; does nothing outside the main thread.

    The recorded signal is raised again at the end of the block. An error raised by the block takes precedence, except
    in a worker process, which would otherwise stay alive.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._received_at = 0.0
        self._handlers: dict[int, Any] = {}
        self._waiting = False

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        in_pool = multiprocessing.parent_process() is not None
        if self.signal is not None and (error is None or in_pool):
            signal.raise_signal(self.signal)

    def raise_requested(self) -> NoReturn:
        """Raise SystemExit(143) for SIGTERM and KeyboardInterrupt for SIGINT."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        raise KeyboardInterrupt

    def request(self, number: int) -> None:
        """Record a signal that another process received, in place of this process's own."""
        self.signal, self._received_at = number, time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Raise the first signal at once while this block waits for something that may never happen."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.request(number)
            if self._waiting:
                self.raise_requested()
        elif time.monotonic() - self._received_at > 1:  # otherwise the same request, sent to the process group too
            self.raise_requested()
