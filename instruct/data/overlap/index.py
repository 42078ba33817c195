"""The side of an overlap that is held in memory: which n-gram occurs in which texts.

An example is one text (all its words: `sample_part`) or several, any of which stands for it (the
whole record, and forms of its question: `question_part`).

    hashes    uint64 [E]  sorted, one entry for each (n-gram, text)
    texts     int32 [E]   number of the text in the index
    sizes     int32 [X]   entries of each text; 0 if no part of it can be compared
    tasks     int32 [X]   position of its task in the list
    numbers   int64 [X]   its record number in the task's store
    runs      int64 [R]   word counts, below n, of the whole questions among the entries

Entries take 12 bytes. The arrays are saved as files; worker processes memory-map one shared copy.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from instruct.data.overlap.ngrams import (
    hash_texts,
    ngram_hashes,
    question_forms,
    record_words,
    run_hashes,
)
from instruct.data.stores.store import Store
from instruct.prompts.record import Record

_BATCH = 256  # records
# N-grams in more of a task's examples than both limits are boilerplate (a definition, a phrase of
# a prompt) and are ignored.
_MOST_EXAMPLES = 10
_MOST_SHARE = 0.05
_FILTER_BITS = 22


@dataclasses.dataclass(frozen=True)
class StoredTask:
    """A task's prepared store: its path, its number of records, the contamination group."""

    name: str
    path: Path
    size: int
    group: str


def read_batches(path: Path, start: int, stop: int) -> Iterator[tuple[range, list[Record]]]:
    """(record numbers, records) of a store from `start` to `stop` - 1, a batch at a time."""
    store: Store[Record] = Store(path)
    for first in range(start, stop, _BATCH):
        numbers = range(first, min(first + _BATCH, stop))
        yield numbers, store.read(numbers)


@dataclasses.dataclass(frozen=True, eq=False)
class IndexPart:
    """One task's entries and texts.

    Attributes:
        hashes, runs: see the head of this module.
        texts: [E] number of each entry's text within the part.
        columns: uint64 [X, 3] of each text: record number, hash of the question's form, hash of
            the question. Form and question are 0 for a text that counts alone: a whole record, a
            field that is the question.
    """

    hashes: np.ndarray
    texts: np.ndarray
    columns: np.ndarray
    runs: np.ndarray


