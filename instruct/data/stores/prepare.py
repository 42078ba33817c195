"""Builds the missing record stores of a mixture.

One process builds one store; a broken source fails alone. A store is complete or absent, so an
interrupted build resumes with the unfinished stores. Plain seqio tasks run their TensorFlow
pipelines in this process, one after another.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from instruct.data.config import DataConfig
from instruct.data.spec import SPLITS, Resolved
from instruct.data.stores.disk_estimate import DiskEstimate, estimate_disk
from instruct.data.stores.jobs import (
    Job,
    PreparedStore,
    build_reported,
    by_reason,
    can_be_sent,
    find_store,
    killed,
    store_jobs,
    succeeded,
    unavailable,
)
from instruct.data.stores.processes import map_in_processes
from instruct.errors import UserError
from instruct.workspace import Workspace

_log = logging.getLogger(__name__)

# Starting a process costs about as much as building this many small stores.
_FEW_JOBS = 4
_ROWS_IF_UNKNOWN = 1000  # of a store, while no store's number of rows is known

# Builds stores on other machines; this process builds those that it leaves out.
BuildElsewhere = Callable[[Sequence[Job]], dict[Job, PreparedStore]]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Results of all stores of a mixture, in the mixture's order."""

    stores: tuple[PreparedStore, ...]

    @property
    def failed(self) -> tuple[PreparedStore, ...]:
        """Those that could not be built."""
        return tuple(store for store in self.stores if store.status == "failed")

    def check(self) -> None:
        """Raises UserError if a store could not be built, naming the first few and why."""
        if self.failed:
            lines = [f"  {line}" for line in self.failures()]
            more = f"\n  and {len(lines) - 10} more" if len(lines) > 10 else ""
            raise UserError(
                f"{len(self.failed)} of {len(self.stores)} record stores could not be built:\n"
                + "\n".join(lines[:10])
                + more
                + "\nTo train without these tasks, run `python run.py prepare --skip_unavailable` "
                "and set SKIP_UNAVAILABLE=True"
            )

    def failures(self) -> list[str]:
        """Failed stores with reasons, one line for each task and reason."""
        return by_reason((store.task, store.split, store.message) for store in self.failed)

    def print_failures(self, console: Console) -> None:
        """Prints all of `failures`."""
        for line in self.failures():
            console.print(
                f"failed: {line}",
                style="red",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def prepare(
    workspace: Workspace,
    resolved: Resolved,
    config: DataConfig,
    splits: Sequence[str] = SPLITS,
    *,
    workers: int = 1,
    verify: bool = False,
    rebuild: bool = False,
    console: Console | None = None,
    check_disk: bool = True,
    elsewhere: BuildElsewhere | None = None,
) -> Prepared:
    """Builds missing stores; resumes with the unfinished ones after an interruption.

    A store is kept unless its source would give other records now.

    Args:
        workspace: where sources look and stores go.
        resolved: the mixture.
        config: lengths and vocabulary, which stores of plain seqio tasks depend on.
        splits: those a task does not have are passed over.
        workers: processes that build at the same time.
        verify: compare existing stores with their hashes, and rebuild damaged ones.
        rebuild: rebuild all stores.
        console: where the estimate and the progress bar go; None for neither.
        check_disk: refuse to begin what plainly does not fit on the disk.
        elsewhere: builds stores that can be sent to other machines, instead of processes here.

    Raises:
        UserError: the stores plainly do not fit on the disk; nothing is written then.
    """
    jobs = list(store_jobs(workspace, resolved, config, splits))
    there = {}
    for job in jobs:
        manifest = None if rebuild else find_store(job, verify)
        if manifest is not None:
            there[job] = manifest
    done = {job: succeeded(job, manifest, "there") for job, manifest in there.items()}
    missing = [job for job in jobs if job not in there]
    if elsewhere is None:  # other machines may have what is not here
        done |= {job: result for job in missing if (result := unavailable(job)) is not None}
        missing = [job for job in missing if job not in done]
    if missing:
        estimate = estimate_disk(workspace, missing, there)
        if console is not None:
            console.print(estimate.describe(), markup=False, highlight=False, soft_wrap=True)
        if check_disk:
            estimate.check()
        built = _build_all(estimate, workers, console, elsewhere)
        for store in built.values():
            if store.status == "built" and store.message:
                _log.warning("%s", store.message)
        done |= built
    return Prepared(tuple(done[job] for job in jobs))


def _build_all(
    estimate: DiskEstimate,
    workers: int,
    console: Console | None,
    elsewhere: BuildElsewhere | None,
) -> dict[Job, PreparedStore]:
    """Builds stores; the failure of one stops no other."""
    jobs = estimate.biggest_first()
    # What cannot be sent to another process is built here.
    sent = [job for job in jobs if can_be_sent(job)]
    results: dict[Job, PreparedStore] = {}
    if elsewhere is not None and sent:
        results |= elsewhere(sent)
        jobs = [job for job in jobs if job not in results]
        sent = []
    if not jobs:
        return results
    with BuildProgress(jobs, estimate.rows, console) as bar:
        if workers > 1 and len(sent) > _FEW_JOBS:
            for job, store in map_in_processes(build_reported, sent, workers, bar.add_rows):
                results[job] = store or killed(job)
                bar.finish(job)
        for job in jobs:
            if job in results:
                continue
            results[job] = build_reported(job, functools.partial(bar.add_rows, job))
            bar.finish(job)
    return results


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
        mean = sum(known) / len(known) if known else _ROWS_IF_UNKNOWN
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
        """Counts rows that were read for a store."""
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
        """Seconds left at the mean speed of the first `elapsed` seconds; None before any row."""
        done = self.done
        return (self._total - done) * elapsed / done if done else None

    def note(self) -> str:
        """Text with stores, rows, speed and time left."""
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
