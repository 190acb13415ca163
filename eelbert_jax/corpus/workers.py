"""Run one function over many items in several processes that end when their parent does.

The workers of `concurrent.futures` outlive a parent that is killed, and report no progress within an item.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any, Protocol

from eelbert_jax.errors import UserError

POLL_SECONDS = 0.5


class Task(Protocol):
    """A picklable function of an item and of a callback that takes the progress since its last call."""

    def __call__(self, item: int, advance: Callable[[int], None]) -> None:
        """Do the item."""


def usable_cores() -> int:
    """Return the number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_tasks(task: Task, items: Sequence[int], workers: int, report: Callable[[int], None]) -> None:
    """Do `task` for every item, in any order, on `workers` processes; 1 is this process.

    After the first error no item is begun, those that run are finished, and the error is raised: a
    `UserError` of a task or of a killed worker, else `RuntimeError`.
    """
    if workers == 1:
        _run_here(task, items, report)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe where threads run, as in a notebook
    begun, progress = context.Value("q", 0), context.Value("q", 0)
    errors = context.SimpleQueue()
    arguments = (task, items, begun, progress, errors)
    processes = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(workers)]
    try:
        for process in processes:
            process.start()
        while alive := [process.sentinel for process in processes if process.is_alive()]:
            wait(alive, timeout=POLL_SECONDS)
            report(progress.value)
            if any(process.exitcode for process in processes):
                begun.value = len(items)  # nothing more is begun
    finally:
        for process in processes:
            process.terminate()
            process.join()
    if not errors.empty():
        raise UserError(errors.get())
    _check_exit_codes([process.exitcode for process in processes])


def _run_here(task: Task, items: Sequence[int], report: Callable[[int], None]) -> None:
    total = 0

    def advance(amount: int) -> None:
        nonlocal total
        total += amount
        report(total)

    for item in items:
        task(item, advance)


def _check_exit_codes(codes: list[int | None]) -> None:
    for code in codes:
        if code is not None and code < 0:
            raise UserError(
                f"A worker process was killed by signal {-code} ({signal.strsignal(-code)}); memory may have "
                "run out. The same command again goes on, if need be with a smaller --config.workers."
            )
        if code:
            raise RuntimeError(f"A worker process failed with status {code}; its traceback is above.")


def _work(task: Task, items: Sequence[int], begun: Any, progress: Any, errors: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def advance(amount: int) -> None:
        with progress.get_lock():
            progress.value += amount

    while True:
        with begun.get_lock():
            position = begun.value
            begun.value += 1
        if position >= len(items):
            return
        try:
            task(items[position], advance)
        except UserError as error:
            begun.value = len(items)
            errors.put(str(error))
            return


def _end_with_parent() -> None:
    """Leave at once when the parent is gone; a killed preparation must not go on in the dark."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
