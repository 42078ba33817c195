"""Builds the record stores that a mixture needs and that are not there yet.

One task is built by one process; a broken source fails alone. What is built is whole or absent, so
an interrupted build goes on with the stores that were not finished. Plain seqio tasks run their
TensorFlow pipeline here, one after another.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence

from rich.console import Console

from instruct.data.config import DataConfig
from instruct.data.spec import SPLITS, Resolved
from instruct.data.stores.build_pool import build_in_processes
from instruct.data.stores.build_progress import BuildProgress
from instruct.data.stores.disk_estimate import DiskEstimate, estimate_disk
from instruct.data.stores.jobs import (
    Job,
    PreparedStore,
    build_reported,
    by_reason,
    can_be_sent,
    failed,
    find_store,
    plain_items,
    store_jobs,
    succeeded,
    unavailable,
    warn_of_unseen,
)
from instruct.errors import UserError
from instruct.workspace import Workspace

_log = logging.getLogger(__name__)

# Starting a process costs about as much as building this many small stores.
_FEW_JOBS = 4

# Builds stores elsewhere; those that it leaves out are built here.
BuildElsewhere = Callable[[Sequence[Job]], dict[Job, PreparedStore]]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What became of every store of a mixture, in the mixture's order."""

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
        """What could not be built and why, a line a task (and reason, if it has several)."""
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
    """Builds what is missing. Interrupted, it continues with the stores that were not finished.

    A store that is there is kept unless its source says that it would give other records now.

    Args:
        workspace: where sources look and stores go.
        resolved: the mixture.
        config: lengths and vocabulary, which stores of plain seqio tasks depend on.
        splits: those a task does not have are passed over.
        workers: processes that build at the same time.
        verify: compare stores that are there with their hashes, and build the damaged ones anew.
        rebuild: build all of them anew.
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
        built = _build_all(estimate, config, workers, console, elsewhere)
        for store in built.values():
            if store.status == "built" and store.message:
                _log.warning("%s", store.message)
        done |= built
    return Prepared(tuple(done[job] for job in jobs))


def _build_all(
    estimate: DiskEstimate,
    config: DataConfig,
    workers: int,
    console: Console | None,
    elsewhere: BuildElsewhere | None,
) -> dict[Job, PreparedStore]:
    """Builds stores, each by itself: what goes wrong with one stops no other."""
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
    for task in dict.fromkeys(job.task for job in jobs if job.source is None):
        warn_of_unseen(task)
    with BuildProgress(jobs, estimate.rows, console) as bar:
        if workers > 1 and len(sent) > _FEW_JOBS:
            results |= build_in_processes(sent, workers, bar)
        for job in jobs:
            if job in results:
                continue
            results[job] = _build_here(job, config, bar)
            bar.finish(job)
    return results


def _build_here(job: Job, config: DataConfig, bar: BuildProgress) -> PreparedStore:
    try:
        items = plain_items(job, config)
    except Exception as error:
        return failed(job, error)
    return build_reported(job, lambda rows: bar.add_rows(job, rows), items)
