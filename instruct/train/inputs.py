"""What training needs of its data: a feed, evaluation batches, groups to show losses by."""

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
    """Endless batches that can be continued exactly; `TrainFeed` is one."""

    def __next__(self) -> tuple[Batch, Any]:
        """(this process's rows, an info with `task_counts` and `num_examples`)."""
        ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...

    def statistics(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


class Inputs(NamedTuple):
    """The data of a run.

    Attributes:
        feed: training batches of this process.
        eval_batches: this process's rows of what the teacher-forced loss is computed on; may be
            empty.
        leaves: of the mixture, with `name`, `family` and `category`; task ids count them from 1.
    """

    feed: Feed
    eval_batches: list[Batch]
    leaves: Sequence[Any]


def open_inputs(
    data: DataConfig,
    vocab_size: int,
    num_eval_examples: int,
    console: Console,
    workspace: Workspace = Workspace(),  # noqa: B008 (frozen)
) -> Inputs:
    """Resolves the mixture, builds the record stores that are missing, opens feed and evaluation.

    Args:
        data: what to train on.
        vocab_size: rows of the model's embedding.
        num_eval_examples: of the validation split; 0 for no evaluation. Without a validation
            split there is none either.
        console: for the progress of the stores.
        workspace: where data and stores are.

    Raises:
        UserError: unknown mixture, vocabulary larger than the embedding, unreadable data, ...
    """
    # SeqIO and TensorFlow take seconds to import, and only names need them.
    from instruct.data import registry
    from instruct.data.seqio.reading import seqio_windows

    check_embedding_rows(load_vocabulary(data.vocabulary), vocab_size)
    if registry.task_vocabulary(workspace, data.mixture) == data.vocabulary:
        text = f"vocabulary: {data.vocabulary}, as the tasks of {data.mixture} have it."
        console.print(text, markup=False, soft_wrap=True)
    left_out = tasks_left_out(workspace, data)
    resolved = registry.resolve(workspace, data.mixture, data.split, left_out)
    if resolved.left_out:
        text = (
            f"{len(resolved.left_out)} tasks of {data.mixture} are left out, as "
            f"{left_out_path(workspace, data.mixture)} says."
        )
        console.print(text, markup=False, soft_wrap=True)
    splits = dict.fromkeys(("train", data.split, EVAL_SPLIT))
    prepare(workspace, resolved, data, tuple(splits), console=console).check()
    # Again: rates in proportion to examples are known only now.
    resolved = registry.resolve(workspace, data.mixture, data.split, left_out)
    here = (jax.process_index(), jax.process_count())
    held = []
    if num_eval_examples and any(EVAL_SPLIT in leaf.splits for leaf in resolved.leaves):
        held = eval_batches(workspace, data, resolved, EVAL_SPLIT, num_eval_examples, *here)
    elif num_eval_examples:
        text = f"{data.mixture} has no split {EVAL_SPLIT!r}: there will be no eval/loss."
        console.print(text, markup=False, soft_wrap=True)
    feed = TrainFeed(workspace, data, resolved, *here, seqio_windows)
    return Inputs(feed, held, resolved.leaves)


def task_groups(leaves: Sequence[Any]) -> tuple[list[str], list[int]]:
    """(names of the groups, group of each leaf): families, or the categories of a single family."""
    families = {leaf.family for leaf in leaves}
    labels = [leaf.family if len(families) > 1 else leaf.category for leaf in leaves]
    names = sorted(set(labels))
    return names, [names.index(label) for label in labels]


def gather_states(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The JSON values of every process, in their order; all processes must call this."""
    if jax.process_count() == 1:
        return [dict(state)]
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray([text.size]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: text.size] = text
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(bytes(row[: int(size)])) for row, size in zip(rows, sizes.reshape(-1))]


def restore_inputs(feed: Feed, meter: IntervalMetrics, saved: Mapping[str, Any]) -> None:
    """Continues feed and sums where this process saved them.

    Args:
        feed, meter: of this process.
        saved: `processes` holds what `gather_states` gave.

    Raises:
        UserError: another number of processes saved them.
    """
    processes: Sequence[Mapping[str, Any]] = saved["processes"]
    if not processes:  # converted from a T5X checkpoint with its slots: the data begin here
        return
    if len(processes) != jax.process_count():
        raise UserError(
            f"the checkpoint was written by {len(processes)} processes, now there are "
            f"{jax.process_count()}; the number must stay, or the data would differ. To go on "
            "anyway, start a new MODEL_DIR with INITIAL_CHECKPOINT_PATH."
        )
    own = processes[jax.process_index()]
    feed.restore(own["feed"])
    meter.restore(own["metrics"])
