"""Signals are recorded once, raised at the end of the block, and end the process when repeated."""

import multiprocessing
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from competition.common.errors import RunError
from competition.common.stop import Stop


def test_a_signal_is_recorded_and_raised_at_the_end_and_a_second_one_at_once():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    recorded = []

    def one_signal() -> None:
        with Stop() as stop:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # immediately after: counts as the same request
            recorded.append(stop.signal)

    def two_signals() -> None:
        with Stop() as stop:
            signal.raise_signal(signal.SIGTERM)
            stop._received_at -= 2
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("the second signal was not raised")

    with pytest.raises(KeyboardInterrupt):
        one_signal()
    assert recorded == [signal.SIGINT]
    with pytest.raises(SystemExit) as ended:
        two_signals()
    assert ended.value.code == 143
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_is_raised_at_once_while_a_block_waits():
    reached = []

    def signal_at(place: str) -> None:
        with Stop() as stop:
            with stop.waiting():
                if place == "waiting":
                    signal.raise_signal(signal.SIGINT)
                reached.append(place)
            if place == "after":
                signal.raise_signal(signal.SIGINT)
            reached.append(place)

    for place in ("waiting", "after"):
        with pytest.raises(KeyboardInterrupt):
            signal_at(place)
    assert reached == ["after", "after"]


def test_a_signal_right_after_that_of_another_process_counts_as_the_same_request():
    """The launcher sends it to all other processes when one ends, while the main process still saves."""
    recorded = []

    def two_signals() -> None:
        with Stop() as stop:
            stop.request(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            recorded.append(stop.signal)

    with pytest.raises(KeyboardInterrupt):
        two_signals()
    assert recorded == [signal.SIGINT]


@pytest.mark.parametrize("in_pool", [False, True])
def test_an_error_takes_precedence_over_the_signal_except_in_a_pool(monkeypatch: pytest.MonkeyPatch, in_pool: bool):
    """In a pool, the process would otherwise stay alive and wait for more work."""
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object() if in_pool else None)

    def fails() -> None:
        with Stop():
            signal.raise_signal(signal.SIGINT)
            raise RunError("another")

    with pytest.raises(KeyboardInterrupt if in_pool else RunError):
        fails()


def test_ignored_signals_and_other_threads_are_left_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells do for background jobs
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGINT)
        assert stop.signal is None
    finally:
        signal.signal(signal.SIGINT, before)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(Stop().__enter__).result().signal is None
