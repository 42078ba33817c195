"""The side of an overlap that is held in memory: which n-gram occurs in which texts.

An example is one text (all its words: `index_part`) or several, any of which stands for it (the
record as a whole, and forms of its question: `question_part`).

    hashes    uint64 [E]  sorted, one entry for each (n-gram, text)
    texts     int32 [E]   the text's number in the index
    sizes     int32 [X]   entries of each text; 0 if nothing of it can be compared
    tasks     int32 [X]   place of its task in the list
    numbers   int64 [X]   its record number in the task's store
    runs      int64 [R]   numbers of words, below n, of whole questions that are entries

Entries take 12 bytes. The arrays are files that worker processes map, so that all share one copy.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from instruct.data.overlap.ngrams import Shingler, question_of, record_words
from instruct.data.stores.store import Store
from instruct.prompts.record import Record

BATCH = 256
# An n-gram of more of a task's examples than both is wording that they share (a definition, a
# phrase of a prompt), not matter of an example.
_FEW_EXAMPLES = 10
_MOST_EXAMPLES = 0.05
_ARRAYS = ("hashes", "texts", "sizes", "tasks", "numbers", "runs")
_FILTER_BITS = 22


def read_batches(
    path: Path, numbers: Sequence[int] | range, batch: int = BATCH
) -> Iterator[tuple[Sequence[int], list[Record]]]:
    """(record numbers, records) of a store, a batch at a time."""
    store: Store[Record] = Store(path)
    for start in range(0, len(numbers), batch):
        chosen = list(numbers[start : start + batch])
        yield chosen, store.read(chosen)


def sampled_numbers(size: int, most: int | None) -> Sequence[int]:
    """At most `most` of range(size), evenly spread; all for None."""
    if most is None or size <= most:
        return range(size)
    return [size * place // most for place in range(most)]


@dataclasses.dataclass(frozen=True, eq=False)
class IndexPart:
    """One task's share of an index; `examples` are its texts, counted within it.

    Attributes:
        hashes, examples, sizes, numbers, runs: see the head of this module.
        forms: uint64 [X] hash of a form of a question; 0 for a text that counts alone: a
            record as a whole, a field that is the question.
        questions: uint64 [X] hash of the question that it is a form of.
    """

    hashes: np.ndarray
    examples: np.ndarray
    sizes: np.ndarray
    numbers: np.ndarray
    forms: np.ndarray
    questions: np.ndarray
    runs: np.ndarray


def index_part(path: Path, size: int, n: int, most: int | None, sketch: int | None) -> IndexPart:
    """Reads a store of `size` records for the index: one text a record, all its words.

    Args:
        n: words of an n-gram.
        most: examples that are taken, evenly spread; None for all.
        sketch: n-grams that are kept of each example, those with the smallest hashes (bottom-k
            sketch, Broder 1997): a random sample, the same wherever the same text stands. None
            for all.
    """
    shingler = Shingler(n)
    numbers = sampled_numbers(size, most)
    rows, grams = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    seen = 0
    for chosen, records in read_batches(path, numbers):
        row, gram, _ = shingler.hashes(records)
        rows.append(row + seen)
        grams.append(gram)
        seen += len(chosen)
    texts, hashes = np.concatenate(rows), np.concatenate(grams)
    keep = _is_matter(hashes, texts, seen)
    texts, hashes = texts[keep], hashes[keep]
    if sketch is not None:  # rising by (text, hash) already
        firsts = np.searchsorted(texts, texts, side="left")
        keep = np.arange(texts.size) - firsts < sketch
        texts, hashes = texts[keep], hashes[keep]
    sizes = np.bincount(texts, minlength=seen).astype(np.int32)
    none = np.zeros(seen, np.uint64)
    places = np.array(numbers, dtype=np.int64)
    return IndexPart(hashes, texts, sizes, places, none, none, np.zeros(0, np.int64))


def question_part(path: Path, size: int, n: int) -> IndexPart:
    """Reads a store of `size` records for the index: every record as a whole, and its question.

    Each `ngrams.Question` makes several texts: n-grams of its words, and single entries for its
    runs and keys.
    """
    shingler = Shingler(n)
    columns: list[tuple[int, int, int]] = []  # (number, form, question) of each text
    texts, hashes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    runs: set[int] = set()
    for chosen, records in read_batches(path, range(size)):
        lists = [record_words(record) for record in records]
        columns += [(number, 0, 0) for number in chosen]
        singles: list[tuple[int, int, int, int]] = []  # (hash, number, form, question)
        for number, question in zip(chosen, (question_of(record, n) for record in records)):
            for form, names in question.long.items():
                lists.append(names)
                columns.append((number, form, question.whole))
            for form, names in question.runs.items():
                runs.add(len(names))
                singles.append((shingler.run_hash(names), number, form, question.whole))
            singles += [(key, number, key, question.whole) for key in sorted(question.keys)]
            singles += [(key, number, 0, 0) for key in sorted(question.fields)]
        first = len(columns) - len(lists)
        row, gram, _ = shingler.hashes_of(shingler.texts(lists))
        texts += [row + first, np.arange(len(singles)) + len(columns)]
        hashes += [gram, np.array([single[0] for single in singles], dtype=np.uint64)]
        columns += [single[1:] for single in singles]
    numbers = np.array([column[0] for column in columns], dtype=np.int64)
    forms, questions = (
        np.array([column[place] for column in columns], dtype=np.uint64) for place in (1, 2)
    )
    text, entry = np.concatenate(texts), np.concatenate(hashes)
    keep = _is_matter(entry, numbers[text], size)
    text, entry = text[keep], entry[keep]
    sizes = np.bincount(text, minlength=numbers.size).astype(np.int32)
    return IndexPart(
        entry, text, sizes, numbers, forms, questions, np.array(sorted(runs), dtype=np.int64)
    )


def _is_matter(hashes: np.ndarray, examples: np.ndarray, num_examples: int) -> np.ndarray:
    """Whether each n-gram occurs in few enough of the examples."""
    _, where = np.unique(hashes, return_inverse=True)
    cells = np.unique(where * max(num_examples, 1) + examples)
    counts = np.bincount(cells // max(num_examples, 1), minlength=1)
    return counts[where] <= max(_FEW_EXAMPLES, _MOST_EXAMPLES * num_examples)


def _unclear(forms: np.ndarray, questions: np.ndarray) -> np.ndarray:
    """Whether each text is a form that several questions have ("Which of these is true?")."""
    pairs = np.unique(np.stack([forms, questions], axis=1), axis=0)
    form, counts = np.unique(pairs[:, 0], return_counts=True)
    return (forms > 0) & np.isin(forms, form[counts > 1])


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
        """Puts the parts of the tasks together, in order."""

        def joined(name: str, dtype: type) -> np.ndarray:
            return np.concatenate([np.zeros(0, dtype), *(getattr(part, name) for part in parts)])

        offsets = np.cumsum([0, *(part.sizes.size for part in parts)])
        hashes, sizes = joined("hashes", np.uint64), joined("sizes", np.int32)
        texts = np.concatenate(
            [np.zeros(0, np.int32)]
            + [(part.examples + offset).astype(np.int32) for part, offset in zip(parts, offsets)]
        )
        unclear = _unclear(joined("forms", np.uint64), joined("questions", np.uint64))
        keep = ~unclear[texts]
        hashes, texts = hashes[keep], texts[keep]
        order = np.argsort(hashes, kind="stable")
        return cls(
            hashes=hashes[order],
            texts=texts[order],
            sizes=np.where(unclear, 0, sizes).astype(np.int32),
            tasks=np.repeat(
                np.arange(len(parts), dtype=np.int32), [part.sizes.size for part in parts]
            ),
            numbers=joined("numbers", np.int64),
            runs=np.unique(joined("runs", np.int64)),
        )

    def save(self, folder: Path) -> None:
        """Writes the arrays."""
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """Maps the arrays of a saved index into memory."""
        return cls(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS})

    def examples(self, texts: np.ndarray, num_tasks: int) -> np.ndarray:
        """[tasks] number of different examples that some texts are of."""
        pairs = np.unique(np.stack([self.tasks[texts], self.numbers[texts]], axis=1), axis=0)
        return np.bincount(pairs[:, 0], minlength=num_tasks)

    @functools.cached_property
    def _may_hold(self) -> np.ndarray:
        """bool [2**_FILTER_BITS]: whether a hash with these first bits is in the index."""
        there = np.zeros(1 << _FILTER_BITS, dtype=bool)
        there[self.hashes >> np.uint64(64 - _FILTER_BITS)] = True
        return there

    def lookup(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place in `grams`, entry) of every occurrence of some n-grams."""
        # Few n-grams are found at all; most are not even searched for.
        there = np.flatnonzero(self._may_hold[grams >> np.uint64(64 - _FILTER_BITS)])
        first = np.searchsorted(self.hashes, grams[there], side="left")
        counts = np.searchsorted(self.hashes, grams[there], side="right") - first
        places = np.repeat(there, counts)
        entries = np.arange(places.size) - np.repeat(np.cumsum(counts) - counts - first, counts)
        return places, entries
