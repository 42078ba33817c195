"""A function mapped over items in worker processes, of which any may be killed.

Each process is fresh and imports nothing but the modules of the function and of its items, so what
they name belongs in modules without TensorFlow.
"""

import collections
import concurrent.futures
import contextlib
import contextvars
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from instruct.data.quiet_tensorflow import keep_quiet

# Items that are queued for each process; more would be lost when a process dies.
_AHEAD = 2
# In a worker process: where it reports its progress.
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

    When a process dies, the items that were being worked on are tried again one by one, each in a
    process of its own. The result of an item that kills that process too is None.

    Args:
        function: of a module, as it is sent by its name.
        progress_fn: called in this process with what `function` reports.
    """
    waiting = list(items)
    while waiting:
        pool = _Pool(waiting, workers, progress_fn)
        finished = set()
        for item, result in pool.run(function):
            finished.add(id(item))
            yield item, result
        for item in pool.suspects:
            finished.add(id(item))
            yield next(_Pool([item], 1, progress_fn).run(function), (item, None))
        waiting = [item for item in waiting if id(item) not in finished]


class _Pool(Generic[T]):
    """Processes that work on items until all are done or one of them dies.

    Attributes:
        suspects: after a process died, the items that were being worked on.
    """

    def __init__(
        self, items: Sequence[T], workers: int, progress_fn: Callable[[T, int], None]
    ) -> None:
        self._items = items
        self._workers = workers
        self._progress_fn = progress_fn
        self.suspects: list[T] = []

    def run(self, function: Callable[[T, ProgressFn], R]) -> Iterator[tuple[T, R]]:
        """(item, function(item, progress_fn)) as they are done; ends early when a process dies."""
        context = multiprocessing.get_context("spawn")  # forking a process with threads may hang
        messages = context.Queue()
        pool = concurrent.futures.ProcessPoolExecutor(
            min(self._workers, len(self._items)),
            context,
            initializer=_start_worker,
            initargs=(messages,),
        )
        todo = collections.deque(enumerate(self._items))
        running: dict[Any, int] = {}
        started: set[int] = set()
        try:
            while todo or running:
                while todo and len(running) < self._workers * _AHEAD:
                    number, item = todo.popleft()
                    running[pool.submit(_work, function, number, item)] = number
                done, _ = concurrent.futures.wait(
                    running, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
                )
                self._read(messages, started)
                for future in done:
                    number = running[future]
                    result = future.result()
                    del running[future]
                    yield self._items[number], result
        except BrokenProcessPool:
            self._read(messages, started)
            # An item may kill its process before the process reports that it began.
            begun = started & set(running.values()) or set(running.values())
            self.suspects = [self._items[number] for number in sorted(begun)]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, messages: Any, started: set[int]) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                number, rows = messages.get_nowait()
                started.add(number)
                self._progress_fn(self._items[number], rows)


def _start_worker(messages: Any) -> None:
    _MESSAGES.set(messages)
    keep_quiet()  # a source's module may import TensorFlow
    # A process whose parent was killed would wait for work for ever.
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
