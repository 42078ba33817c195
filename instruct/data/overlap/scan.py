"""Streams prepared stores past an n-gram index, in worker processes."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instruct.data.overlap.index import Index, StoredTask, distinct_pairs, read_batches
from instruct.data.overlap.ngrams import (
    first_of_equals,
    hash_texts,
    ngram_hashes,
    record_keys,
    record_words,
    record_words_and_signs,
    run_hashes,
    whole_hashes,
)
from instruct.data.spec import Leaf, TaskSpec
from instruct.data.stores.store import Store, read_manifest, spec_key, store_path
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.workspace import Workspace

COVERED = 0.7  # share of an example's n-grams
CHUNK = 50_000  # records of a job
_FEW_RECORDS = 20_000  # not worth starting processes


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
        split = next((split for split in splits if spec and split in spec.splits), "")
        if spec is None:
            side.missing[name] = "a plain SeqIO task: its store holds tokens, not text"
        elif not split:
            side.missing[name] = f"has no split {' or '.join(splits)}"
        else:
            path = store_path(workspace, spec_key(spec), split)
            try:
                manifest = read_manifest(path)
            except UserError as error:
                side.missing[name] = str(error)
                continue
            if manifest is None:
                side.missing[name] = f"split {split} is not prepared"
            else:
                side.tasks.append(StoredTask(name, path, manifest.num_records, spec.group))
                side.splits[name] = split
    return side


def share_of(part: int, whole: int) -> float:
    """part / whole; 0 if `whole` is 0."""
    return part / whole if whole else 0.0


@dataclasses.dataclass(frozen=True)
class ExamplePair:
    """Two records that share text.

    `share` is the largest share of n-grams that the first record contains of a text of the indexed
    one (a form of a test record, the sketch of a sampled record).
    """

    first_id: str
    second_id: str
    share: float


@dataclasses.dataclass(frozen=True)
class Hits:
    """Matches between one chunk of a streamed store and the index.

    Attributes:
        entries: matched entries of the index, each once.
        touched, covered: [tasks of the index] numbers of streamed records.
        pairs: float64 [k, 4] task of the index, share, streamed record, record of that task.
        near: int64 [k, 3] text of the index, streamed record, share in 1e-6, from 0.7 up.
        texts: uint64 [records] hashes of whole texts; [0] if `questions`.
    """

    entries: np.ndarray
    touched: np.ndarray
    covered: np.ndarray
    pairs: np.ndarray
    near: np.ndarray
    texts: np.ndarray


@functools.lru_cache(maxsize=1)
def _loaded(folder: Path) -> Index:
    """A saved index, memory-mapped once a process."""
    return Index.load(folder)


def _scan(
    path: Path,
    start: int,
    stop: int,
    own: int,
    folder: Path,
    num_tasks: int,
    n: int,
    most: int,
    questions: bool,
) -> Hits:
    """Streams records `start` to `stop` - 1 of a store past the index in `folder`.

    Args:
        own: number of the store's own task in the index, which is skipped; -1 if it has none.
        num_tasks, n, most, questions: see `stream`.
    """
    index = _loaded(folder)
    touched, covered = np.zeros((2, num_tasks), dtype=np.int64)
    entry_parts, near_parts = [np.zeros(0, np.int64)], [np.zeros((0, 3), np.int64)]
    text_parts, pairs = [np.zeros(0, np.uint64)], np.zeros((0, 4))
    for numbers, records in read_batches(path, start, stop):
        if questions:
            texts = hash_texts([record_words(record) for record in records])
        else:
            both = [record_words_and_signs(record) for record in records]
            texts = hash_texts([names for names, _ in both])
            # Brackets and operators are no words: "[ ( ] )" has the words of "( [ ) ]".
            signs = np.array([key for _, key in both], np.uint64)
            text_parts.append(whole_hashes(texts) ^ signs)
        rows, grams = ngram_hashes(texts, n)
        grams_of_row = np.bincount(rows, minlength=len(records))
        num_grams = grams.size
        if questions:
            keys = [record_keys(record) for record in records]
            key_rows = np.repeat(np.arange(len(records)), [len(key) for key in keys])
            key_hashes = np.array([key for part in keys for key in part], dtype=np.uint64)
            run_rows, runs = run_hashes(texts, index.runs.tolist())
            rows = np.concatenate([rows, key_rows, run_rows])
            grams = np.concatenate([grams, key_hashes, runs])
        positions, entries = index.lookup(grams)
        tasks = index.tasks[index.texts[entries]]
        others = tasks != own
        positions, entries, tasks = positions[others], entries[others], tasks[others]
        if not positions.size:
            continue
        entry_parts.append(np.unique(entries))
        # An n-gram that a task has in several examples counts once for the task.
        _, task, _ = distinct_pairs(rows[positions], tasks)
        touched += np.bincount(task, minlength=num_tasks)
        plain = positions < num_grams
        gram, task, _ = distinct_pairs(positions[plain], tasks[plain])
        row, task, counts = distinct_pairs(rows[gram], task)
        enough = counts >= COVERED * grams_of_row[row]
        covered += np.bincount(task[enough], minlength=num_tasks)
        # A run of words may occur twice in a text; an n-gram is listed once.
        row, entry, _ = distinct_pairs(rows[positions], entries)
        row, text, counts = distinct_pairs(row, index.texts[entry])
        record, share = np.asarray(numbers)[row], counts / index.sizes[text]
        near = np.stack([text, record, (share * 1e6).astype(np.int64)], axis=1)
        near_parts.append(near[share >= COVERED])
        found = np.stack([index.tasks[text], share, record, index.numbers[text]], axis=1)
        pairs = best_pairs(np.concatenate([pairs, found]), most)
    return Hits(
        entries=np.unique(np.concatenate(entry_parts)),
        touched=touched,
        covered=covered,
        pairs=pairs,
        near=np.concatenate(near_parts),
        texts=np.concatenate(text_parts),
    )


def best_pairs(pairs: np.ndarray, most: int) -> np.ndarray:
    """The rows of `Hits.pairs` with the `most` largest shares of each task.

    Of several shares of one pair of records the largest counts.
    """
    tasks, shares, streamed, indexed = pairs.T
    pairs = pairs[np.lexsort((-shares, indexed, streamed, tasks))]
    pairs = pairs[first_of_equals(pairs[:, 0], pairs[:, 2], pairs[:, 3])]
    tasks, shares, streamed, indexed = pairs.T
    pairs = pairs[np.lexsort((indexed, streamed, -shares, tasks))]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0], side="left")
    return pairs[rank < most]


@contextlib.contextmanager
def process_map(workers: int, num_records: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` over worker processes; the built-in one if there is little to do."""
    if workers < 2 or num_records <= _FEW_RECORDS:
        yield map
        return
    context = multiprocessing.get_context("spawn")  # forking a process with threads may hang
    pool = concurrent.futures.ProcessPoolExecutor(workers, context)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def stream(
    map_fn: Callable[..., Iterator[Any]],
    index: Index,
    tasks: Sequence[StoredTask],
    own: Sequence[int],
    **options: Any,
) -> Iterator[tuple[int, Hits]]:
    """(position of the task, hits) of every chunk of the tasks' stores, in order.

    Args:
        map_fn: from `process_map`.
        own: number of each task in the index, -1 if it is not there.
        options: `num_tasks` of the index; `n` words of an n-gram; `most` pairs of examples to keep
            for each of its tasks; `questions`, whether it is made of `question_part`s.
    """
    chunks = [
        (number, task.path, start, min(start + CHUNK, task.size), own[number])
        for number, task in enumerate(tasks)
        for start in range(0, task.size, CHUNK)
    ]
    if not chunks:
        return
    numbers, *columns = zip(*chunks)
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder))
        scan = functools.partial(_scan, folder=Path(folder), **options)
        yield from zip(numbers, map_fn(scan, *columns))
    _loaded.cache_clear()


def record_ids(records: Iterable[tuple[StoredTask, int]]) -> dict[tuple[StoredTask, int], str]:
    """(task, record number) -> the record's id; opens each store once."""
    numbers: dict[StoredTask, set[int]] = {}
    for task, number in records:
        numbers.setdefault(task, set()).add(number)
    ids = {}
    for task, chosen in numbers.items():
        order = sorted(chosen)
        for number, record in zip(order, Store[Record](task.path).read(order)):
            ids[task, number] = record.id
    return ids
