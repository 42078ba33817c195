"""The data of a training run: feed, evaluation batches, and the groups of its losses."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from instruct.data.config import DataConfig
from instruct.data.feed.pipeline import TrainFeed, eval_batches
from instruct.data.stores.left_out import left_out_path, tasks_left_out
from instruct.data.stores.prepare import prepare
from instruct.data.vocab import check_embedding_rows, load_vocabulary
from instruct.errors import UserError
from instruct.train.metrics import IntervalMetrics
from instruct.workspace import Workspace

EVAL_SPLIT = "validation"

Batch = dict[str, np.ndarray]


class Feed(Protocol):
    """An endless, exactly resumable iterator over batches; `TrainFeed` is one."""

    def __next__(self) -> tuple[Batch, Any]:
        """(this process's rows, an info with `task_counts` and `num_examples`)."""
        ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...

    def statistics(self) -> dict[str, Any]: ...

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
) -> Inputs:
    """Resolves the mixture, builds missing record stores, opens feed and evaluation batches.

    `vocab_size`: rows of the model's embedding. `num_eval_examples`: of the validation split, if
    there is one; 0 for no evaluation.
    """
    # SeqIO and TensorFlow take seconds to import, and only names need them.
    from instruct.data import registry
    from instruct.data.seqio.reading import seqio_windows

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
    prepare(workspace, resolved, data, tuple(splits), console=console).check()
    # Again: rates in proportion to examples are known only now.
    resolved = registry.resolve(workspace, mixture, data.split, left_out)
    process = (jax.process_index(), jax.process_count())
    held = []
    if num_eval_examples and any(EVAL_SPLIT in leaf.splits for leaf in resolved.leaves):
        held = eval_batches(workspace, data, resolved, EVAL_SPLIT, num_eval_examples, *process)
    elif num_eval_examples:
        say(f"{mixture} has no split {EVAL_SPLIT!r}: there will be no eval/loss.")
    feed = TrainFeed(workspace, data, resolved, *process, seqio_windows)
    return Inputs(feed, held, resolved.leaves)


def task_groups(leaves: Sequence[Any]) -> tuple[list[str], list[int]]:
    """(names of the groups, group of each leaf): families, or the categories of a single family."""
    families = {leaf.family for leaf in leaves}
    labels = [leaf.family if len(families) > 1 else leaf.category for leaf in leaves]
    names = sorted(set(labels))
    return names, [names.index(label) for label in labels]


def gather_states(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The JSON values of all processes, in order; every process must call this."""
    if jax.process_count() == 1:
        return [dict(state)]
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray([text.size]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: text.size] = text
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(bytes(row[: int(size)])) for row, size in zip(rows, sizes.reshape(-1))]


def restore_inputs(feed: Feed, meter: IntervalMetrics, saved: Mapping[str, Any]) -> None:
    """Restores this process's feed and sums from the `processes` that `gather_states` returned."""
    processes: Sequence[Mapping[str, Any]] = saved["processes"]
    if not processes:  # converted from a T5X checkpoint with its slots: the data start here
        return
    if len(processes) != jax.process_count():
        raise UserError(
            f"the checkpoint was written by {len(processes)} processes, now there are "
            f"{jax.process_count()}; another number would change the data. Use as many, or start "
            "a new MODEL_DIR with INITIAL_CHECKPOINT_PATH."
        )
    own = processes[jax.process_index()]
    feed.restore(own["feed"])
    meter.restore(own["metrics"])
