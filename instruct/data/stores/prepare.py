"""Builds the missing record stores of a mixture.

One process builds one store, and a failing source affects no other. A store is complete or absent,
so an interrupted build resumes with the unfinished stores. Plain seqio tasks run their TensorFlow
pipelines in this process, one after another.
"""

import dataclasses
import datetime
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from instruct.data.config import DataConfig
from instruct.data.spec import SPLITS, Resolved
from instruct.data.stores.disk_estimate import DiskEstimate, estimate_disk
from instruct.data.stores.jobs import (
    Job,
    PreparedStore,
    build_store,
    by_reason,
    failed,
    find_store,
    is_picklable,
    store_jobs,
    succeeded,
    unavailable,
)
from instruct.data.stores.processes import map_in_processes
from instruct.data.stores.staging import stage_stores
from instruct.distributed import (
    agree,
    barrier,
    is_first_process,
    num_processes,
    one_after_another,
)
from instruct.errors import RunFailed, UserError
from instruct.files import make_writable
from instruct.workspace import Workspace

_log = logging.getLogger(__name__)

# Starting a process costs about as much as building this many small stores.
_FEW_JOBS = 4
_DEFAULT_ROWS = 1000  # of a store, while no store's number of rows is known
_KILLED = "the process that built it was killed; did it run out of memory?"

# Builds stores on other machines; this process builds those that it leaves out.
BuildElsewhere = Callable[[Sequence[Job]], dict[Job, PreparedStore]]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Results of all stores of a mixture, in the mixture's order."""

    stores: tuple[PreparedStore, ...]

    @property
    def failed(self) -> tuple[PreparedStore, ...]:
        """Stores that could not be built."""
        return tuple(store for store in self.stores if store.status == "failed")

    def check(self) -> None:
        """Raises UserError if a store could not be built, naming the first few and why."""
        if self.failed:
            lines = [f"  {line}" for line in self.failures()]
            if len(lines) > 10:
                lines[10:] = [f"  and {len(lines) - 10} more"]
            raise UserError(
                f"{len(self.failed)} of {len(self.stores)} record stores could not be built:\n"
                + "\n".join(lines)
                + "\nTo train without these tasks, run `python run.py prepare --skip_unavailable` "
                "and set SKIP_UNAVAILABLE=True"
            )

    def failures(self) -> list[str]:
        """Failed stores with reasons, one line for each task and reason."""
        return by_reason((store.task, store.split, store.message) for store in self.failed)

    def print_failures(self, console: Console) -> None:
        """Prints all of `failures`."""
        for line in self.failures():
            console.print(Text(f"failed: {line}", "red"), soft_wrap=True)


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
    """Builds missing stores, and those whose source would give other records now.

    Args:
        config: lengths and vocabulary, which stores of plain seqio tasks depend on.
        splits: to prepare; a task that lacks one is fine.
        workers: processes that build at the same time.
        verify: compare existing stores with their hashes, and rebuild damaged ones.
        rebuild: rebuild all stores.
        console: for the disk estimate and the progress bar; None for neither.
        check_disk: refuse to start if the stores clearly do not fit on the disk.
        elsewhere: builds picklable jobs on other machines, instead of processes here.

    Raises:
        UserError: the stores clearly do not fit on the disk, or STORE_DIR cannot be written;
            nothing is written then. Or see `stage_stores`.
    """
    jobs = list(store_jobs(workspace, resolved, config, splits))
    if workspace.store_bucket is not None and not rebuild:
        stage_stores(workspace, [job.path for job in jobs], console, verify)
    stores = {} if rebuild else {job: find_store(job, verify) for job in jobs}
    manifests = {job: manifest for job, manifest in stores.items() if manifest is not None}
    results = {job: succeeded(job, manifest, "there") for job, manifest in manifests.items()}
    missing = [job for job in jobs if job not in results]
    if elsewhere is None:  # other machines may have sources that this one lacks
        results |= {job: result for job in missing if (result := unavailable(job)) is not None}
        missing = [job for job in missing if job not in results]
    if missing:
        estimate = estimate_disk(workspace, missing, manifests)
        if console is not None:
            console.print(Text(estimate.describe()), soft_wrap=True)
        if check_disk:
            estimate.check()
        # Before any work, which could not be kept.
        make_writable("STORE_DIR", workspace.store_bucket or workspace.store_dir)
        built = _build_all(estimate, workers, console, elsewhere)
        for store in built.values():
            if store.status == "built" and store.message:
                _log.warning("%s", store.message)
        results |= built
    return Prepared(tuple(results[job] for job in jobs))


