"""Streams prepared stores past an index of n-grams, in worker processes."""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instruct.data.overlap.index import Index, read_batches
from instruct.data.overlap.ngrams import Shingler, record_keys, record_words
from instruct.data.spec import Leaf, TaskSpec
from instruct.data.stores.store import Store, read_manifest, spec_key, store_path
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.workspace import Workspace

COVERED = 0.7  # share of an example's n-grams
CHUNK = 50_000  # records of a job
_FEW_RECORDS = 20_000  # not worth a process


@dataclasses.dataclass(frozen=True)
class StoredTask:
    """A prepared store of a task.

    Attributes:
        path, size: of its store; records.
        group: contamination group.
    """

    name: str
    path: Path
    size: int
    group: str


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison: its prepared tasks, their splits, and why others are missing."""

    tasks: list[StoredTask]
    splits: dict[str, str]
    missing: dict[str, str]


def stored_tasks(workspace: Workspace, leaves: Iterable[Leaf], splits: Sequence[str]) -> Side:
    """The stores of the leaves' tasks, each once, in the first of the splits that a task has."""
    side = Side([], {}, {})
    specs: dict[str, TaskSpec | None] = {leaf.task: leaf.spec for leaf in leaves}
    for name, spec in specs.items():
        if spec is None:
            side.missing[name] = "a plain SeqIO task: its store holds tokens, not text"
            continue
        split = next((split for split in splits if split in spec.splits), "")
        if not split:
            side.missing[name] = f"has no split {' or '.join(splits)}"
            continue
        path = store_path(workspace, spec_key(spec), split)
        try:
            manifest = read_manifest(path)
        except UserError as error:
            side.missing[name] = str(error)
            continue
        if manifest is None:
            side.missing[name] = f"split {split} is not prepared"
            continue
        side.tasks.append(StoredTask(name, path, manifest.num_records, spec.group))
        side.splits[name] = split
    return side


def share_of(part: int, whole: int) -> float:
    """part / whole; 0 of nothing."""
    return part / whole if whole else 0.0


@dataclasses.dataclass(frozen=True)
class ExamplePair:
    """Two records that share text.

    `share`: of the n-grams of the one that is looked for: the sketch of the sampled record, or
    that form of a test record of which the most is there.
    """

    first_id: str
    second_id: str
    share: float


@dataclasses.dataclass(frozen=True)
class Hits:
    """Matches between one stretch of a streamed store and the index.

    Attributes:
        entries: entries of the index that were found, each once.
        touched, covered: [tasks of the index], streamed records.
        pairs: (index task, share, streamed record, record of the index task).
        near: [k, 3] text of the index, streamed record, share in 1e-6; shares of 0.7 and more.
        texts: [records] hashes of whole texts.
    """

    entries: np.ndarray
    touched: np.ndarray
    covered: np.ndarray
    pairs: list[tuple[int, float, int, int]]
    near: np.ndarray
    texts: np.ndarray


@functools.lru_cache(maxsize=1)
def loaded(folder: Path) -> Index:
    """A saved index, mapped once a process."""
    return Index.load(folder)


