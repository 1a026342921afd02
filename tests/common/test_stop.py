"""Being told to end: what is kept of it, and when the process ends."""

import multiprocessing
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from competition.common.errors import RunError
from competition.common.stop import Stop


def test_stop_keeps_what_it_was_told_and_ends_with_it():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    gone_on = []

    def told_once() -> None:
        with Stop() as stop:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # at once: the same one, by another way
            gone_on.append(stop.signal)

    def told_twice() -> None:
        with Stop() as stop:
            signal.raise_signal(signal.SIGTERM)
            stop._when -= 2
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("still here")

    with pytest.raises(KeyboardInterrupt):
        told_once()
    assert gone_on == [signal.SIGINT]
    with pytest.raises(SystemExit) as ended:
        told_twice()
    assert ended.value.code == 143
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("in_pool", [False, True])
def test_stop_hides_no_error_but_in_a_pool(monkeypatch: pytest.MonkeyPatch, in_pool: bool):
    """Where the process would outlive it, waiting for more work."""
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object() if in_pool else None)

    def fails() -> None:
        with Stop():
            signal.raise_signal(signal.SIGINT)
            raise RunError("another")

    with pytest.raises(KeyboardInterrupt if in_pool else RunError):
        fails()


def test_stop_leaves_an_ignored_signal_and_other_threads_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup does, and a shell for what it puts behind
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGINT)
        assert stop.signal is None
    finally:
        signal.signal(signal.SIGINT, before)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(Stop().__enter__).result().signal is None