def prepare_once(
    workspace: Workspace, resolved: Resolved, config: DataConfig, splits: Sequence[str], **options
) -> Prepared:
    """`prepare` in every process of a run: one builds what a shared STORE_DIR lacks, others wait.

    Processes with a STORE_DIR of their own each build it; of a bucket they stage what process 0
    built. The run ends if records differ.
    """
    if num_processes() > 1 or workspace.store_bucket is not None:  # they write whatever is there
        make_writable("STORE_DIR", workspace.store_dir)
    if workspace.store_bucket is not None and num_processes() > 1:
        if is_first_process():
            prepare(workspace, resolved, config, splits, **options)
        barrier("prepare: in the bucket", None)
    with one_after_another("prepare", workspace.store_dir):
        prepared = prepare(workspace, resolved, config, splits, **options)
    names = (f"records of {store.task}, {store.split}" for store in prepared.stores)
    agree("records", dict(zip(names, (store.sha256 for store in prepared.stores))))
    return prepared


def _build_all(
    estimate: DiskEstimate,
    workers: int,
    console: Console | None,
    elsewhere: BuildElsewhere | None,
) -> dict[Job, PreparedStore]:
    jobs = estimate.biggest_first()
    picklable = [job for job in jobs if is_picklable(job)]
    results: dict[Job, PreparedStore] = {}
    if elsewhere is not None and picklable:
        results |= elsewhere(picklable)
        jobs = [job for job in jobs if job not in results]
    if not jobs:
        return results
    with BuildProgress(jobs, estimate.rows, console) as bar:
        if elsewhere is None and workers > 1 and len(picklable) > _FEW_JOBS:
            for job, store in map_in_processes(build_store, picklable, workers, bar.add_rows):
                results[job] = store or failed(job, RunFailed(_KILLED))
                bar.finish(job)
        for job in jobs:
            if job not in results:
                results[job] = build_store(job, functools.partial(bar.add_rows, job))
                bar.finish(job)
    return results


class BuildProgress(Progress):
    """A progress bar weighted by rows; silent without a console.

    A store weighs as many rows as expected (its size, else the mean of the known sizes), and a
    finished one counts in full, however many rows it had.

    Args:
        jobs: the stores to build.
        sizes: job -> rows, where they are known.
    """

    def __init__(
        self, jobs: Sequence[Job], sizes: Mapping[Job, int], console: Console | None
    ) -> None:
        columns = TextColumn("preparing"), BarColumn(), TextColumn("{task.fields[note]}")
        super().__init__(*columns, console=console, disable=console is None)
        known = [rows for rows in sizes.values() if rows > 0]
        mean = sum(known) / len(known) if known else _DEFAULT_ROWS
        self._rows_left = {job: float(sizes.get(job) or mean) for job in jobs}
        self._num_stores, self._num_rows = len(jobs), 0
        self._start_secs = time.monotonic()
        self.add_task("", total=sum(self._rows_left.values()), note="")
        self._advance(0)

    def add_rows(self, job: Job, rows: int) -> None:
        """Counts rows that were read for a store."""
        self._num_rows += rows
        if job in self._rows_left:
            weight = min(rows, self._rows_left[job])
            self._rows_left[job] -= weight
            self._advance(weight)

    def finish(self, job: Job) -> None:
        """Counts a store as finished, built or not."""
        self._advance(self._rows_left.pop(job))

    def _advance(self, weight: float) -> None:
        (task,) = self.tasks
        self.update(task.id, completed=task.completed + weight)
        self.update(task.id, note=self.note(time.monotonic() - self._start_secs))

    def note(self, elapsed: float) -> str:
        """Text with stores, rows, speed and time left at the mean speed of `elapsed` seconds."""
        (task,) = self.tasks
        left = "?"
        if task.completed and task.remaining is not None:
            left = datetime.timedelta(seconds=round(task.remaining * elapsed / task.completed))
        stores = f"{self._num_stores - len(self._rows_left)}/{self._num_stores} stores"
        speed = f"{self._num_rows / max(elapsed, 1e-3):,.0f} rows/s"
        return f"{stores}, {self._num_rows:,} rows, {speed}, {left} left"
