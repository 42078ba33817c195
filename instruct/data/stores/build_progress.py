"""How far the building of stores is: rows, rows a second, and time left by rows, not by stores."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from instruct.data.stores.jobs import Job

# Rows of a store while no store says how many it has.
_SOME_ROWS = 1000


class BuildProgress:
    """A bar weighted by rows; silent without a console.

    A store counts with the rows its task declares, or with `sizes`; one whose rows nobody knows
    with the mean of the others. A store that is finished counts in full, however many rows it had.

    Args:
        jobs: the stores to build.
        sizes: job -> rows, where they are known.
        console: where the bar goes; None for none.
    """

    def __init__(
        self, jobs: Sequence[Job], sizes: Mapping[Job, int], console: Console | None
    ) -> None:
        known = [rows for rows in sizes.values() if rows > 0]
        mean = sum(known) / len(known) if known else _SOME_ROWS
        self._expected = {job: float(sizes.get(job) or mean) for job in jobs}
        self._total = sum(self._expected.values())
        self._running: dict[Job, int] = {}
        self._finished_weight = 0.0
        self._finished = 0
        self._rows = 0
        self._start = time.monotonic()
        self._progress = Progress(
            TextColumn("preparing"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=console is None,
        )
        self._task = self._progress.add_task("", total=self._total, note=self.note())

    def __enter__(self) -> "BuildProgress":
        self._progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.stop()

    def add_rows(self, job: Job, rows: int) -> None:
        """Counts rows of a store that went by."""
        self._rows += rows
        if job in self._expected:
            self._running[job] = self._running.get(job, 0) + rows
            self._show()

    def finish(self, job: Job) -> None:
        """Counts a store that is done, built or not."""
        self._running.pop(job, None)
        self._finished_weight += self._expected.pop(job)
        self._finished += 1
        self._show()

    @property
    def done(self) -> float:
        """Expected rows that are done."""
        running = (min(rows, self._expected[job]) for job, rows in self._running.items())
        return self._finished_weight + sum(running)

    def seconds_left(self, elapsed: float) -> float | None:
        """Time left if it goes on as it did for `elapsed` seconds; None before anything is done."""
        done = self.done
        return (self._total - done) * elapsed / done if done else None

    def note(self) -> str:
        """Stores, rows, speed and time left, in words."""
        elapsed = max(time.monotonic() - self._start, 1e-3)
        left = self.seconds_left(elapsed)
        stores = f"{self._finished}/{self._finished + len(self._expected)} stores"
        rows = f"{self._rows:,} rows, {self._rows / elapsed:,.0f} rows/s"
        return f"{stores}, {rows}, {'?' if left is None else _clock(left)} left"

    def _show(self) -> None:
        self._progress.update(self._task, completed=self.done, note=self.note())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
