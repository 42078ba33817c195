"""Records of a task's split by number: from the prepared store, else from the source itself."""

import itertools
from collections.abc import Iterator

import numpy as np

from instruct.data.feed.plan import permute
from instruct.data.feed.rendering import RecordList, Records, example_key, name_key
from instruct.data.spec import TaskSpec
from instruct.data.stores.store import Manifest, Store, read_manifest, spec_key, store_path
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.workspace import Workspace

# Number of records that a task counts for which is not prepared and does not declare it.
UNKNOWN_RECORDS = 1000
_MOST_UNSTORED_EXEMPLARS = 1000


def spec_manifest(workspace: Workspace, spec: TaskSpec, split: str) -> Manifest | None:
    """The manifest of a split's store; None if the split is not prepared."""
    return read_manifest(store_path(workspace, spec_key(spec), split))


def known_num_records(workspace: Workspace, spec: TaskSpec, split: str) -> int | None:
    """Records of a split: the manifest's number, else the declared one, else None."""
    manifest = spec_manifest(workspace, spec, split)
    return spec.num_examples.get(split) if manifest is None else manifest.num_records


def numbered_records(
    workspace: Workspace,
    spec: TaskSpec,
    split: str,
    shuffle: bool = False,
    seed: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, Record]]:
    """(number, record) pairs from the prepared store, else from the source.

    Args:
        shuffle: permute a store's records by `seed`; a source keeps its own order.
        share: (index, number of shares) of equal shares of a store's order; a source is read whole.

    Raises:
        UserError: there is no store, and the source cannot be read.
    """
    store = _open_store(workspace, spec, split)
    if store is not None:
        order = np.arange(len(store))
        if shuffle:
            order = permute(order, len(store), np.uint64(example_key(seed, name_key(spec.name), 0)))
        numbers = order[share[0] :: share[1]].tolist()
        yield from zip(numbers, store.stream(numbers))
        return
    reason = spec.source.available(workspace)
    if reason is not None:
        raise UserError(f"task {spec.name!r} has no prepared store, and its source: {reason}")
    yield from enumerate(_source_records(workspace, spec, split))


def exemplar_records(workspace: Workspace, spec: TaskSpec, split: str) -> Records:
    """The records that exemplars are drawn from: the store's, else the first of the source."""
    store = _open_store(workspace, spec, split)
    if store is not None:
        return store
    rows = _source_records(workspace, spec, split)
    return RecordList(itertools.islice(rows, _MOST_UNSTORED_EXEMPLARS))


def _open_store(workspace: Workspace, spec: TaskSpec, split: str) -> Store[Record] | None:
    if spec_manifest(workspace, spec, split) is None:
        return None
    return Store(store_path(workspace, spec_key(spec), split))


def _source_records(workspace: Workspace, spec: TaskSpec, split: str) -> Iterator[Record]:
    rows = spec.source.records(workspace, spec.splits[split])
    return (row for row in rows if isinstance(row, Record))
