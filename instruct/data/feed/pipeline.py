"""Training batches of one host from prefetched windows, with exact resume.

    feed = TrainFeed(workspace, config, resolve(workspace, config.mixture))
    for batch, info in feed: ...
    saved = feed.state()            # JSON: window, row, cumulative statistics
    feed.restore(saved)             # the next batch is the one that would have come

Host h of H takes windows h, h + H, h + 2H, ...; a batch is the next rows of its windows. The state
belongs to one host.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from instruct import batch as batch_keys
from instruct.data.config import DataConfig
from instruct.data.features import pad_rows
from instruct.data.feed.leaves import make_builder
from instruct.data.feed.window import COUNTS, FeedLeaf, Window
from instruct.data.spec import Leaf, Resolved
from instruct.errors import UserError
from instruct.workspace import Workspace

_STATE_FORMAT = 2
_LAST_WINDOW = 1 << 40
# Above this many tasks SeqIO's own pipeline needs minutes and gigabytes to start: measured 8 s and
# 1.1 GB for 20 tasks, 40 s and 3.1 GB for 200, more than 7.8 GB for 1,000.
_MANY_SEQIO_TASKS = 100

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BatchInfo:
    """What a batch holds.

    Attributes:
        task_counts: leaf -> examples, of leaves that have some. Empty under feed="seqio", whose
            packing does not keep the tasks.
        num_examples: examples in the batch (this host's rows).
    """

    task_counts: dict[str, int]
    num_examples: int


class TrainFeed:
    """Endless iterator of (batch, BatchInfo): int32 arrays of batch.py, this host's rows.

    Args:
        host, num_hosts: which of how many processes feed this run.
        seqio_windows_fn: `instruct.data.seqio.reading.seqio_windows`, which feed="seqio" reads; an
            argument, as that module imports TensorFlow and the feed of records needs none.

    Raises:
        UserError: stores are missing or damaged, the batch does not divide among the hosts.
    """

    def __init__(
        self,
        workspace: Workspace,
        config: DataConfig,
        resolved: Resolved,
        host: int = 0,
        num_hosts: int = 1,
        seqio_windows_fn: Callable[..., Iterator[Window]] | None = None,
    ) -> None:
        if config.batch_size % num_hosts:
            raise UserError(
                f"batch_size {config.batch_size} does not divide among {num_hosts} hosts"
            )
        self._workspace, self._config = workspace, config
        self._host, self._num_hosts = host, num_hosts
        self._seqio_windows_fn = seqio_windows_fn
        self._batch_rows = config.batch_size // num_hosts
        self._leaves = resolved.leaves
        self._left_out = resolved.left_out
        if config.feed == "seqio":
            self._builder = None
            self._plain_records = {}
            self._fingerprint = _hash([config.mixture, config.identity()])
        else:
            self._builder, _ = make_builder(workspace, config, resolved, config.split)
            # Leaves without wordings are plain seqio tasks, whose records the user's code made.
            plain = (leaf for leaf in self._builder.leaves if leaf.templates is None)
            self._plain_records = {leaf.name: leaf.sha256[:16] for leaf in plain}
            self._fingerprint = _hash(
                [
                    _leaf_identities(self._builder.leaves),
                    self._builder.plan.rates.round(12).tolist(),
                    config.identity(),
                ]
            )
        self._counts = np.zeros((len(COUNTS), len(self._leaves)), dtype=np.int64)
        self._dropped: dict[str, int] = {}
        self._next_window = 0  # of this host's windows: the one after `_window`
        self._row = 0
        self._window: Window | None = None
        self._windows: Iterator[Window] | None = None

    def __iter__(self) -> "TrainFeed":
        return self

    def __next__(self) -> tuple[dict[str, np.ndarray], BatchInfo]:
        parts, counts, missing = [], np.zeros(len(self._leaves), dtype=np.int64), self._batch_rows
        while missing:
            window = self._open_window()
            stop = min(self._row + missing, window.num_rows)
            parts.append({key: value[self._row : stop] for key, value in window.rows.items()})
            first = window.row_ends[self._row - 1] if self._row else 0
            inside = window.example_leaves[first : window.row_ends[stop - 1]]
            counts += np.bincount(inside, minlength=counts.size)
            missing -= stop - self._row
            self._row = stop
        batch = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        task_counts = {self._leaves[i].name: int(counts[i]) for i in np.flatnonzero(counts)}
        segments = batch[batch_keys.DECODER_SEGMENT_IDS]
        return batch, BatchInfo(task_counts, int(segments.max(axis=1).sum()))

    def _open_window(self) -> Window:
        """The window with the next row; adds the counts of each window when it opens it."""
        while self._window is None or self._row >= self._window.num_rows:
            self._window = self._fetch_window()
            self._row = 0
            self._counts += self._window.counts
            for reason, number in self._window.dropped.items():
                self._dropped[reason] = self._dropped.get(reason, 0) + number
            unusable = self._builder is not None and not self._counts[1].any()
            if unusable and self._next_window >= 4:
                raise UserError(
                    f"none of {self._counts[0].sum()} examples could be used; why: "
                    f"{self._dropped}. Are feature_lengths {dict(self._config.feature_lengths)} "
                    "large enough?"
                )
        return self._window

    def _fetch_window(self) -> Window:
        if self._windows is None:
            self._windows = self._make_windows(self._next_window)
        window = next(self._windows)
        self._next_window += 1
        return window

    def _make_windows(self, start: int) -> Iterator[Window]:
        config = self._config
        if self._builder is None:
            if self._seqio_windows_fn is None:
                raise TypeError("DataConfig.feed='seqio' needs TrainFeed(seqio_windows_fn=...)")
            if len(self._leaves) > _MANY_SEQIO_TASKS:
                _log.warning(
                    "feed='seqio' with %d tasks: expect about %d minutes before the first batch "
                    "and %d GB of memory; feed='records' needs seconds",
                    len(self._leaves),
                    max(2, len(self._leaves) // 40),
                    1 + len(self._leaves) // 80,
                )
            return self._seqio_windows_fn(
                self._workspace, config, self._host, self._num_hosts, len(self._leaves), start
            )
        numbers = range(self._host + start * self._num_hosts, _LAST_WINDOW, self._num_hosts)
        windows = grain.MapDataset.range(numbers.start, numbers.stop, numbers.step)
        windows = windows.map(self._builder)
        # Either one thread of this process prefetches, or each worker process does.
        threads = 0 if config.workers else 1
        ahead = 0 if config.workers else config.prefetch_windows
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        dataset = windows.to_iter_dataset(options)
        if config.workers:
            # Grain's workers read an absl flag, which fails unless absl's flags are parsed.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            per_worker = max(1, config.prefetch_windows // config.workers)
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(config.workers, per_worker_buffer_size=per_worker)
            )
        return (Window(**arrays) for arrays in dataset)

    def state(self) -> dict[str, Any]:
        """Position of this host (window and row) and its statistics, as JSON values."""
        opened = self._window is not None
        return {
            "format": _STATE_FORMAT,
            "fingerprint": self._fingerprint,
            "plain_records": self._plain_records,
            "host": self._host,
            "num_hosts": self._num_hosts,
            "window": self._next_window - opened,
            "row": self._row,
            "opened": opened,
            "counts": {name: row.tolist() for name, row in zip(COUNTS, self._counts)},
            "dropped_reasons": dict(self._dropped),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Resumes at a position that `state` returned.

        Raises:
            UserError: the position belongs to other data, settings or hosts.
        """
        if state.get("format") != _STATE_FORMAT:
            raise UserError(
                f"input position has format {state.get('format')!r}, this program reads "
                f"{_STATE_FORMAT}"
            )
        if state["fingerprint"] != self._fingerprint:
            raise UserError(
                "the checkpoint's input position belongs to other data: mixture, rates, records, "
                "wordings, tasks left out, seed, lengths, packing, plan or vocabulary differ. "
                f"{self._changed_plain(state)}Use the settings of the first start, or a new "
                "MODEL_DIR with INITIAL_CHECKPOINT_PATH"
            )
        if (state["host"], state["num_hosts"]) != (self._host, self._num_hosts):
            raise UserError(
                f"the checkpoint was written by host {state['host']} of {state['num_hosts']}, this "
                f"is host {self._host} of {self._num_hosts}; the number of hosts must stay"
            )
        self.close()
        self._next_window = state["window"]
        if state["opened"]:
            self._window = self._fetch_window()
        self._row = state["row"]
        none = [0] * len(self._leaves)  # states of older versions lack `exemplars_missing`
        self._counts = np.array([state["counts"].get(name, none) for name in COUNTS], np.int64)
        self._dropped = dict(state["dropped_reasons"])

    def _changed_plain(self, state: Mapping[str, Any]) -> str:
        """A sentence about plain seqio tasks whose records changed; "" if no records changed."""
        before = state.get("plain_records", {})  # older states lack them
        changed = [n for n, sha256 in self._plain_records.items() if before.get(n) != sha256]
        if not changed:
            return ""
        may = "are" if before else "may be"
        return (
            f"The records of seqio tasks ({', '.join(changed[:5])}) {may} others: their stores "
            "were built anew after their code or data changed, or their pipeline gives other "
            "examples each time. "
        )

    def statistics(self) -> dict[str, Any]:
        """Counts of the examples read so far, as JSON values.

        Returns:
            `leaves`: for every leaf its name, `asked` (share of the mixture), `realised` (share
            of the examples kept), `examples`, `dropped`, `truncated`, `exemplars_missing` (from
            the prompts kept), `tokens`; totals under `kept`, `dropped`, `truncated`,
            `exemplars_missing`, `tokens`; `dropped_reasons`; `left_out`, the tasks of the mixture
            that are not in it. Windows count when their first row is used.
        """
        counts = dict(zip(COUNTS, self._counts))
        tokens = counts["input_tokens"] + counts["target_tokens"]
        total = max(1, int(counts["kept"].sum()))
        losses = ("dropped", "truncated", "exemplars_missing")
        leaves = [
            {
                "name": leaf.name,
                "task": leaf.task,
                "family": leaf.family,
                "category": leaf.category,
                "mode": leaf.mode,
                "asked": leaf.rate,
                "realised": int(counts["kept"][i]) / total,
                "examples": int(counts["kept"][i]),
                **{name: int(counts[name][i]) for name in losses},
                "tokens": int(tokens[i]),
            }
            for i, leaf in enumerate(self._leaves)
        ]
        return {
            "leaves": leaves,
            "kept": int(counts["kept"].sum()),
            **{name: int(counts[name].sum()) for name in losses},
            "tokens": int(tokens.sum()),
            "dropped_reasons": dict(sorted(self._dropped.items())),
            "left_out": list(self._left_out),
        }

    def close(self) -> None:
        """Stops building ahead; the feed may be restored afterwards."""
        self._windows = None
        self._window = None
        self._row = 0


def _leaf_identities(leaves: Sequence[FeedLeaf]) -> list[Any]:
    """Hashes of the records, exemplars and templates that decide the examples of each leaf."""
    # Thousands of leaves share some dozen template sets.
    sets = {id(leaf.templates): leaf.templates for leaf in leaves}
    wordings = {number: _hash(repr(templates)) for number, templates in sets.items()}
    return [
        (
            leaf.name,
            leaf.sha256,
            leaf.num_records,
            leaf.exemplar_sha256,
            leaf.shots,
            wordings[id(leaf.templates)],
        )
        for leaf in leaves
    ]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def eval_batches(
    workspace: Workspace,
    config: DataConfig,
    resolved: Resolved,
    split: str = "validation",
    num_examples: int = 512,
    host: int = 0,
    num_hosts: int = 1,
) -> list[dict[str, np.ndarray]]:
    """Batches for a teacher-forced loss: always the same examples, in the mixture's proportions.

    Tasks without prepared records in `split` are left out. The last batch is filled up with
    padding rows, which weigh nothing.

    Returns:
        This host's rows: int32 arrays of batch.py with batch_size / num_hosts rows.

    Raises:
        UserError: no task has prepared records in the split.
    """
    held = dataclasses.replace(config, window_examples=num_examples, seed=0, split=split)
    builder, used = make_builder(workspace, held, resolved, split, training=False)
    window = builder.build(0)
    rows = _renumber(window.rows, used, resolved.leaves)
    num_batches = -(-window.num_rows // config.batch_size)
    rows = pad_rows(rows, num_batches * config.batch_size)
    share = config.batch_size // num_hosts
    starts = range(host * share, num_batches * config.batch_size, config.batch_size)
    return [{key: value[s : s + share] for key, value in rows.items()} for s in starts]


def _renumber(
    rows: dict[str, np.ndarray], used: tuple[Leaf, ...], every: tuple[Leaf, ...]
) -> dict[str, np.ndarray]:
    """`decoder_task_ids` of a part of the leaves -> of all leaves."""
    numbers = {leaf.name: i + 1 for i, leaf in enumerate(every)}
    table = np.array([0, *(numbers[leaf.name] for leaf in used)], dtype=np.int32)
    key = batch_keys.DECODER_TASK_IDS
    return rows | {key: table[rows[key]]}
