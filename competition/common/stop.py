"""Being told to end: SIGTERM and Ctrl-C leave a mark for the work to look at where it can stop; a second ends it."""

import multiprocessing
import signal
import threading
import time
from types import FrameType
from typing import Any, NoReturn

TERMINATED = 143  # the exit code after SIGTERM


class Stop:
    """Holds what the process was told while a block runs; does nothing outside of the main thread."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._when = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._told)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        in_pool = multiprocessing.parent_process() is not None  # whose processes outlive the end of their work
        if self.signal is not None and (error is None or in_pool):
            signal.raise_signal(self.signal)

    def raise_requested(self) -> NoReturn:
        """End as the signal asks."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        raise KeyboardInterrupt

    def _told(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._when = number, time.monotonic()
        elif time.monotonic() - self._when > 1:  # not the same one again, by way of the process group
            self.raise_requested()
