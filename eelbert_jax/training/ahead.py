"""Rows ahead of the device: a thread reads a bounded number of batches before they are asked for."""

import collections
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Read = Callable[[int], Any]


@contextlib.contextmanager
def read_ahead(read: Read, steps: range, depth: int) -> Iterator[Read]:
    """Yield `read`, to be called with `steps` in their order; up to `depth` later ones are read meanwhile.

    What a read raises is raised where its step is asked for. A depth of 0 reads when asked.
    """
    if depth == 0:
        yield read
        return
    remaining, waiting = iter(steps), collections.deque[Future[Any]]()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rows")

    def fill() -> None:
        while len(waiting) < depth and (step := next(remaining, None)) is not None:
            waiting.append(pool.submit(read, step))

    def take(step: int) -> Any:
        fill()
        batch = waiting.popleft().result()
        fill()
        return batch

    try:
        yield take
    finally:
        pool.shutdown(cancel_futures=True)
