"""Records that several tasks of a mixture share, over prepared stores.

Exact: the normalised whole text (fields and answer) of every record, by a 64-bit hash. Near: of
each task an evenly spread sample of 200 records, of each of these 16 n-grams (bottom-k sketch,
Broder 1997), looked up in every record of every other task. A near duplicate holds 70 % of the
sketch; that share has a standard error of about 0.11, so a pair close to the limit may be missed or
taken in. Each record is read twice at most, and takes 16 bytes of memory.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instruct.data.overlap.index import Index, index_part
from instruct.data.overlap.scan import (
    COVERED,
    ExamplePair,
    RecordIds,
    Runner,
    StoredTask,
    loaded,
    share_of,
    stream,
)

SAMPLE = 200  # records of a task that near duplicates are looked for
SKETCH = 16
MOST_TASKS = 64  # a text in more tasks is counted apart


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Records that two tasks share.

    Attributes:
        exact_a, exact_b: records whose text the other task has.
        sampled_a, sampled_b: records that near duplicates were looked for.
        near_a, near_b: those of the sample that have one in the other task, exact ones included.
        examples: (record of a, record of b).
    """

    task_a: str
    task_b: str
    same_group: bool
    records_a: int
    records_b: int
    exact_a: int
    exact_b: int
    sampled_a: int
    sampled_b: int
    near_a: int
    near_b: int
    examples: tuple[ExamplePair, ...]

    @property
    def near_shares(self) -> tuple[float, float]:
        """Shares of both samples that have a near duplicate in the other task."""
        return share_of(self.near_a, self.sampled_a), share_of(self.near_b, self.sampled_b)