def scan(
    folder: Path,
    path: Path,
    start: int,
    stop: int,
    own: int,
    num_tasks: int,
    n: int,
    most: int,
    questions: bool,
) -> Hits:
    """Streams records start .. stop - 1 of a store past a saved index.

    Args:
        own: number of the store's own task in the index, which is skipped; -1 if it has none.
        num_tasks: of the index.
        most: pairs to keep for each of its tasks.
        questions: whether the index holds questions (`question_part`), not records only.
    """
    index, shingler = loaded(folder), Shingler(n)
    runs = index.runs.tolist()
    touched, covered = np.zeros((2, num_tasks), dtype=np.int64)
    found, near, wholes = [], [], []
    pairs: list[tuple[int, float, int, int]] = []
    for numbers, records in read_batches(path, range(start, stop)):
        word_hashes = shingler.texts([record_words(record) for record in records])
        rows, grams, whole = shingler.hashes_of(word_hashes)
        wholes.append(whole)
        of_row = np.bincount(rows, minlength=len(records))
        num_grams = grams.size
        if questions:
            keys = [record_keys(record) for record in records]
            key_rows = np.repeat(np.arange(len(records)), [len(key) for key in keys])
            key_hashes = np.array([key for part in keys for key in part], dtype=np.uint64)
            run_rows, run_hashes = shingler.run_hashes(word_hashes, runs)
            rows = np.concatenate([rows, key_rows, run_rows])
            grams = np.concatenate([grams, key_hashes, run_hashes])
        places, entries = index.lookup(grams)
        texts = index.texts[entries].astype(np.int64)
        tasks = index.tasks[texts].astype(np.int64)
        if own >= 0:
            others = tasks != own
            places, entries = places[others], entries[others]
            texts, tasks = texts[others], tasks[others]
        if not places.size:
            continue
        found.append(np.unique(entries))
        # An n-gram that a task holds in several examples counts once for the task.
        cells = np.unique(rows[places] * num_tasks + tasks)
        touched += np.bincount(cells % num_tasks, minlength=num_tasks)
        once = np.unique((places * num_tasks + tasks)[places < num_grams])
        cells, counts = np.unique(
            rows[once // num_tasks] * num_tasks + once % num_tasks, return_counts=True
        )
        enough = counts >= COVERED * of_row[cells // num_tasks]
        covered += np.bincount(cells[enough] % num_tasks, minlength=num_tasks)
        width = index.sizes.size
        # A run of words may come twice in a text, which an n-gram never does here.
        once = np.unique(rows[places] * index.hashes.size + entries)
        row, text = once // index.hashes.size, index.texts[once % index.hashes.size]
        cells, counts = np.unique(row * width + text, return_counts=True)
        row, text = cells // width, cells % width
        record = np.asarray(numbers, dtype=np.int64)[row]
        share = counts / index.sizes[text]
        close = share >= COVERED
        near.append(np.stack([text, record, (share * 1e6).astype(np.int64)], axis=1)[close])
        pairs += _best(index.tasks[text], share, record, index.numbers[text], most)
        pairs = best_pairs(pairs, most)
    return Hits(
        entries=np.unique(np.concatenate([np.zeros(0, np.int64), *found])),
        touched=touched,
        covered=covered,
        pairs=pairs,
        near=np.concatenate([np.zeros((0, 3), np.int64), *near]),
        texts=np.concatenate([np.zeros(0, np.uint64), *wholes]),
    )


def _best(
    tasks: np.ndarray, shares: np.ndarray, records: np.ndarray, examples: np.ndarray, most: int
) -> list[tuple[int, float, int, int]]:
    """The `most` greatest shares of each task; a pair of records counts once."""
    order = np.lexsort((-shares, examples, records, tasks))
    pairs = np.stack([tasks, records, examples])[:, order]
    new = np.ones(order.size, dtype=bool)
    new[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
    order = order[new]
    order = order[np.lexsort((examples[order], records[order], -shares[order], tasks[order]))]
    tasks = tasks[order]
    rank = np.arange(tasks.size) - np.searchsorted(tasks, tasks, side="left")
    kept = order[rank < most]
    values = (tasks[rank < most], shares[kept], records[kept], examples[kept])
    return list(zip(*(array.tolist() for array in values)))


def best_pairs(
    pairs: Iterable[tuple[int, float, int, int]], most: int
) -> list[tuple[int, float, int, int]]:
    """The `most` pairs of the greatest shares of each task, by task."""
    kept: list[tuple[int, float, int, int]] = []
    last, count = -1, 0
    for pair in sorted(pairs, key=lambda pair: (pair[0], -pair[1], pair[2], pair[3])):
        count = count + 1 if pair[0] == last else 1
        last = pair[0]
        if count <= most:
            kept.append(pair)
    return kept


class Runner:
    """Calls functions in worker processes, or here if there is little to do."""

    def __init__(self, workers: int, num_records: int) -> None:
        self._pool = None
        if workers > 1 and num_records > _FEW_RECORDS:
            context = multiprocessing.get_context("spawn")  # forking with threads may hang
            self._pool = concurrent.futures.ProcessPoolExecutor(workers, context)

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[..., Any], jobs: Iterable[Sequence[Any]]) -> Iterator[Any]:
        """Results in the order of the jobs."""
        columns = list(zip(*jobs))
        return (self._pool.map if self._pool else map)(function, *columns)


def stream(
    run: Runner, folder: Path, tasks: Sequence[StoredTask], own: Sequence[int], rest: Sequence[int]
) -> Iterator[tuple[int, Hits]]:
    """(place of the task, hits) of every stretch, in order. `rest`: last arguments of `scan`."""
    stretches = [
        (place, start, min(start + CHUNK, task.size))
        for place, task in enumerate(tasks)
        for start in range(0, task.size, CHUNK)
    ]
    jobs = [(folder, tasks[p].path, start, stop, own[p], *rest) for p, start, stop in stretches]
    if jobs:
        yield from zip((place for place, _, _ in stretches), run.map(scan, jobs))


class RecordIds:
    """Ids of chosen records of several stores; each store is opened once."""

    def __init__(self, wanted: Iterable[tuple[StoredTask, int]]) -> None:
        numbers: dict[StoredTask, set[int]] = {}
        for task, number in wanted:
            numbers.setdefault(task, set()).add(number)
        self._ids: dict[tuple[StoredTask, int], str] = {}
        for task, chosen in numbers.items():
            order = sorted(chosen)
            store: Store[Record] = Store(task.path)
            for number, record in zip(order, store.read(order)):
                self._ids[task, number] = record.id

    def __getitem__(self, key: tuple[StoredTask, int]) -> str:
        return self._ids[key]
