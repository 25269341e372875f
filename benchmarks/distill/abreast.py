"""Run jobs side by side, one on each core: all of them are counted in CPU time, so none costs another anything."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable

Job = Callable[[], None]


def abreast(jobs: Iterable[Job], cores: int) -> None:
    """Run jobs, begun in order, each with the processes it starts on one of so many cores.

    Raises:
        Exception: what a job raised first; those that had begun are ended before, the others never begin.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failures: list[Exception] = []

    def work(core: int) -> None:
        os.sched_setaffinity(0, {core})  # of this thread, and of what it starts
        while not failures:
            try:
                waiting.get_nowait()()
            except queue.Empty:
                return
            except Exception as error:  # told by the thread that waits for all
                failures.append(error)

    workers = [threading.Thread(target=work, args=(core,)) for core in sorted(os.sched_getaffinity(0))[:cores]]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