@dataclasses.dataclass(frozen=True)
class DuplicateReport:
    """Pairs of tasks that share records, and repeats within tasks.

    Attributes:
        within: task -> records whose text came before in the same task.
        crowded: texts that more than 64 tasks share; not in the pairs.
    """

    pairs: tuple[Duplicates, ...]
    within: dict[str, int]
    crowded: int

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values, with the settings of near duplicates."""
        return {
            "sampled_records": SAMPLE,
            "sketch": SKETCH,
            "near_from": COVERED,
            "within": self.within,
            "crowded": self.crowded,
            "pairs": [
                dataclasses.asdict(pair)
                | dict(zip(("near_share_a", "near_share_b"), pair.near_shares))
                for pair in self.pairs
            ],
        }


def duplicates(
    tasks: Sequence[StoredTask], n: int = 13, workers: int = 1, most: int = 3
) -> DuplicateReport:
    """Pairs of tasks that share records, each pair once.

    Args:
        n: words of an n-gram.
        workers: processes.
        most: pairs of examples that are named for each pair of tasks.
    """
    texts: list[list[np.ndarray]] = [[] for _ in tasks]
    near: list[list[np.ndarray]] = [[] for _ in tasks]
    size = sum(task.size for task in tasks)
    with Runner(workers, size) as run, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        jobs = [(task.path, task.size, n, SAMPLE, SKETCH) for task in tasks]
        index = Index.of(list(run.map(index_part, jobs)) if jobs else [])
        index.save(folder)
        for place, hits in stream(run, folder, tasks, range(len(tasks)), (len(tasks), n, 0, False)):
            texts[place].append(hits.texts)
            near[place].append(hits.near)
        loaded.cache_clear()
    exact = _Exact([np.concatenate([np.zeros(0, np.uint64), *parts]) for parts in texts])
    found = _near_pairs(near, index, len(tasks))
    sampled = np.bincount(index.tasks[index.sizes > 0], minlength=len(tasks))
    # Near duplicates may be found from one side only: the other's sample need not hold them.
    shared = sorted({(min(pair), max(pair)) for pair in (*exact.counts, *found)})
    chosen = {pair: _examples(pair, exact, found, most) for pair in shared}
    ids = RecordIds(
        (tasks[t], number)
        for pair, examples in chosen.items()
        for *numbers, _ in examples
        for t, number in zip(pair, numbers)
    )
    pairs = []
    for a, b in shared:
        examples = tuple(
            ExamplePair(ids[tasks[a], left], ids[tasks[b], right], share)
            for left, right, share in chosen[a, b]
        )
        pairs.append(
            Duplicates(
                task_a=tasks[a].name,
                task_b=tasks[b].name,
                same_group=tasks[a].group == tasks[b].group,
                records_a=tasks[a].size,
                records_b=tasks[b].size,
                exact_a=exact.counts.get((a, b), 0),
                exact_b=exact.counts.get((b, a), 0),
                sampled_a=int(sampled[a]),
                sampled_b=int(sampled[b]),
                near_a=len(found.get((a, b), {})),
                near_b=len(found.get((b, a), {})),
                examples=examples,
            )
        )
    within = {tasks[t].name: count for t, count in sorted(exact.within.items())}
    return DuplicateReport(tuple(pairs), within, exact.crowded)


class _Exact:
    """Equal hashes among tasks.

    Attributes:
        counts: (a, b) -> records of a whose text b has, for both orders of a pair.
        first: (a, b) -> (record of a, record of b) with one text, for a < b.
        within: task -> records whose text it had before.
        crowded: texts in more than MOST_TASKS tasks.
    """

    def __init__(self, texts: Sequence[np.ndarray]) -> None:
        values, tasks, records = _repeated(texts)
        order = np.lexsort((records, tasks, values))
        values, tasks, records = values[order], tasks[order], records[order]
        new = np.ones(values.size, dtype=bool)
        new[1:] = (values[1:] != values[:-1]) | (tasks[1:] != tasks[:-1])
        starts = np.flatnonzero(new)
        repeats = np.diff(np.r_[starts, values.size])
        values, tasks, records = values[starts], tasks[starts], records[starts]
        again = np.bincount(tasks, weights=repeats - 1, minlength=len(texts)).astype(int)
        self.within = {int(t): int(again[t]) for t in np.flatnonzero(again)}
        _, group, width = np.unique(values, return_inverse=True, return_counts=True)
        self.crowded = int((width > MOST_TASKS).sum())
        shared = (width[group] > 1) & (width[group] <= MOST_TASKS)
        group, tasks, records, repeats = (
            array[shared] for array in (group, tasks, records, repeats)
        )
        self.counts: dict[tuple[int, int], int] = {}
        self.first: dict[tuple[int, int], tuple[int, int]] = {}
        for distance in range(1, MOST_TASKS):
            left = np.flatnonzero(group[distance:] == group[: group.size - distance])
            if not left.size:
                break
            right = left + distance  # tasks rise within a group
            codes = tasks[left] * len(texts) + tasks[right]
            pairs, first, where = np.unique(codes, return_index=True, return_inverse=True)
            a_counts = np.bincount(where, weights=repeats[left])
            b_counts = np.bincount(where, weights=repeats[right])
            for place, code in enumerate(pairs.tolist()):
                a, b = divmod(code, len(texts))
                self.counts[a, b] = self.counts.get((a, b), 0) + int(a_counts[place])
                self.counts[b, a] = self.counts.get((b, a), 0) + int(b_counts[place])
                at = left[first[place]]
                self.first.setdefault((a, b), (int(records[at]), int(records[at + distance])))


def _repeated(texts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hash, task, record) of the texts that occur more than once; few among millions."""
    ordered = np.sort(np.concatenate([np.zeros(0, np.uint64), *texts]))
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    kept = [np.flatnonzero(_among(part, repeated)) for part in texts]
    return (
        np.concatenate([np.zeros(0, np.uint64), *(p[k] for p, k in zip(texts, kept))]),
        np.repeat(np.arange(len(texts)), [k.size for k in kept]),
        np.concatenate([np.zeros(0, np.int64), *kept]),
    )


def _among(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    if not ordered.size:
        return np.zeros(values.size, dtype=bool)
    return ordered[np.minimum(np.searchsorted(ordered, values), ordered.size - 1)] == values


def _near_pairs(
    near: Sequence[Sequence[np.ndarray]], index: Index, num_tasks: int
) -> dict[tuple[int, int], dict[int, tuple[float, int]]]:
    """(a, b) -> sampled record of a -> (share, record of b) of its nearest duplicate in b."""
    found: dict[tuple[int, int], dict[int, tuple[float, int]]] = {}
    for b in range(num_tasks):
        for text, record, share in (row for part in near[b] for row in part.tolist()):
            a, number = int(index.tasks[text]), int(index.numbers[text])
            best = found.setdefault((a, b), {})
            best[number] = max(best.get(number, (0.0, 0)), (share / 1e6, record))
    return found


def _examples(
    pair: tuple[int, int],
    exact: _Exact,
    found: dict[tuple[int, int], dict[int, tuple[float, int]]],
    most: int,
) -> list[tuple[int, int, float]]:
    """(record of a, record of b, share) to look at, the greatest shares first."""
    a, b = pair
    shares = {(record, other): share for record, (share, other) in found.get(pair, {}).items()}
    for record, (share, other) in found.get((b, a), {}).items():
        shares[other, record] = max(share, shares.get((other, record), 0.0))
    if pair in exact.first:
        shares[exact.first[pair]] = 1.0
    chosen = sorted(shares, key=lambda key: (-shares[key], key))[:most]
    return [(left, right, shares[left, right]) for left, right in chosen]
