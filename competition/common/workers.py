"""Cores, and worker processes that ignore Ctrl-C and end with their parent, even when it is killed."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time, and the period
COLLECTOR = "competition.common.collector"  # the first module to import
GRACE_SECONDS = 30.0  # between terminate and kill: time to save a checkpoint


def usable_cores() -> int:
    """Return the number of cores that this process may use, which taskset or a container's quota can limit."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text().split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no quota
        return cores


def preload(modules: Sequence[str]) -> None:
    """Start the server from which `worker_processes` forks, which then imports these modules."""
    multiprocessing.set_forkserver_preload([COLLECTOR, *modules])
    forkserver.ensure_running()


@contextmanager
def worker_processes(count: int, preload: Sequence[str] = ()) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of `count` processes; terminate them when the block raises.

    Each is a fresh interpreter, as forking a process with threads may hang. With `preload`, they are forked from a
    server process that has imported only these modules.
    """
    context = multiprocessing.get_context("forkserver" if preload else "spawn")
    if preload:
        context.set_forkserver_preload([COLLECTOR, *preload])
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_processes(list(set(multiprocessing.active_children()) - before))
            raise


def start_process(work: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a process from the server that `preload` started; it ignores Ctrl-C and ends with its parent."""
    process = multiprocessing.get_context("forkserver").Process(target=_work, args=(work, *arguments))
    process.start()
    return process


def end_processes(processes: Sequence[BaseProcess]) -> None:
    """Terminate processes; kill those that need more than GRACE_SECONDS to save a checkpoint."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(GRACE_SECONDS)
        process.kill()


def _work(work: Callable[..., None], *arguments: object) -> None:
    _end_with_parent()
    work(*arguments)


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
