"""The data of a training run: feed, evaluation batches, and the groups of its losses."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from rich.console import Console

from instruct.data import registry
from instruct.data.config import DataConfig
from instruct.data.feed.pipeline import TrainFeed, eval_batches, own_lanes
from instruct.data.stores.left_out import left_out_path, tasks_left_out
from instruct.data.stores.prepare import prepare_once
from instruct.data.vocab import check_embedding_rows, load_vocabulary
from instruct.distributed import gather_json
from instruct.train.metrics import IntervalMetrics
from instruct.workspace import Workspace

EVAL_SPLIT = "validation"

Batch = dict[str, np.ndarray]


class Feed(Protocol):
    """An endless, exactly resumable iterator over batches; `TrainFeed` is one."""

    def __next__(self) -> tuple[Batch, Any]:
        """(this process's rows, an info with `task_counts` and `num_examples`)."""
        ...

    def state(self) -> dict[str, Any]:
        """This process's position and statistics, as JSON values."""
        ...

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Resumes at the states of all processes that feed different rows, however many."""
        ...

    def statistics(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """`leaves`, the rows of the table of the mixture, and sums, as JSON values."""
        ...

    def close(self) -> None: ...


class Inputs(NamedTuple):
    """The data of a run, of this process."""

    feed: Feed
    eval_batches: list[Batch]  # for the teacher-forced loss; may be empty
    leaves: Sequence[Any]  # of the mixture; have `name`, `family`, `category`; task ids start at 1


def open_inputs(
    data: DataConfig,
    vocab_size: int,
    num_eval_examples: int,
    console: Console,
    workspace: Workspace = Workspace(),  # noqa: B008 (frozen)
    rows: Mapping[int, Sequence[int]] | None = None,
) -> Inputs:
    """Resolves the mixture, builds missing record stores, opens feed and evaluation batches.

    Args:
        data: what to read.
        vocab_size: rows of the model's embedding.
        num_eval_examples: of the validation split, if there is one; 0 for no evaluation.
        console: for progress.
        workspace: where data and stores are.
        rows: process -> the rows of a batch that it feeds (`mesh.process_rows`); None: this one
            feeds them all.

    Raises:
        UserError: the mixture, a store or the vocabulary cannot be used, or the lanes do not divide
            among the processes.
    """

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    mixture = data.mixture
    check_embedding_rows(load_vocabulary(data.vocabulary), vocab_size)
    if registry.task_vocabulary(workspace, mixture) == data.vocabulary:
        say(f"vocabulary: {data.vocabulary}, from the tasks of {mixture}.")
    left_out = tasks_left_out(workspace, data)
    resolved = registry.resolve(workspace, mixture, data.split, left_out)
    if resolved.left_out:
        path = left_out_path(workspace, mixture)
        say(f"{len(resolved.left_out)} tasks of {mixture} are left out, as {path} says.")
    splits = dict.fromkeys(("train", data.split, EVAL_SPLIT))
    prepared = prepare_once(workspace, resolved, data, tuple(splits), console=console)
    prepared.check()
    # Again: rates in proportion to examples are known only now.
    resolved = registry.resolve(workspace, mixture, data.split, left_out)
    process = jax.process_index()
    rows = rows or {process: range(data.batch_size)}
    held = []
    if num_eval_examples:
        tasks = {one.task for one in prepared.stores if one.split == EVAL_SPLIT and one.records}
        lacks = f"no split {EVAL_SPLIT!r}"
        if any(EVAL_SPLIT in leaf.splits for leaf in resolved.leaves):
            lacks = f"no record of split {EVAL_SPLIT!r} with a prompt that is not inverted"
        if any(leaf.task in tasks and not leaf.inverted for leaf in resolved.leaves):
            own = rows[process]
            held = eval_batches(workspace, data, resolved, EVAL_SPLIT, num_eval_examples, own, say)
            lacks = f"no example of split {EVAL_SPLIT!r} that fits"
        if not held:
            say(f"{mixture} has {lacks}: there will be no eval/loss.")
    windows_fn = registry.seqio_windows_fn(data)
    feed = TrainFeed(workspace, data, resolved, own_lanes(data, rows, process), windows_fn)
    return Inputs(feed, held, resolved.leaves)


def task_groups(leaves: Sequence[Any]) -> tuple[list[str], list[int]]:
    """(names of the groups, group of each leaf): families, or the categories of a single family."""
    families = {leaf.family for leaf in leaves}
    labels = [leaf.family if len(families) > 1 else leaf.category for leaf in leaves]
    names = sorted(set(labels))
    return names, [names.index(label) for label in labels]


def gather_states(
    state: Mapping[str, Any], rows: Mapping[int, Sequence[int]]
) -> list[dict[str, Any]]:
    """The JSON values of the processes that feed different rows, in order; every one calls this.

    Args:
        state: of this process.
        rows: process -> the rows of a batch that it feeds.
    """
    states = gather_json(state)
    first: dict[tuple[int, ...], int] = {}
    for process, own in sorted(rows.items()):
        first.setdefault(tuple(own), process)
    return [states[process] for process in first.values()]


def restore_inputs(
    feed: Feed,
    meter: IntervalMetrics,
    saved: Mapping[str, Any],
    rows: Mapping[int, Sequence[int]],
) -> None:
    """Restores this process's feed and sums from the `processes` that `gather_states` returned."""
    processes: Sequence[Mapping[str, Any]] = saved["processes"]
    if not processes:  # converted from a T5X checkpoint with its slots: the data start here
        return
    feed.restore([one["feed"] for one in processes])
    meter.restore(processes[0]["metrics"])
    # All sums but this one are of the whole batch; it goes on in the process with the first row.
    total = sum(one["metrics"]["examples"] for one in processes)
    meter.examples = total if rows[jax.process_index()][0] == 0 else 0
