"""Run jobs side by side, each on cores of its own: those that are counted in CPU time then cost each other nothing."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable

Job = Callable[[], None]


def abreast(jobs: Iterable[Job], at_once: int) -> None:
    """Run jobs, begun in order, so many at once, each with the processes it starts on its share of the cores.

    Raises:
        Exception: what a job raised first; those that had begun are ended before, the others never begin.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failures: list[Exception] = []

    def work(cores: set[int]) -> None:
        os.sched_setaffinity(0, cores)  # of this thread, and of what it starts
        while not failures:
            try:
                waiting.get_nowait()()
            except queue.Empty:
                return
            except Exception as error:  # told by the thread that waits for all
                failures.append(error)

    there = sorted(os.sched_getaffinity(0))
    shares = [set(there[first::at_once]) for first in range(min(at_once, len(there)))]
    workers = [threading.Thread(target=work, args=(cores,)) for cores in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
