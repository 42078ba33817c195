"""`Engine`: the thread that decodes the prompts of all requests together."""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.online import Partial

_log = logging.getLogger(__name__)


class Decoding(Protocol):
    """What an engine needs of a decoder; see `OnlineDecoder`."""

    config: DecodeConfig
    num_slots: int

    def add(
        self, inputs: Sequence[int], example_id: int = 0, max_tokens: int | None = None
    ) -> int: ...

    def remove(self, key: int) -> None: ...

    def advance(self) -> list[Partial]: ...

    def reset(self) -> list[int]: ...


class QueueFull(Exception):
    """As many prompts are decoded or wait as may."""


class EngineStopped(Exception):
    """The engine takes no more jobs."""


@dataclasses.dataclass(eq=False)
class Job:
    """One prompt of a request.

    Attributes:
        inputs: token ids.
        example_id: samples depend on it.
        max_tokens: of the answer.
        deliver: takes every `Partial` of the prompt, the last one `ended`, or the exception that
            ended it. Called in the engine's thread.
    """

    inputs: Sequence[int]
    example_id: int
    max_tokens: int
    deliver: Callable[[Partial | Exception], None]
    key: int = dataclasses.field(default=-1, init=False)  # the decoder's


class Engine:
    """Decodes jobs in a thread of its own, in the order in which they come.

    Args:
        decoder: called from that thread only.
        queue_length: most jobs that wait while all slots are taken.
    """

    def __init__(self, decoder: Decoding, queue_length: int):
        self._decoder = decoder
        self.config = decoder.config
        self.capacity = decoder.num_slots + queue_length
        self._changed = threading.Condition()
        # The three below belong to the condition's lock.
        self._open: set[Job] = set()
        self._arriving: list[Job] = []
        self._leaving: list[Job] = []
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self._thread.start()

    @property
    def is_working(self) -> bool:
        """Whether jobs are taken."""
        return not self._is_closed

    @property
    def num_open(self) -> int:
        """Jobs that have not ended."""
        return len(self._open)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Takes all jobs, or none.

        Raises:
            QueueFull: they may be given again later.
            EngineStopped: it was closed, or can no longer decode.
        """
        with self._changed:
            if self._is_closed:
                raise EngineStopped
            if len(self._open) + len(jobs) > self.capacity:
                raise QueueFull
            self._open.update(jobs)
            self._arriving += jobs
            self._changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Frees the slots of jobs; those that have ended are left alone."""
        with self._changed:
            jobs = [job for job in jobs if job in self._open]
            self._open.difference_update(jobs)
            self._leaving += jobs
            self._changed.notify()

    def give_up(self) -> None:
        """Ends all open jobs with an exception."""
        jobs = list(self._open)
        self.cancel(jobs)
        for job in jobs:
            _deliver(job, EngineStopped("the server was told to end"))

    def close(self) -> None:
        """Ends the thread after its chunk of steps; jobs that are open are not delivered."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # the decoder could not even be emptied
            _log.exception("the decoder stopped; restart the server")
            with self._changed:
                self._is_closed = True
                jobs = list(self._open)
            for job in jobs:
                self._end(job, error)

    def _work(self) -> None:
        jobs: dict[int, Job] = {}
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._open or self._leaving or self._is_closed)
                if self._is_closed:
                    return
                arriving, self._arriving = self._arriving, []
                leaving, self._leaving = self._leaving, []
            for job in arriving:
                job.key = self._decoder.add(job.inputs, job.example_id, job.max_tokens)
                jobs[job.key] = job
            for job in leaving:
                self._decoder.remove(job.key)
                jobs.pop(job.key, None)
            try:
                partials = self._decoder.advance()
            except Exception as error:
                _log.exception("decoding failed; the server goes on")
                for key in self._decoder.reset():
                    self._end(jobs.pop(key, None), error)
                continue
            for partial in partials:
                if partial.ended:
                    self._end(jobs.pop(partial.key, None), partial)
                elif partial.key in jobs:
                    _deliver(jobs[partial.key], partial)

    def _end(self, job: Job | None, last: Partial | Exception) -> None:
        """Delivers the last news of a job; None for one that was cancelled."""
        if job is not None:
            with self._changed:
                self._open.discard(job)
            _deliver(job, last)


def _deliver(job: Job, news: Partial | Exception) -> None:
    with contextlib.suppress(RuntimeError):  # the event loop has been closed
        job.deliver(news)
