"""Training batches from prefetched windows, in an order that no number of processes changes.

    feed = TrainFeed(workspace, config, resolve(workspace, config.mixture))
    for batch, info in feed: ...
    state = feed.state()            # JSON: window and row of every lane, cumulative statistics
    feed.restore([state])           # the next batch is the one after that state

A run has `DataConfig.lanes` lanes. Lane l of L reads windows l, l + L, l + 2 L, ... and fills the
rows l * B / L to (l + 1) * B / L of every batch of B rows. Each process feeds the lanes whose rows
its devices hold (`own_lanes`); the states of all processes together are the position of the run,
which may go on with another number of processes. For L = 2, B = 4 and windows of 3 rows:

    lane 0   w0r0 w0r1 | w0r2 w2r0 | w2r1 w2r2 | ...
    lane 1   w1r0 w1r1 | w1r2 w3r0 | w3r1 w3r2 | ...
             batch 0     batch 1     batch 2
"""

import collections
import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from instruct import batch as batch_keys
from instruct.data.config import DataConfig
from instruct.data.features import pad_rows
from instruct.data.feed.leaves import make_builder
from instruct.data.feed.preview import lost_examples
from instruct.data.feed.window import COUNTS, Window
from instruct.data.spec import Resolved
from instruct.errors import RunFailed, UserError
from instruct.workspace import Workspace

_STATE_FORMAT = 3
_LAST_WINDOW = 1 << 40
# Above this many tasks SeqIO's own pipeline needs minutes and gigabytes to start: measured 8 s and
# 1.1 GB for 20 tasks, 40 s and 3.1 GB for 200, more than 7.8 GB for 1,000.
_MANY_SEQIO_TASKS = 100

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BatchInfo:
    """Contents of a batch (this process's rows).

    Attributes:
        task_counts: leaf -> examples, if any. Empty under feed="seqio", whose packing does not keep
            the tasks.
    """

    task_counts: dict[str, int]
    num_examples: int


class _WindowOrder(Sequence[int]):
    """The window numbers that some lanes read, round by round, as a sequence for Grain.

    Round r of lane l is window l + r * num_lanes. `starts` has the first round of each lane; lanes
    that are behind the others come first.
    """

    def __init__(self, lanes: Sequence[int], num_lanes: int, starts: Sequence[int]) -> None:
        self._lanes, self._num_lanes, self._first = lanes, num_lanes, max(starts)
        self._behind = sorted(
            (round_number, lane)
            for lane, start in zip(lanes, starts)
            for round_number in range(start, self._first)
        )

    def __len__(self) -> int:
        return _LAST_WINDOW

    def __getitem__(self, index: int) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if index < len(self._behind):
            round_number, lane = self._behind[index]
        else:
            rounds, place = divmod(index - len(self._behind), len(self._lanes))
            round_number, lane = self._first + rounds, self._lanes[place]
        return lane + round_number * self._num_lanes


@dataclasses.dataclass
class _Lane:
    """A lane's position: the next row of its window `round_number`.

    Attributes:
        opened: whether the window's counts are included in the feed's.
    """

    number: int
    round_number: int = 0
    row: int = 0
    opened: bool = False
    window: Window | None = None

    def position(self) -> list[int]:
        """JSON values for `restore`."""
        return [self.number, self.round_number, self.row, int(self.opened)]


