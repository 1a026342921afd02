"""Processes that work beside this one, leave Ctrl-C to it, and end with it even when it is killed."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

GRACE_SECONDS = 30.0  # to leave a checkpoint in


@contextmanager
def worker_processes(count: int, preload: Sequence[str] = ()) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of processes; when the block is left by an exception they are ended at once.

    Each is a fresh interpreter, as a fork of a process that runs threads may hang. With `preload` all are forked from
    one that has imported these modules and nothing else.
    """
    context = multiprocessing.get_context("forkserver" if preload else "spawn")
    if preload:
        context.set_forkserver_preload(list(preload))
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(count, mp_context=context, initializer=_follow) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            workers = set(multiprocessing.active_children()) - before
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.join(GRACE_SECONDS)
                worker.kill()
            raise


def _follow() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
