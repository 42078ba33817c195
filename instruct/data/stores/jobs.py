"""Store jobs: the stores that a mixture needs, which of them exist, and building one.

Other processes and machines unpickle jobs: no TensorFlow here.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from instruct.data.config import DataConfig
from instruct.data.spec import Resolved, Source
from instruct.data.stores.staging import upload_store
from instruct.data.stores.store import Manifest, Store, read_manifest, store_key, store_path
from instruct.data.stores.writing import StoreWriteError, write_store
from instruct.errors import RunFailed, UserError
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
        machine: whether a machine, not the source, caused the failure: full disk, killed process.
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
        rows: number of records that the task declares, if it does.
        kind: "records", or "tokens" of a plain seqio task, whose pipeline runs in the process that
            listed the job.
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
        if spec is not None:
            source = spec.source
        elif leaf.plain_source_fn is not None:
            source = leaf.plain_source_fn(config)
        else:
            raise TypeError(f"leaf {leaf.name!r} has neither a spec nor a source")
        exemplar_split = spec.exemplar_split_of(leaf.mode) if spec else ""
        for split in (*splits, exemplar_split):
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


def find_store(job: Job, verify: bool = False) -> Manifest | None:
    """The manifest of a usable store, or None. `verify` compares all of its bytes with its hash.

    A store is usable unless its source can be read here and would give other records.
    """
    try:
        manifest = read_manifest(job.path)
        if manifest is None or _is_stale(job, manifest):
            return None
        store = Store(job.path)
        if verify:
            store.verify()
        return manifest
    except UserError as error:
        _log.warning("%s; rebuilding it", str(error).partition(". Delete")[0])
        return None


def _fingerprint(job: Job) -> str | None:
    """Fingerprint of the source now; None if it is not here."""
    if job.source.available(job.workspace) is not None:
        return None
    # A source that may be downloaded is available, but has no files yet.
    fingerprint = job.source.fingerprint(job.workspace)
    return None if fingerprint.endswith("absent") else fingerprint


def _is_stale(job: Job, manifest: Manifest) -> bool:
    """Whether rebuilding the store could give other records."""
    fingerprint = None
    try:
        fingerprint = _fingerprint(job)
    except Exception as error:  # whatever a source raises: it stops no other task
        _log.warning("the source of %s cannot be read (%s); its store is kept", job.task, error)
    if fingerprint in (None, manifest.source_fingerprint):
        # A later version of the reader may accept rows that this one rejected.
        return not manifest.num_records and bool(manifest.dropped)
    if job.kind == "tokens":
        _log.warning(
            "rebuilding the record store of seqio task %r, split %r: the task's code, constants, "
            "files or vocabulary changed, or an older version of this program built it",
            job.task,
            job.split,
        )
    return True


def build_store(job: Job, progress_fn: Callable[[int], None]) -> PreparedStore:
    """Builds one store; an error becomes a failed result, so it stops no other store.

    `progress_fn` is called with the number of rows since its last call.
    """
    rejected: list[Dropped] = []  # the first one

    def watched(items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, Dropped) and not rejected:
                rejected.append(item)
            yield item

    try:
        problem = job.source.available(job.workspace)
        if problem is not None:
            raise UserError(problem)
        items = job.source.records(job.workspace, job.source_split)
        fingerprint = _fingerprint(job)  # after `records`, which may download
        if fingerprint is None:
            raise UserError(f"task {job.task!r} has nothing to read")
        manifest = write_store(
            job.path,
            watched(items),
            task=job.task,
            kind=job.kind,
            version=job.version,
            source_fingerprint=fingerprint,
            progress_fn=progress_fn,
        )
        upload_store(job.workspace, job.path)
    except Exception as error:
        return failed(job, error)
    return succeeded(job, manifest, "built", _why_empty(job, manifest, *rejected))


def _why_empty(job: Job, manifest: Manifest, rejected: Dropped | None = None) -> str:
    """Why a store has no records, with the first rejected row; "" if it has records."""
    if manifest.num_records:
        return ""
    store = f"task {job.task}, split {job.split}: "
    total = sum(manifest.dropped.values())
    if not total:
        return f"{store}its source gave no rows for it, so it has no records"
    reasons = "; ".join(f"{reason} ({count:,})" for reason, count in manifest.dropped.items())
    message = f"{store}none of its {total:,} rows became a record: {reasons}"
    if rejected is not None and rejected.lacking:
        message += f". The first of them has nothing in {', '.join(rejected.lacking)}"
    if rejected is not None and rejected.row_fields:
        message += f". Its fields are {', '.join(rejected.row_fields)}"
    return message


def is_picklable(job: Job) -> bool:
    """Whether another process can build it."""
    if job.kind == "tokens":
        return False
    try:
        ForkingPickler.dumps(job)
    except Exception:
        return False
    return True


def succeeded(job: Job, manifest: Manifest, status: str, message: str = "") -> PreparedStore:
    """The result of a job whose store exists."""
    records, dropped, sha256 = manifest.num_records, manifest.dropped, manifest.sha256
    return PreparedStore(job.task, job.split, status, records, dropped, message, sha256)


def failed(job: Job, error: Exception) -> PreparedStore:
    """The result of a job whose store could not be built."""
    expected = isinstance(error, UserError | StoreWriteError | RunFailed)
    message = str(error) if expected else f"{type(error).__name__}: {error}"
    machine = isinstance(error, StoreWriteError | RunFailed | MemoryError)
    return PreparedStore(job.task, job.split, "failed", message=message, machine=machine)


def unavailable(job: Job) -> PreparedStore | None:
    """The failure of a job whose source cannot be read here; None if it can."""
    try:
        problem = job.source.available(job.workspace)
    except Exception as error:
        return failed(job, error)
    return None if problem is None else failed(job, UserError(problem))


def by_reason(failures: Iterable[tuple[str, str, str]]) -> list[str]:
    """(task, split, reason) as lines; splits of one task with one reason share a line."""
    splits: dict[tuple[str, str], list[str]] = {}
    for task, split, reason in failures:
        splits.setdefault((task, reason), []).append(split)
    return [f"{task} ({', '.join(names)}): {why}" for (task, why), names in splits.items()]
