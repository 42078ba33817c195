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

_MOST_UNSTORED_EXEMPLARS = 1000
_READ_AT_ONCE = 256  # records


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
    shuffle: bool,
    seed: int,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, Record]]:
    """Records with their numbers, from the prepared store, else from the source.

    Args:
        shuffle: in an order that the seed fixes (a store; a source has its own order).
        share: (index, number of shares) of equal shares of the order; of a source only the whole.

    Raises:
        UserError: there is no store, and the source cannot be read here.
    """
    if spec_manifest(workspace, spec, split) is not None:
        store: Store[Record] = Store(store_path(workspace, spec_key(spec), split))
        order = np.arange(len(store))
        if shuffle:
            order = permute(order, len(store), np.uint64(example_key(seed, name_key(spec.name), 0)))
        order = order[share[0] :: share[1]]
        for start in range(0, len(order), _READ_AT_ONCE):
            numbers = order[start : start + _READ_AT_ONCE].tolist()
            yield from zip(numbers, store.read(numbers))
        return
    reason = spec.source.available(workspace)
    if reason is not None:
        raise UserError(f"task {spec.name!r} has no prepared store, and its source: {reason}")
    yield from enumerate(_source_records(workspace, spec, split))


def exemplar_records(workspace: Workspace, spec: TaskSpec, split: str) -> Records:
    """The records that exemplars are drawn from: the store's, or the first of the source."""
    if spec_manifest(workspace, spec, split) is not None:
        return Store(store_path(workspace, spec_key(spec), split))
    rows = _source_records(workspace, spec, split)
    return RecordList(itertools.islice(rows, _MOST_UNSTORED_EXEMPLARS))


def _source_records(workspace: Workspace, spec: TaskSpec, split: str) -> Iterator[Record]:
    rows = spec.source.records(workspace, spec.splits[split])
    return (row for row in rows if isinstance(row, Record))
