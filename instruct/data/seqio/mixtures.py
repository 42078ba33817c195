"""Sizes and shares of mixtures that a user registered with SeqIO itself.

If the source of a task does not know its number of examples, the manifest of the task's store
does: SeqIO's `num_input_examples` and rates such as `seqio.mixing_rate_num_examples` read it there.
A task without a store counts as `UNKNOWN_RECORDS`.
"""

import logging
from collections.abc import Callable

import seqio

from instruct.data.feed.records import UNKNOWN_RECORDS, known_num_records
from instruct.data.seqio.bridge import RecordDataSource
from instruct.data.stores.store import read_manifest
from instruct.errors import UserError
from instruct.workspace import Workspace

_log = logging.getLogger(__name__)


class _SizeFromStore:
    """A task's `num_input_examples`: from its source, else from its stores.

    Stores of several lengths or vocabularies have the same examples, unless the task's
    preprocessors drop some by length: the largest counts.

    Attributes:
        workspace: where the stores are; set by each caller.
        unknown: returned if neither knows the number.
    """

    def __init__(self, task: seqio.Task, workspace: Workspace) -> None:
        self._declared = task.num_input_examples
        self._task = task
        self.workspace = workspace
        self.unknown: int | None = None

    def __call__(self, split: str) -> int | None:
        if isinstance(self._task.source, RecordDataSource):  # one of ours in a user's mixture
            size = known_num_records(self.workspace, self._task.source.spec, split)
        else:
            size = self._declared(split)
        if size is None:
            paths = self.workspace.store_dir.glob(f"{self._task.name}@seqio-*/{split}")
            stored = [manifest.num_records for path in paths if (manifest := read_manifest(path))]
            size = max(stored, default=self.unknown)
        return size


def _use_store_sizes(workspace: Workspace, task: seqio.Task) -> _SizeFromStore:
    """Replaces a task's `num_input_examples` by a `_SizeFromStore`."""
    size = vars(task).get("num_input_examples")
    if isinstance(size, _SizeFromStore):
        size.workspace = workspace
    else:
        task.num_input_examples = size = _SizeFromStore(task, workspace)
    return size


def known_size(workspace: Workspace, task: seqio.Task, split: str) -> int | None:
    """Examples of a plain task's split, from its source or its stores; None if neither knows."""
    return _use_store_sizes(workspace, task)(split) if split in task.splits else 0


def plain_num_records(
    workspace: Workspace, name: str, split: str, without: Callable[[str], bool]
) -> int:
    """Records below a seqio task or mixture, except those of tasks that `without` excludes."""
    tasks = seqio.get_subtasks(seqio.get_mixture_or_task(name))
    sizes = [known_size(workspace, task, split) for task in tasks if not without(task.name)]
    return sum(UNKNOWN_RECORDS if size is None else size for size in sizes)


def plain_shares(
    workspace: Workspace,
    mixture: seqio.Mixture,
    without: Callable[[str], bool],
    warned: set[str],
) -> dict[str, float]:
    """Task -> share by the mixture's own rates; {} if all its tasks are excluded.

    Args:
        without: whether a task is excluded; the others take its share.
        warned: mixtures that were already warned about provisional rates; updated.

    Raises:
        UserError: its rates cannot be computed, or are not above 0.
    """
    sizes = {task.name: _use_store_sizes(workspace, task) for task in mixture.tasks}
    try:
        try:
            rates = _rates(mixture, sizes)
        except TypeError:
            rates = _rates(mixture, sizes, unknown=UNKNOWN_RECORDS)
            if mixture.name not in warned:
                warned.add(mixture.name)
                _warn_of_provisional_rates(mixture.name, sizes)
    except (TypeError, ValueError) as error:
        raise UserError(f"mixture {mixture.name!r}: cannot compute its rates: {error}") from error
    if not rates or not sum(rates.values()) > 0 or min(rates.values()) < 0:
        raise UserError(f"mixture {mixture.name!r} needs rates above 0, it has {rates}")
    rates = {name: rate for name, rate in rates.items() if rate > 0 and not without(name)}
    total = sum(rates.values())
    return {name: rate / total for name, rate in rates.items()}


def _rates(
    mixture: seqio.Mixture, sizes: dict[str, _SizeFromStore], unknown: int | None = None
) -> dict[str, float]:
    """The mixture's rates, with `unknown` records in tasks of unknown size."""
    try:
        for size in sizes.values():
            size.unknown = unknown
        return {task.name: mixture.get_rate(task) for task in mixture.tasks}
    finally:
        for size in sizes.values():
            size.unknown = None


def _warn_of_provisional_rates(mixture: str, sizes: dict[str, _SizeFromStore]) -> None:
    unknown = [
        task
        for task, size in sorted(sizes.items())
        if "train" in seqio.TaskRegistry.get(task).splits and size("train") is None
    ]
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    _log.warning(
        "mixture %s: its rates depend on numbers of examples, which are not known yet for %s. "
        "Each counts as %s until `run.py prepare` has built its store",
        mixture,
        ", ".join(unknown[:5]) + more,
        f"{UNKNOWN_RECORDS:,}",
    )
