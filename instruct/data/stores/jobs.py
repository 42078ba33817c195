"""Stores as jobs: which ones a mixture needs, which of them are there, and building one.

Jobs are sent to other processes and machines, so this module imports no TensorFlow; plain seqio
tasks, whose pipeline needs it, are built where they were listed.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from instruct.data.config import DataConfig
from instruct.data.feed.leaves import store_key
from instruct.data.spec import Resolved, Source
from instruct.data.stores.store import (
    Manifest,
    Store,
    read_manifest,
    store_path,
)
from instruct.data.stores.writing import StoreWriteError, write_store
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PreparedStore:
    """What became of one store.

    Attributes:
        status: "built", "there" (it was), or "failed".
        records: 0 if it failed.
        dropped: reason -> rows that are no records.
        message: why it failed, or why it has no records.
        sha256: of the records; "" if it failed.
        machine: whether it failed for a reason that says nothing about its source: a full disk, a
            process that died.
    """

    task: str
    split: str
    status: str
    records: int = 0
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    message: str = ""
    sha256: str = ""
    machine: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One store to build.

    Attributes:
        workspace: where its source looks.
        path: of the store.
        source: None for a plain seqio task.
        rows: records as the task declares them; None if it does not.
    """

    workspace: Workspace
    task: str
    family: str
    split: str
    path: Path
    version: str
    source: Source | None
    source_split: str
    rows: int | None = None


def store_jobs(
    workspace: Workspace, resolved: Resolved, config: DataConfig, splits: Sequence[str]
) -> Iterator[Job]:
    """Every store of a mixture once: `splits` as far as tasks have them, and exemplars' splits."""
    seen = set()
    for leaf in resolved.leaves:
        key = store_key(leaf, config)
        wanted = [*splits]
        if leaf.spec is not None and leaf.spec.exemplar_split_of(leaf.mode):
            wanted.append(leaf.spec.exemplar_split_of(leaf.mode))
        for split in wanted:
            if (key, split) in seen or split not in leaf.splits:
                continue
            seen.add((key, split))
            spec = leaf.spec
            yield Job(
                workspace=workspace,
                task=leaf.task,
                family=leaf.family,
                split=split,
                path=store_path(workspace, key, split),
                version=leaf.version,
                source=spec.source if spec else None,
                source_split=spec.splits[split] if spec else split,
                rows=spec.num_examples.get(split) if spec else None,
            )


def _seqio_reading() -> Any:
    # TensorFlow: only for plain seqio tasks, and never in worker processes.
    from instruct.data.seqio import reading as seqio_reading

    return seqio_reading


def _fingerprint(job: Job) -> str | None:
    """What the store would be built from now; None if the source is not here."""
    if job.source is None:
        return _seqio_reading().plain_fingerprint(job.task)
    if job.source.available(job.workspace) is not None:
        return None
    # A source that may be downloaded says that it can be read, and is not here yet.
    fingerprint = job.source.fingerprint(job.workspace)
    return None if fingerprint.endswith("absent") else fingerprint


def _fingerprint_or_none(job: Job) -> str | None:
    try:
        return _fingerprint(job)
    except Exception as error:  # whatever a source raises: it stops no other task
        _log.warning("the source of %s cannot be read (%s); its store is kept", job.task, error)
        return None


def find_store(job: Job, verify: bool = False) -> Manifest | None:
    """The manifest of a usable store, or None.

    A store is kept unless its source is here and would give other records; one that cannot even
    be asked changes nothing.

    Args:
        verify: compare all of its bytes with its hash.
    """
    try:
        manifest = read_manifest(job.path)
        if manifest is None:
            return None
        fingerprint = _fingerprint_or_none(job)
        if fingerprint not in (None, manifest.source_fingerprint):
            if job.source is None:
                _log.warning("%s", _why_stale(job, manifest.source_fingerprint))
            return None
        if not manifest.num_records and manifest.dropped:
            return None  # every row was dropped, perhaps by a reader that has since learnt more
        store = Store(job.path)
        if verify:
            store.verify()
        return manifest
    except UserError as error:
        _log.warning("%s; building it anew", str(error).partition(". Delete")[0])
        return None


def _why_stale(job: Job, fingerprint: str) -> str:
    """Why the store of a plain seqio task is built anew."""
    store = f"the record store of seqio task {job.task!r}, split {job.split!r}, is built anew"
    if not fingerprint.startswith(_seqio_reading().PLAIN_KIND):
        return (
            f"{store}, once: the version of this program that built it could not tell reliably "
            "whether its task changed"
        )
    return f"{store}: the task's code, constants, files or vocabulary changed since it was built"


