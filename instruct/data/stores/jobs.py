"""Store jobs: the stores that a mixture needs, which of them exist, and building one.

Jobs are sent to other processes and machines, so this module imports no TensorFlow.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from instruct.data.config import DataConfig
from instruct.data.spec import Resolved, Source
from instruct.data.stores.store import (
    Manifest,
    Store,
    read_manifest,
    store_key,
    store_path,
)
from instruct.data.stores.writing import StoreWriteError, write_store
from instruct.errors import UserError
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PreparedStore:
    """Result of preparing one store.

    Attributes:
        status: "built", "there" (it existed), or "failed".
        records: 0 if it failed.
        dropped: reason -> rejected rows.
        message: why it failed, or why it has no records.
        sha256: of the records; "" if it failed.
        machine: whether this machine, and not the source, caused the failure: a full disk, a
            killed process.
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
        rows: records as the task declares them; None if it does not.
        kind: the manifest's: "records", or "tokens" of a plain seqio task, whose pipeline runs in
            the process that listed the job.
    """

    workspace: Workspace
    task: str
    family: str
    split: str
    path: Path
    version: str
    source: Source
    source_split: str
    rows: int | None = None
    kind: str = "records"


def store_jobs(
    workspace: Workspace, resolved: Resolved, config: DataConfig, splits: Sequence[str]
) -> Iterator[Job]:
    """Jobs for all stores of a mixture: `splits` that tasks have, exemplar splits; each once."""
    seen = set()
    for leaf in resolved.leaves:
        key, spec = store_key(leaf, config), leaf.spec
        source = spec.source if spec is not None else None
        if leaf.plain_source_fn is not None:
            source = leaf.plain_source_fn(config)
        if source is None:
            raise TypeError(f"leaf {leaf.name!r} has neither a spec nor a source")
        wanted = [*splits]
        if spec is not None and spec.exemplar_split_of(leaf.mode):
            wanted.append(spec.exemplar_split_of(leaf.mode))
        for split in wanted:
            if (key, split) in seen or split not in leaf.splits:
                continue
            seen.add((key, split))
            yield Job(
                workspace=workspace,
                task=leaf.task,
                family=leaf.family,
                split=split,
                path=store_path(workspace, key, split),
                version=leaf.version,
                source=source,
                source_split=spec.splits[split] if spec else split,
                rows=spec.num_examples.get(split) if spec else None,
                kind="records" if spec else "tokens",
            )


def _fingerprint(job: Job) -> str | None:
    """Fingerprint of what the store would be built from now; None if the source is not here."""
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

    A store is usable unless its source exists here and would give other records. A source that
    raises an error leaves the store as it is.

    Args:
        verify: compare all of its bytes with its hash.
    """
    try:
        manifest = read_manifest(job.path)
        if manifest is None:
            return None
        fingerprint = _fingerprint_or_none(job)
        if fingerprint not in (None, manifest.source_fingerprint):
            if job.kind == "tokens":
                _log.warning("%s", _why_stale(job, manifest.source_fingerprint, fingerprint))
            return None
        if not manifest.num_records and manifest.dropped:
            return None  # a later version of the reader may accept rows that this one dropped
        store = Store(job.path)
        if verify:
            store.verify()
        return manifest
    except UserError as error:
        _log.warning("%s; building it anew", str(error).partition(". Delete")[0])
        return None


def _why_stale(job: Job, built_from: str, fingerprint: str) -> str:
    """Why the store of a plain seqio task is built anew."""
    store = f"the record store of seqio task {job.task!r}, split {job.split!r}, is built anew"
    if built_from.partition("-")[0] != fingerprint.partition("-")[0]:  # another kind of hash
        return (
            f"{store}, once: the version of this program that built it could not tell reliably "
            "whether its task changed"
        )
    return f"{store}: the task's code, constants, files or vocabulary changed since it was built"


def build_store(
    job: Job,
    progress_fn: Callable[[int], None],
    dropped_fn: Callable[[Any], None] = lambda dropped: None,
) -> Manifest:
    """Builds one store.

    Args:
        progress_fn: called with the number of rows since its last call.
        dropped_fn: called with each rejected row.

    Raises:
        UserError: the source cannot be read here, and why.
        whatever reading the source raises.
    """
    why = job.source.available(job.workspace)
    if why is not None:
        raise UserError(why)
    items = job.source.records(job.workspace, job.source_split)
    fingerprint = _fingerprint(job)
    if fingerprint is None:
        raise UserError(f"task {job.task!r} has nothing to read")
    return write_store(
        job.path,
        _watched(items, dropped_fn),
        task=job.task,
        kind=job.kind,
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
    """Message about a store without records; "" if it has records."""
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


def can_be_sent(job: Job) -> bool:
    """Whether another process can build it."""
    if job.kind == "tokens":
        return False
    try:
        ForkingPickler.dumps(job)
    except Exception:
        return False
    return True


def succeeded(job: Job, manifest: Manifest, status: str = "built") -> PreparedStore:
    """The result of a job whose store exists."""
    return PreparedStore(
        job.task,
        job.split,
        status,
        manifest.num_records,
        manifest.dropped,
        sha256=manifest.sha256,
    )


def failed(job: Job, error: BaseException) -> PreparedStore:
    """The result of a job whose store could not be built."""
    expected = UserError | StoreWriteError
    message = str(error) if isinstance(error, expected) else f"{type(error).__name__}: {error}"
    machine = isinstance(error, StoreWriteError | MemoryError)
    return PreparedStore(job.task, job.split, "failed", message=message, machine=machine)


def killed(job: Job) -> PreparedStore:
    """The failure of a job whose process was killed."""
    message = "the process that built it was killed; did it run out of memory?"
    return PreparedStore(job.task, job.split, "failed", message=message, machine=True)


def unavailable(job: Job) -> PreparedStore | None:
    """The failure of a job whose source cannot be read here, without building; else None."""
    try:
        why = job.source.available(job.workspace)
    except Exception as error:
        return failed(job, error)
    return None if why is None else failed(job, UserError(why))


def by_reason(failures: Iterable[tuple[str, str, str]]) -> list[str]:
    """(task, split, reason) as lines, those of one task with one reason on one line."""
    splits: dict[tuple[str, str], list[str]] = {}
    for task, split, reason in failures:
        splits.setdefault((task, reason), []).append(split)
    return [f"{task} ({', '.join(found)}): {why}" for (task, why), found in splits.items()]


def build_reported(job: Job, progress_fn: Callable[[int], None]) -> PreparedStore:
    """`build_store`, with its error as a result: what goes wrong with one store stops no other."""
    try:
        first: list[Dropped] = []

        def note(dropped: Dropped) -> None:
            if not first:
                first.append(dropped)

        manifest = build_store(job, progress_fn, note)
        message = _without_records(job, manifest, next(iter(first), None))
        return dataclasses.replace(succeeded(job, manifest), message=message)
    except Exception as error:
        return failed(job, error)
