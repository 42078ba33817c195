"""A function mapped over items in worker processes, any of which may be killed.

Workers are spawned and import only the modules of the function and of its items: keep TensorFlow
out of those.
"""

import collections
import concurrent.futures
import contextlib
import contextvars
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from instruct.data.quiet_tensorflow import keep_quiet

# Items queued for each process; more would be lost when a process dies.
_AHEAD = 2
# In a worker process: the queue for progress reports.
_MESSAGES: contextvars.ContextVar[Any] = contextvars.ContextVar("messages")

T = TypeVar("T")
R = TypeVar("R")
ProgressFn = Callable[[int], None]


def map_in_processes(
    function: Callable[[T, ProgressFn], R],
    items: Sequence[T],
    workers: int,
    progress_fn: Callable[[T, int], None] = lambda item, rows: None,
) -> Iterator[tuple[T, R | None]]:
    """Yields (item, function(item, report_rows)) as they finish.

    When a process dies, the items in progress are retried one by one, each in its own process. The
    result of an item that kills that process too is None.

    Args:
        function: of a module, because it is pickled by name.
        progress_fn: called in this process with what `function` reports.
    """
    waiting = dict(enumerate(items))
    while waiting:
        for number in (yield from _run(function, waiting, workers, progress_fn)):
            suspect = {number: waiting.pop(number)}
            if (yield from _run(function, suspect, 1, progress_fn)):
                yield items[number], None


def _run(
    function: Callable[[T, ProgressFn], R],
    waiting: dict[int, T],
    workers: int,
    progress_fn: Callable[[T, int], None],
) -> Generator[tuple[T, R], None, list[int]]:
    """Yields (item, result) until all items are done or a process dies.

    Args:
        waiting: number -> item; finished items are removed.

    Returns:
        If a process died, the numbers of the items in progress; else [].
    """
    context = multiprocessing.get_context("spawn")  # forking a process with threads may hang
    messages = context.Queue()
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(waiting)), context, initializer=_start_worker, initargs=(messages,)
    )
    items = dict(waiting)
    todo = collections.deque(items.items())
    running: dict[Any, int] = {}
    started: set[int] = set()

    def read_messages() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                number, rows = messages.get_nowait()
                started.add(number)
                progress_fn(items[number], rows)

    try:
        while todo or running:
            while todo and len(running) < workers * _AHEAD:
                number, item = todo.popleft()
                running[pool.submit(_work, function, number, item)] = number
            done, _ = concurrent.futures.wait(
                running, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
            )
            read_messages()
            for future in done:
                result = future.result()
                yield waiting.pop(running.pop(future)), result
        return []
    except BrokenProcessPool:
        read_messages()
        # An item may kill its process before the process reports that it began.
        return sorted(started & set(running.values()) or running.values())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(messages: Any) -> None:
    _MESSAGES.set(messages)
    keep_quiet()  # a source's module may import TensorFlow
    # Without its parent a worker would wait for work forever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(function: Callable[[T, ProgressFn], R], number: int, item: T) -> R:
    messages = _MESSAGES.get()
    messages.put((number, 0))
    return function(item, lambda rows: messages.put((number, rows)))