class TrainFeed(Iterator[tuple[dict[str, np.ndarray], BatchInfo]]):
    """Endless iterator of (batch, BatchInfo): int32 arrays of batch.py, this process's rows.

    Args:
        lanes: the lanes whose rows this process feeds, see `own_lanes`; None: all.
        seqio_windows_fn: `instruct.data.seqio.reading.seqio_windows` for feed="seqio"; an argument
            because its module imports TensorFlow, which feed="records" does not need.

    Raises:
        UserError: stores are missing or damaged.
    """

    def __init__(
        self,
        workspace: Workspace,
        config: DataConfig,
        resolved: Resolved,
        lanes: Sequence[int] | None = None,
        seqio_windows_fn: Callable[..., Iterator[Window]] | None = None,
    ) -> None:
        self._workspace, self._config = workspace, config
        self._lanes = [_Lane(n) for n in (range(config.lanes) if lanes is None else lanes)]
        self._seqio_windows_fn = seqio_windows_fn
        self._lane_rows = config.batch_size // config.lanes
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
        self._num_opened = 0  # windows, by this process
        self._streams: dict[int, Iterator[Window]] | None = None

    def __next__(self) -> tuple[dict[str, np.ndarray], BatchInfo]:
        parts, counts = [], np.zeros(len(self._leaves), dtype=np.int64)
        for lane in self._lanes:
            missing = self._lane_rows
            while missing:
                window = self._open_window(lane)
                row, stop = lane.row, min(lane.row + missing, window.num_rows)
                parts.append({key: value[row:stop] for key, value in window.rows.items()})
                first = window.row_ends[row - 1] if row else 0
                leaves = window.example_leaves[first : window.row_ends[stop - 1]]
                counts += np.bincount(leaves, minlength=counts.size)
                missing -= stop - row
                lane.row = stop
        batch = parts[0]  # a view of its window; a copy only where rows of several windows meet
        if len(parts) > 1:
            batch = {key: np.concatenate([part[key] for part in parts]) for key in batch}
        task_counts = {self._leaves[i].name: int(counts[i]) for i in np.flatnonzero(counts)}
        num_examples = int(counts.sum())
        if self._builder is None:  # SeqIO's packing keeps segments alone
            num_examples = int(batch[batch_keys.DECODER_SEGMENT_IDS].max(axis=1).sum())
        return batch, BatchInfo(task_counts, num_examples)

    def _open_window(self, lane: _Lane) -> Window:
        """The window with the lane's next row; counts each window when it is opened."""
        while True:
            if lane.window is None:
                lane.window = self._fetch_window(lane)
                self._num_opened += 1
                if not lane.opened:
                    lane.opened = True
                    self._counts += lane.window.counts
                    self._dropped.update(lane.window.dropped)
            if lane.row < lane.window.num_rows:
                return lane.window
            lane.window, lane.row, lane.opened = None, 0, False
            lane.round_number += 1
            none_kept = self._builder is not None and not self._counts[1].any()
            if none_kept and self._num_opened >= 4:
                raise UserError(
                    f"none of {self._counts[0].sum()} examples could be used; why: "
                    f"{dict(self._dropped)}. Are feature_lengths "
                    f"{dict(self._config.feature_lengths)} large enough?"
                )

    def _fetch_window(self, lane: _Lane) -> Window:
        if self._streams is None:
            self._streams = self._make_streams()
        return next(self._streams[lane.number])

    def _make_streams(self) -> dict[int, Iterator[Window]]:
        """Lane -> its windows from its position on."""
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
            return {
                lane.number: self._seqio_windows_fn(
                    self._workspace,
                    config,
                    lane.number,
                    config.lanes,
                    num_leaves,
                    lane.round_number,
                )
                for lane in self._lanes
            }
        numbers = [lane.number for lane in self._lanes]
        order = _WindowOrder(numbers, config.lanes, [lane.round_number for lane in self._lanes])
        windows = grain.MapDataset.source(order).map(self._builder)
        # Either one thread of this process prefetches, or each worker process does.
        threads = 0 if config.workers else 1
        # Lanes tend to need their next windows at the same time.
        prefetched = config.prefetch_windows + len(numbers) - 1
        ahead = 0 if config.workers else prefetched
        dataset = windows.to_iter_dataset(grain.ReadOptions(threads, ahead))
        if config.workers:
            # Grain's workers read an absl flag, which fails unless absl's flags are parsed.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            per_worker = max(1, prefetched // config.workers)
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(config.workers, per_worker_buffer_size=per_worker)
            )
        return _split_by_lane(dataset, order, config.lanes, numbers)

    def state(self) -> dict[str, Any]:
        """Positions of this process's lanes and its statistics, as JSON values."""
        return {
            "format": _STATE_FORMAT,
            "fingerprint": self._fingerprint,
            "plain_records": self._plain_records,
            "num_lanes": self._config.lanes,
            "lanes": [lane.position() for lane in self._lanes],
            "counts": {name: row.tolist() for name, row in zip(COUNTS, self._counts)},
            "dropped_reasons": dict(self._dropped),
        }

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Resumes at the position of `states`, those of all processes that fed lanes.

        Raises:
            UserError: the position belongs to other data or settings.
        """
        states = [_as_lanes(state) for state in states]
        state = states[0]
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
        if state["num_lanes"] != self._config.lanes:
            raise UserError(
                f"the checkpoint's input position has {state['num_lanes']} lanes, this run has "
                f"LANES = {self._config.lanes}. Give --gin.LANES={state['num_lanes']}, as at the "
                "first start; another number would change the data."
            )
        self.close()
        positions = {position[0]: position for one in states for position in one["lanes"]}
        self._lanes = [
            _Lane(number, round_number, row, bool(opened))
            for number, round_number, row, opened in (positions[one.number] for one in self._lanes)
        ]
        # The sums go on in the process with the first lane.
        self._counts, self._dropped = self._summed(states if self._lanes[0].number == 0 else [])

    def _summed(
        self, states: Sequence[Mapping[str, Any]]
    ) -> tuple[np.ndarray, collections.Counter[str]]:
        """([COUNTS, leaves] int64, reason -> dropped examples) of several states."""
        counts = np.zeros((len(COUNTS), len(self._leaves)), dtype=np.int64)
        reasons: collections.Counter[str] = collections.Counter()
        zeros = [0] * len(self._leaves)  # states of older versions lack `exemplars_missing`
        for state in states:
            counts += np.array([state["counts"].get(name, zeros) for name in COUNTS], np.int64)
            reasons.update(state["dropped_reasons"])
        return counts, reasons

    def statistics(self, states: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any]:
        """Counts of the examples read so far, as JSON values, by leaf and in total.

        `asked` is a leaf's share of the mixture, `realised` its share of the examples kept;
        `exemplars_missing` counts over the prompts kept; `left_out` names the tasks of the mixture
        that are not in it. A window counts from its first row.

        Args:
            states: of all processes that feed lanes; None: this one feeds them all.
        """
        summed, reasons = self._summed([self.state()] if states is None else states)
        counts = {name: row.tolist() for name, row in zip(COUNTS, summed)}
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
                "license": leaf.license,
                "url": leaf.spec.url if leaf.spec else "",
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
            "dropped_reasons": dict(sorted(reasons.items())),
            "left_out": list(self._left_out),
        }

    def close(self) -> None:
        """Stops prefetching; the feed may be restored afterwards."""
        self._streams = None
        for lane in self._lanes:
            lane.window = None


def own_lanes(config: DataConfig, rows: Mapping[int, Sequence[int]], process: int) -> list[int]:
    """The lanes that a process feeds.

    Args:
        rows: process -> numbers of the batch's rows that its devices hold, ascending.

    Raises:
        UserError: a process holds a part of a lane's rows.
    """
    lane_rows = config.batch_size // config.lanes
    lanes = {number: sorted({row // lane_rows for row in own}) for number, own in rows.items()}
    if any(len(lanes[number]) * lane_rows != len(own) for number, own in rows.items()):
        starts = [row for own in rows.values() for row in own if row - 1 not in own]
        most_rows = math.gcd(config.batch_size, *starts)
        raise UserError(
            f"LANES = {config.lanes} cannot be divided among {len(rows)} processes, which hold "
            f"{len({tuple(own) for own in rows.values()})} shares of a batch. Use processes that "
            "divide it, or a new MODEL_DIR with a multiple of "
            f"--gin.LANES={config.batch_size // most_rows} that divides the batch of "
            f"{config.batch_size} rows."
        )
    return lanes[process]


def _split_by_lane(
    dataset: Iterable[Mapping[str, Any]], order: Sequence[int], num_lanes: int, lanes: Sequence[int]
) -> dict[int, Iterator[Window]]:
    """Lane -> its windows, of one stream in `order`; windows of other lanes wait in memory."""
    arrays, waiting = enumerate(dataset), {lane: collections.deque() for lane in lanes}

    def windows(lane: int) -> Iterator[Window]:
        while True:
            while not waiting[lane]:
                index, window = _next_of(arrays)
                # Grain's arrays in shared memory are slow to slice. Plain views keep them alive.
                rows = {key: value.view(np.ndarray) for key, value in window["rows"].items()}
                waiting[order[index] % num_lanes].append(Window(**{**window, "rows": rows}))
            yield waiting[lane].popleft()

    return {lane: windows(lane) for lane in lanes}


def _next_of(arrays: Iterator[tuple[int, Any]]) -> tuple[int, Any]:
    """The next window; raises RunFailed if the worker process that should build it was killed."""
    try:
        return next(arrays)
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        raise RunFailed(
            f"a process that builds batches ended ({str(error).partition('.')[0]}). Did it run out "
            "of memory? Lower DataConfig.workers (0 needs no process) and give the same command "
            "again."
        ) from error


def _as_lanes(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state of this or an older format, as this one: host h of H read what lane h of H reads.

    Raises:
        UserError: the format is unknown.
    """
    if state.get("format") == 2:
        position = [state["host"], state["window"], state["row"], int(state["opened"])]
        return {**state, "num_lanes": state["num_hosts"], "lanes": [position]}
    if state.get("format") != _STATE_FORMAT:
        raise UserError(
            f"input position has format {state.get('format')!r}, this program reads 2 and "
            f"{_STATE_FORMAT}"
        )
    return state


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def eval_batches(
    workspace: Workspace,
    config: DataConfig,
    resolved: Resolved,
    split: str = "validation",
    num_examples: int = 512,
    own_rows: Sequence[int] | None = None,
    say: Callable[[str], None] = _log.warning,
) -> list[dict[str, np.ndarray]]:
    """Batches for a teacher-forced loss: always the same examples, in the mixture's proportions.

    Tasks without prepared records in `split` are skipped. The last batch is padded with rows of
    weight 0.

    Args:
        own_rows: rows of each batch to return; None: all.
        say: takes a line for the user if many examples do not fit.

    Returns:
        int32 arrays of batch.py; no batch if no example fits.

    Raises:
        UserError: no task has prepared records in the split.
    """
    config = dataclasses.replace(config, window_examples=num_examples, seed=0, split=split)
    builder, used = make_builder(workspace, config, resolved, training=False)
    window = builder.build(0)
    kept, dropped = (int(window.counts[COUNTS.index(name)].sum()) for name in ("kept", "dropped"))
    statistics = {"kept": kept, "dropped": dropped, "dropped_reasons": window.dropped}
    what = f"of split {split!r} are left out of eval/loss"
    if lost := lost_examples(statistics, config.feature_lengths, what):
        say(f"warning: {lost}")
    num_rows = -(-window.num_rows // config.batch_size) * config.batch_size
    rows = pad_rows(window.rows, num_rows)
    # The window numbers the leaves it uses; batches number all leaves of the mixture.
    numbers = {leaf.name: i for i, leaf in enumerate(resolved.leaves, start=1)}
    table = np.array([0, *(numbers[leaf.name] for leaf in used)], dtype=np.int32)
    rows[batch_keys.DECODER_TASK_IDS] = table[rows[batch_keys.DECODER_TASK_IDS]]
    own = np.arange(config.batch_size) if own_rows is None else np.asarray(own_rows)
    starts = range(0, num_rows, config.batch_size)
    return [{key: value[start + own] for key, value in rows.items()} for start in starts]