def warn_of_unseen(task: str) -> None:
    """Warns of what could change a plain seqio task's examples unnoticed."""
    unseen = _seqio_reading().plain_unseen(task)
    if unseen:
        _log.warning(
            "seqio task %r: a change of its code rebuilds its store, but its code does not show "
            "%s. After changing that, set another version (source.version = '2' on the task's "
            "source) to rebuild the store",
            task,
            "; ".join(unseen),
        )


def build_store(
    job: Job,
    progress_fn: Callable[[int], None],
    items: Iterable[Any] | None = None,
    dropped_fn: Callable[[Any], None] = lambda dropped: None,
) -> Manifest:
    """Builds one store.

    Args:
        progress_fn: called with numbers of rows as they go by.
        items: what a plain seqio task's store holds (`plain_items`); other sources are asked.
        dropped_fn: called with each row that did not become a record.

    Raises:
        UserError: the source cannot be read here, and why.
        whatever reading the source raises.
    """
    if job.source is not None:
        why = job.source.available(job.workspace)
        if why is not None:
            raise UserError(why)
        items = job.source.records(job.workspace, job.source_split)
    fingerprint = _fingerprint(job)
    if items is None or fingerprint is None:
        raise UserError(f"task {job.task!r} has nothing to read")
    return write_store(
        job.path,
        _watched(items, dropped_fn),
        task=job.task,
        kind="tokens" if job.source is None else "records",
        version=job.version,
        source_fingerprint=fingerprint,
        progress_fn=progress_fn,
    )


def _watched(items: Iterable[Any], dropped_fn: Callable[[Any], None]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, Dropped):
            dropped_fn(item)
        yield item


def _without_records(job: Job, manifest: Manifest, first: Dropped | None) -> str:
    """What to say of a store without a single record; "" if it has some."""
    if manifest.num_records:
        return ""
    what = f"task {job.task}, split {job.split}: "
    total = sum(manifest.dropped.values())
    if not total:
        return f"{what}its source gave no rows for it, so it has no records"
    reasons = "; ".join(f"{reason} ({count:,})" for reason, count in manifest.dropped.items())
    message = f"{what}none of its {total:,} rows became a record: {reasons}"
    if first is not None and first.lacking:
        message += f". The first of them has nothing in {', '.join(first.lacking)}"
    if first is not None and first.row_fields:
        message += f". Its fields are {', '.join(first.row_fields)}"
    return message


def plain_items(job: Job, config: DataConfig) -> Iterator[Any] | None:
    """What the pipeline of a plain seqio task gives; None for another task."""
    if job.source is not None:
        return None
    vocabulary = load_vocabulary(config.vocabulary)
    return _seqio_reading().token_records(
        job.task, job.split, config.feature_lengths, vocabulary, config.seed
    )


def can_be_sent(job: Job) -> bool:
    """Whether another process can build it."""
    if job.source is None:
        return False
    try:
        ForkingPickler.dumps(job)
    except Exception:
        return False
    return True


def succeeded(job: Job, manifest: Manifest, status: str = "built") -> PreparedStore:
    """What is reported of a store that is there."""
    return PreparedStore(
        job.task,
        job.split,
        status,
        manifest.num_records,
        manifest.dropped,
        sha256=manifest.sha256,
    )


def failed(job: Job, error: BaseException) -> PreparedStore:
    """What is reported of a store that could not be built."""
    expected = UserError | StoreWriteError
    message = str(error) if isinstance(error, expected) else f"{type(error).__name__}: {error}"
    machine = isinstance(error, StoreWriteError | MemoryError)
    return PreparedStore(job.task, job.split, "failed", message=message, machine=machine)


def unavailable(job: Job) -> PreparedStore | None:
    """The failure of a job whose source cannot be read here, without building; else None."""
    try:
        why = None if job.source is None else job.source.available(job.workspace)
    except Exception as error:
        return failed(job, error)
    return None if why is None else failed(job, UserError(why))


def by_reason(failures: Iterable[tuple[str, str, str]]) -> list[str]:
    """(task, split, reason) as lines, those of one task with one reason on one line."""
    splits: dict[tuple[str, str], list[str]] = {}
    for task, split, reason in failures:
        splits.setdefault((task, reason), []).append(split)
    return [f"{task} ({', '.join(found)}): {why}" for (task, why), found in splits.items()]


def build_reported(
    job: Job, progress_fn: Callable[[int], None], items: Iterable[Any] | None = None
) -> PreparedStore:
    """`build_store`, with its error as a result: what goes wrong with one store stops no other."""
    try:
        first: list[Dropped] = []

        def note(dropped: Dropped) -> None:
            if not first:
                first.append(dropped)

        manifest = build_store(job, progress_fn, items, note)
        message = _without_records(job, manifest, next(iter(first), None))
        return dataclasses.replace(succeeded(job, manifest), message=message)
    except Exception as error:
        return failed(job, error)