def sample_part(task: StoredTask, n: int, most: int, sketch: int) -> IndexPart:
    """Indexes a sample of a task's records, each as one text of all its words.

    Args:
        n: words of an n-gram.
        most: records of the sample, evenly spread.
        sketch: n-grams to keep of each record: those with the smallest hashes (bottom-k sketch,
            Broder 1997), a random sample that is the same wherever the same text occurs.
    """
    count = min(most, task.size)
    numbers = [task.size * k // count for k in range(count)]
    records = Store[Record](task.path).read(numbers)
    texts, hashes = ngram_hashes(hash_texts([record_words(record) for record in records]), n)
    specific = _is_specific(hashes, texts, count)
    texts, hashes = texts[specific], hashes[specific]  # still sorted
    kept = np.arange(texts.size) - np.searchsorted(texts, texts, side="left") < sketch
    columns = np.array([(number, 0, 0) for number in numbers], np.uint64).reshape(count, 3)
    return IndexPart(hashes[kept], texts[kept], columns, np.zeros(0, np.int64))


def question_part(task: StoredTask, n: int) -> IndexPart:
    """Indexes every record of a task as a whole, and the forms of its question."""
    columns: list[tuple[int, int, int]] = []
    texts, hashes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    runs: set[int] = set()
    for numbers, records in read_batches(task.path, 0, task.size):
        first = len(columns)
        lists = [record_words(record) for record in records]
        columns += [(number, 0, 0) for number in numbers]
        singles: list[tuple[int, tuple[int, int, int]]] = []  # (hash, column)
        for number, record in zip(numbers, records):
            for form, question, content in question_forms(record, n):
                column = (number, form, question)
                if isinstance(content, int):
                    singles.append((content, column))
                elif len(content) < n:
                    runs.add(len(content))
                    _, (run,) = run_hashes(hash_texts([content]), [len(content)])
                    singles.append((int(run), column))
                else:
                    lists.append(content)
                    columns.append(column)
        rows, grams = ngram_hashes(hash_texts(lists), n)
        texts += [rows + first, np.arange(len(singles)) + len(columns)]
        hashes += [grams, np.array([single for single, _ in singles], dtype=np.uint64)]
        columns += [column for _, column in singles]
    table = np.array(columns, dtype=np.uint64).reshape(-1, 3)
    text, entry = np.concatenate(texts), np.concatenate(hashes)
    specific = _is_specific(entry, table[text, 0].astype(np.int64), task.size)
    return IndexPart(entry[specific], text[specific], table, np.array(sorted(runs), np.int64))


def _is_specific(hashes: np.ndarray, examples: np.ndarray, num_examples: int) -> np.ndarray:
    """Mask of the n-grams that few enough of the examples contain."""
    _, where = np.unique(hashes, return_inverse=True)
    _, gram, _ = distinct_pairs(examples, where)
    counts = np.bincount(gram, minlength=1)
    return counts[where] <= max(_MOST_EXAMPLES, _MOST_SHARE * num_examples)


def distinct_pairs(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, ...]:
    """(left, right, count) of each distinct pair of non-negative integers, sorted."""
    width = int(right.max(initial=0)) + 1
    cells, counts = np.unique(left * width + right, return_counts=True)
    return cells // width, cells % width, counts


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """The arrays; see the head of this module."""

    hashes: np.ndarray
    texts: np.ndarray
    sizes: np.ndarray
    tasks: np.ndarray
    numbers: np.ndarray
    runs: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[IndexPart]) -> "Index":
        """Joins the parts of one or more tasks, in order."""
        num_texts = [len(part.columns) for part in parts]
        offsets = np.cumsum(num_texts) - num_texts
        hashes = np.concatenate([part.hashes for part in parts])
        texts = np.concatenate(
            [(part.texts + offset).astype(np.int32) for part, offset in zip(parts, offsets)]
        )
        numbers, forms, questions = np.concatenate([part.columns for part in parts]).T
        # Forms that several questions have ("Which of these is true?") identify none of them.
        pairs = np.unique(np.stack([forms, questions], axis=1), axis=0)
        form, counts = np.unique(pairs[:, 0], return_counts=True)
        kept = ~((forms > 0) & np.isin(forms, form[counts > 1]))[texts]
        hashes, texts = hashes[kept], texts[kept]
        order = np.argsort(hashes, kind="stable")
        return cls(
            hashes=hashes[order],
            texts=texts[order],
            sizes=np.bincount(texts, minlength=numbers.size).astype(np.int32),
            tasks=np.repeat(np.arange(len(parts), dtype=np.int32), num_texts),
            numbers=numbers.astype(np.int64),
            runs=np.unique(np.concatenate([part.runs for part in parts])),
        )

    def save(self, folder: Path) -> None:
        """Writes each array to a file."""
        for field in dataclasses.fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """Memory-maps the arrays of a saved index."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))

    def examples(self, texts: np.ndarray, num_tasks: int) -> np.ndarray:
        """[tasks] number of distinct examples that some texts belong to."""
        _, tasks, _ = distinct_pairs(self.numbers[texts], self.tasks[texts])
        return np.bincount(tasks, minlength=num_tasks)

    @functools.cached_property
    def _prefixes(self) -> np.ndarray:
        """bool [2**_FILTER_BITS]: whether the index has a hash with these first bits."""
        present = np.zeros(1 << _FILTER_BITS, dtype=bool)
        present[self.hashes >> np.uint64(64 - _FILTER_BITS)] = True
        return present

    def lookup(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(position in `grams`, entry) of every occurrence of some n-grams."""
        # Most n-grams have no match; the filter spares them the binary search.
        candidates = np.flatnonzero(self._prefixes[grams >> np.uint64(64 - _FILTER_BITS)])
        first = np.searchsorted(self.hashes, grams[candidates], side="left")
        counts = np.searchsorted(self.hashes, grams[candidates], side="right") - first
        positions = np.repeat(candidates, counts)
        entries = np.arange(positions.size) - np.repeat(np.cumsum(counts) - counts - first, counts)
        return positions, entries
