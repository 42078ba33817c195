"""Records that several tasks of a mixture share, over prepared stores.

Exact: the normalized whole text (fields and answer) of every record, by a 64-bit hash of its words
and of the brackets, operators and symbols among them. Near: 16
n-grams (bottom-k sketch, Broder 1997) of each of 200 evenly spread records of each task, looked up
in every record of every other task. A near duplicate has 70 % of the sketch; that share has a
standard error of about 0.11, so a pair close to the limit may fall on either side. Each record is
read twice at most, and takes 16 bytes of memory.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from instruct.data.overlap.index import Index, StoredTask, sample_part
from instruct.data.overlap.ngrams import first_of_equals
from instruct.data.overlap.scan import (
    COVERED,
    ExamplePair,
    process_map,
    record_ids,
    share_of,
    stream,
)

SAMPLE = 200  # records of a task whose near duplicates are searched
SKETCH = 16
MOST_TASKS = 64  # texts in more tasks are counted separately


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Records that two tasks share.

    Attributes:
        exact_a, exact_b: records whose text the other task has.
        sampled_a, sampled_b: records whose near duplicates were searched.
        near_a, near_b: those of the sample that have one in the other task, or an exact one.
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
    """Pairs of tasks that share records, and repetitions within tasks.

    Attributes:
        within: task -> records whose text an earlier record of the task has.
        crowded: texts that more than 64 tasks share; not in the pairs.
    """

    pairs: tuple[Duplicates, ...]
    within: dict[str, int]
    crowded: int

    def to_json(self) -> dict[str, Any]:
        """The report and the settings of near duplicates."""
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
        most: example pairs to name for each pair of tasks.
    """
    if not tasks:
        return DuplicateReport((), {}, 0)
    texts = [[np.zeros(0, np.uint64)] for _ in tasks]
    near: dict[tuple[int, int], dict[int, tuple[float, int]]] = {}
    with process_map(workers, sum(task.size for task in tasks)) as map_fn:
        part_fn = functools.partial(sample_part, n=n, most=SAMPLE, sketch=SKETCH)
        index = Index.of(list(map_fn(part_fn, tasks)))
        for b, hits in stream(
            map_fn, index, tasks, range(len(tasks)), num_tasks=len(tasks), n=n, most=0,
            questions=False,
        ):  # fmt: skip
            texts[b].append(hits.texts)
            for text, record, share in hits.near.tolist():
                nearest = near.setdefault((int(index.tasks[text]), b), {})
                number = int(index.numbers[text])
                nearest[number] = max(nearest.get(number, (0.0, 0)), (share / 1e6, record))
    exact = _exact_duplicates([np.concatenate(parts) for parts in texts])
    sampled = np.bincount(index.tasks[index.sizes > 0], minlength=len(tasks))
    # Near duplicates may be found in one direction only: the other's sample need not have them.
    shared = sorted({(min(pair), max(pair)) for pair in (*exact.counts, *near)})
    examples = {pair: _examples(pair, exact, near, most) for pair in shared}
    ids = record_ids(
        (tasks[t], number)
        for pair, chosen in examples.items()
        for *numbers, _ in chosen
        for t, number in zip(pair, numbers)
    )
    pairs = tuple(
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
            near_a=len(near.get((a, b), {})),
            near_b=len(near.get((b, a), {})),
            examples=tuple(
                ExamplePair(ids[tasks[a], left], ids[tasks[b], right], share)
                for left, right, share in examples[a, b]
            ),
        )
        for a, b in shared
    )
    within = {tasks[t].name: count for t, count in sorted(exact.within.items())}
    return DuplicateReport(pairs, within, exact.crowded)


class _ExactDuplicates(NamedTuple):
    """Equal hashes among tasks.

    Attributes:
        counts: (a, b) -> records of a whose text b has, for both orders of a pair.
        first: (a, b) -> (record of a, record of b) with one text, for a < b.
        within: task -> records whose text an earlier record has.
        crowded: texts in more than MOST_TASKS tasks.
    """

    counts: dict[tuple[int, int], int]
    first: dict[tuple[int, int], tuple[int, int]]
    within: dict[int, int]
    crowded: int


def _exact_duplicates(texts: Sequence[np.ndarray]) -> _ExactDuplicates:
    """Compares the hashes of the records of each task."""
    values, tasks, records = _repeated(texts)
    order = np.lexsort((records, tasks, values))
    values, tasks, records = values[order], tasks[order], records[order]
    starts = np.flatnonzero(first_of_equals(values, tasks))
    repeats = np.diff(np.r_[starts, values.size])
    values, tasks, records = values[starts], tasks[starts], records[starts]
    again = np.bincount(tasks, weights=repeats - 1, minlength=len(texts)).astype(int)
    _, group, width = np.unique(values, return_inverse=True, return_counts=True)
    shared = (width[group] > 1) & (width[group] <= MOST_TASKS)
    group, tasks, records, repeats = (array[shared] for array in (group, tasks, records, repeats))
    counts: dict[tuple[int, int], int] = {}
    first: dict[tuple[int, int], tuple[int, int]] = {}
    for distance in range(1, MOST_TASKS):
        left = np.flatnonzero(group[distance:] == group[: group.size - distance])
        if not left.size:
            break
        right = left + distance  # tasks rise within a group
        codes = tasks[left] * len(texts) + tasks[right]
        pairs, firsts, where = np.unique(codes, return_index=True, return_inverse=True)
        counts_a = np.bincount(where, weights=repeats[left])
        counts_b = np.bincount(where, weights=repeats[right])
        for code, at, count_a, count_b in zip(pairs.tolist(), firsts, counts_a, counts_b):
            a, b = divmod(code, len(texts))
            counts[a, b] = counts.get((a, b), 0) + int(count_a)
            counts[b, a] = counts.get((b, a), 0) + int(count_b)
            first.setdefault((a, b), (int(records[left[at]]), int(records[right[at]])))
    within = {int(t): int(again[t]) for t in np.flatnonzero(again)}
    return _ExactDuplicates(counts, first, within, int((width > MOST_TASKS).sum()))


def _repeated(texts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hash, task, record) of the texts that occur more than once; few among millions."""
    ordered = np.sort(np.concatenate(texts))
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not repeated.size:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    records = []
    for part in texts:
        nearest = np.minimum(np.searchsorted(repeated, part), repeated.size - 1)
        records.append(np.flatnonzero(repeated[nearest] == part))
    return (
        np.concatenate([part[numbers] for part, numbers in zip(texts, records)]),
        np.repeat(np.arange(len(texts)), [numbers.size for numbers in records]),
        np.concatenate(records),
    )


def _examples(
    pair: tuple[int, int],
    exact: _ExactDuplicates,
    near: dict[tuple[int, int], dict[int, tuple[float, int]]],
    most: int,
) -> list[tuple[int, int, float]]:
    """(record of a, record of b, share) of the `most` largest shares."""
    a, b = pair
    shares = {(record, other): share for record, (share, other) in near.get(pair, {}).items()}
    for record, (share, other) in near.get((b, a), {}).items():
        shares[other, record] = max(share, shares.get((other, record), 0.0))
    if pair in exact.first:
        shares[exact.first[pair]] = 1.0
    chosen = sorted(shares, key=lambda key: (-shares[key], key))[:most]
    return [(left, right, shares[left, right]) for left, right in chosen]
