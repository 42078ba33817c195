"""Training batches of one host from prefetched windows, with exact resume.

    feed = TrainFeed(workspace, config, resolve(workspace, config.mixture))
    for batch, info in feed: ...
    state = feed.state()            # JSON: window, row, cumulative statistics
    feed.restore(state)             # the next batch is the one after that state

Host h of H takes windows h, h + H, h + 2H, ...; a batch is the next rows of its windows. The state
belongs to one host.
"""

import collections
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from instruct import batch as batch_keys
from instruct.data.config import DataConfig
from instruct.data.features import pad_rows
from instruct.data.feed.leaves import make_builder
from instruct.data.feed.window import COUNTS, Window
from instruct.data.spec import Resolved
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
    """Contents of a batch (this host's rows).

    Attributes:
        task_counts: leaf -> examples, if any. Empty under feed="seqio", whose packing does not keep
            the tasks.
    """

    task_counts: dict[str, int]
    num_examples: int


class TrainFeed(Iterator[tuple[dict[str, np.ndarray], BatchInfo]]):
    """Endless iterator of (batch, BatchInfo): int32 arrays of batch.py, this host's rows.

    Args:
        host, num_hosts: index of this host, and how many feed the run.
        seqio_windows_fn: `instruct.data.seqio.reading.seqio_windows` for feed="seqio"; an argument
            because its module imports TensorFlow, which feed="records" does not need.

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
        # Hashes of the records of plain seqio tasks, which the user's code produced.
        self._plain_records: dict[str, str] = {}
        if config.feed == "seqio":
            self._builder = None
            self._fingerprint = _hash([config.mixture, config.identity()])
        else:
            self._builder, _ = make_builder(workspace, config, resolved)
            leaves = self._builder.leaves
            self._plain_records = {x.name: x.store[1][:16] for x in leaves if x.templates is None}
            # Thousands of leaves share some dozen template sets.
            sets = {id(leaf.templates): leaf.templates for leaf in leaves}
            hashes = {number: _hash(repr(templates)) for number, templates in sets.items()}
            identities = [
                [leaf.name, leaf.store[1], leaf.num_records, leaf.exemplar_store[1], leaf.shots]
                + [hashes[id(leaf.templates)]]
                for leaf in leaves
            ]
            rates = self._builder.plan.rates.round(12).tolist()
            self._fingerprint = _hash([identities, rates, config.identity()])
        self._counts = np.zeros((len(COUNTS), len(self._leaves)), dtype=np.int64)
        self._dropped: collections.Counter[str] = collections.Counter()
        self._next_window = 0  # of this host's windows: the one after `_window`
        self._row = 0
        self._window: Window | None = None
        self._windows: Iterator[Window] | None = None

    def __next__(self) -> tuple[dict[str, np.ndarray], BatchInfo]:
        parts, counts, missing = [], np.zeros(len(self._leaves), dtype=np.int64), self._batch_rows
        while missing:
            window = self._open_window()
            stop = min(self._row + missing, window.num_rows)
            parts.append({key: value[self._row : stop] for key, value in window.rows.items()})
            first = window.row_ends[self._row - 1] if self._row else 0
            leaves = window.example_leaves[first : window.row_ends[stop - 1]]
            counts += np.bincount(leaves, minlength=counts.size)
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
            self._dropped.update(self._window.dropped)
            none_kept = self._builder is not None and not self._counts[1].any()
            if none_kept and self._next_window >= 4:
                raise UserError(
                    f"none of {self._counts[0].sum()} examples could be used; why: "
                    f"{dict(self._dropped)}. Are feature_lengths "
                    f"{dict(self._config.feature_lengths)} large enough?"
                )
        return self._window

    def _fetch_window(self) -> Window:
        if self._windows is None:
            self._windows = self._make_windows(self._next_window)
        window = next(self._windows)
        self._next_window += 1
        return window

    def _make_windows(self, start: int) -> Iterator[Window]:
        config, num_leaves = self._config, len(self._leaves)
        if self._builder is None:
            if self._seqio_windows_fn is None:
                raise TypeError("DataConfig.feed='seqio' needs TrainFeed(seqio_windows_fn=...)")
            if num_leaves > _MANY_SEQIO_TASKS:
                _log.warning(
                    "feed='seqio' with %d tasks: expect about %d minutes before the first batch "
                    "and %d GB of memory; feed='records' needs seconds",
                    num_leaves,
                    max(2, num_leaves // 40),
                    1 + num_leaves // 80,
                )
            return self._seqio_windows_fn(
                self._workspace, config, self._host, self._num_hosts, num_leaves, start
            )
        windows = grain.MapDataset.range(
            self._host + start * self._num_hosts, _LAST_WINDOW, self._num_hosts
        ).map(self._builder)
        # Either one thread of this process prefetches, or each worker process does.
        threads = 0 if config.workers else 1
        ahead = 0 if config.workers else config.prefetch_windows
        dataset = windows.to_iter_dataset(grain.ReadOptions(threads, ahead))
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
            before = state.get("plain_records", {})  # older states lack them
            changed = [n for n, sha256 in self._plain_records.items() if before.get(n) != sha256]
            plain = ""
            if changed:
                plain = (
                    f"The records of seqio tasks ({', '.join(changed[:5])}) "
                    f"{'have' if before else 'may have'} changed: their stores were rebuilt after "
                    "their code or data changed, or their pipeline is not deterministic. "
                )
            raise UserError(
                "the checkpoint's input position belongs to other data: mixture, rates, records, "
                "wordings, tasks left out, seed, lengths, packing, plan or vocabulary differ. "
                f"{plain}Use the settings of the first start, or a new MODEL_DIR with "
                "INITIAL_CHECKPOINT_PATH"
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
        zeros = [0] * len(self._leaves)  # states of older versions lack `exemplars_missing`
        self._counts = np.array([state["counts"].get(name, zeros) for name in COUNTS], np.int64)
        self._dropped = collections.Counter(state["dropped_reasons"])

    def statistics(self) -> dict[str, Any]:
        """Counts of the examples read so far, as JSON values, by leaf and in total.

        `asked` is a leaf's share of the mixture, `realised` its share of the examples kept;
        `exemplars_missing` counts over the prompts kept; `left_out` names the tasks of the mixture
        that are not in it. A window counts from its first row.
        """
        counts = {name: row.tolist() for name, row in zip(COUNTS, self._counts)}
        tokens = [sum(pair) for pair in zip(counts["input_tokens"], counts["target_tokens"])]
        kept = sum(counts["kept"])
        losses = ("dropped", "truncated", "exemplars_missing")
        leaves = [
            {
                "name": leaf.name,
                "task": leaf.task,
                "family": leaf.family,
                "category": leaf.category,
                "mode": leaf.mode,
                "asked": leaf.rate,
                "realised": counts["kept"][i] / max(1, kept),
                "examples": counts["kept"][i],
                **{name: counts[name][i] for name in losses},
                "tokens": tokens[i],
            }
            for i, leaf in enumerate(self._leaves)
        ]
        return {
            "leaves": leaves,
            "kept": kept,
            **{name: sum(counts[name]) for name in losses},
            "tokens": sum(tokens),
            "dropped_reasons": dict(sorted(self._dropped.items())),
            "left_out": list(self._left_out),
        }

    def close(self) -> None:
        """Stops prefetching; the feed may be restored afterwards."""
        self._windows = self._window = None
        self._row = 0


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

    Tasks without prepared records in `split` are skipped. The last batch is padded with rows of
    weight 0.

    Returns:
        This host's rows: int32 arrays of batch.py with batch_size / num_hosts rows.

    Raises:
        UserError: no task has prepared records in the split.
    """
    config = dataclasses.replace(config, window_examples=num_examples, seed=0, split=split)
    builder, used = make_builder(workspace, config, resolved, training=False)
    window = builder.build(0)
    num_rows = -(-window.num_rows // config.batch_size) * config.batch_size
    rows = pad_rows(window.rows, num_rows)
    # The window numbers the leaves it uses; batches number all leaves of the mixture.
    numbers = {leaf.name: i for i, leaf in enumerate(resolved.leaves, start=1)}
    table = np.array([0, *(numbers[leaf.name] for leaf in used)], dtype=np.int32)
    rows[batch_keys.DECODER_TASK_IDS] = table[rows[batch_keys.DECODER_TASK_IDS]]
    share = config.batch_size // num_hosts
    starts = range(host * share, num_rows, config.batch_size)
    return [{key: value[s : s + share] for key, value in rows.items()} for s in starts]
