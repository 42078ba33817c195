"""Training examples that share text with test examples, over prepared stores.

Every n-gram of every test record is compared with every n-gram of every training record. An example
is *touched* if the other side has any of its n-grams (as in the analysis of GPT-3, Brown et al.
2020, with 13 words). A training example is *covered* if the test side has 70 % of its n-grams
(PaLM, Chowdhery et al. 2022); a test example, if the training side has that share of the whole
record or of its question alone (`ngrams.question_texts`): a copied question is covered whatever
else the record holds, such as a description, a passage or the options.

A text shorter than n words matches if it is the whole text of an example on the other side. So does
a question that is a whole field or line there, ignoring case, whitespace, punctuation and a heading
("17. ", "### Human: "); one of 6 to n - 1 words may occur anywhere, from 8 words on without its
options if it has any. Words that several questions of the test tasks have ("Which of these is
true?") identify none of them: these match with their options, or as a whole field. So do words of a
short question whose operators matter (3 + 4), as a field or line only. HTML and JSON escapes and
tags are ignored.

N-grams in more than 5 % (and more than 10) of a test task's examples count as boilerplate, such as
a task's definition, and are ignored. The test side is in memory, 12 bytes a word of each form (up
to three) and about 40 while it is built; the training side is streamed once, in processes.
Duplicates within a mixture: instruct/data/overlap/duplicates.py.
"""

import dataclasses
import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from instruct.data.overlap.index import Index, StoredTask, question_part
from instruct.data.overlap.scan import (
    COVERED,
    ExamplePair,
    Hits,
    best_pairs,
    process_map,
    record_ids,
    share_of,
    stream,
)


@dataclasses.dataclass(frozen=True)
class Contamination:
    """What a training task and a test task share, in examples."""

    train_task: str
    test_task: str
    same_group: bool
    train_examples: int
    train_touched: int
    train_covered: int
    test_examples: int
    test_touched: int
    test_covered: int
    examples: tuple[ExamplePair, ...]  # (training record, test record)

    def to_json(self) -> dict[str, Any]:
        """The fields and the shares of the examples."""
        return dataclasses.asdict(self) | {
            "train_touched_share": share_of(self.train_touched, self.train_examples),
            "test_touched_share": share_of(self.test_touched, self.test_examples),
            "test_covered_share": share_of(self.test_covered, self.test_examples),
        }


@dataclasses.dataclass(frozen=True)
class Total:
    """What a test task shares with all training tasks together, in examples.

    `comparable`: those with text that is not boilerplate.
    """

    test_task: str
    test_examples: int
    comparable: int
    touched: int
    covered: int


def contamination(
    train: Sequence[StoredTask],
    test: Sequence[StoredTask],
    n: int = 13,
    workers: int = 1,
    most: int = 3,
) -> tuple[list[Contamination], list[Total]]:
    """Pairs of tasks that share an n-gram, and what each test task shares with all of `train`.

    Args:
        train: streamed.
        test: held in memory, see the head of this module.
        workers: processes.
        most: example pairs to name for each pair of tasks.
    """
    if not test:
        return [], []
    with process_map(workers, sum(task.size for task in (*train, *test))) as map_fn:
        index = Index.of(list(map_fn(functools.partial(question_part, n=n), test)))
        numbers = {task.path: number for number, task in enumerate(test)}
        own = [numbers.get(task.path, -1) for task in train]
        matched = np.zeros(index.hashes.size, dtype=bool)
        pairs = []
        hits_of_chunks = stream(
            map_fn, index, train, own, num_tasks=len(test), n=n, most=most, questions=True
        )
        for number, chunks in itertools.groupby(hits_of_chunks, operator.itemgetter(0)):
            hits = [hit for _, hit in chunks]
            entries = functools.reduce(np.union1d, [hit.entries for hit in hits])
            matched[entries] = True
            pairs += _contaminations(train[number], test, index, entries, hits, most)
    touched, covered = _by_task(index, np.flatnonzero(matched), len(test))
    comparable = index.examples(np.flatnonzero(index.sizes > 0), len(test))
    totals = [
        Total(task.name, task.size, int(comparable[t]), int(touched[t]), int(covered[t]))
        for t, task in enumerate(test)
    ]
    return pairs, totals


def _by_task(index: Index, entries: np.ndarray, num_tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """[tasks of the index] examples that have one of the entries, and that these cover."""
    texts, counts = np.unique(index.texts[entries], return_counts=True)
    covered = texts[counts >= COVERED * index.sizes[texts]]
    return index.examples(texts, num_tasks), index.examples(covered, num_tasks)


def _contaminations(
    task: StoredTask,
    test: Sequence[StoredTask],
    index: Index,
    entries: np.ndarray,
    hits: Sequence[Hits],
    most: int,
) -> list[Contamination]:
    """What a training task shares with each test task that it touches."""
    touched = np.sum([hit.touched for hit in hits], axis=0)
    covered = np.sum([hit.covered for hit in hits], axis=0)
    test_touched, test_covered = _by_task(index, entries, len(test))
    best = [
        (test[int(t)], int(record), int(test_record), share)
        for t, share, record, test_record in best_pairs(
            np.concatenate([hit.pairs for hit in hits]), most
        ).tolist()
    ]
    ids = record_ids(
        [(task, record) for _, record, _, _ in best] + [(other, k) for other, _, k, _ in best]
    )
    return [
        Contamination(
            train_task=task.name,
            test_task=test[t].name,
            same_group=task.group == test[t].group,
            train_examples=task.size,
            train_touched=int(touched[t]),
            train_covered=int(covered[t]),
            test_examples=test[t].size,
            test_touched=int(test_touched[t]),
            test_covered=int(test_covered[t]),
            examples=tuple(
                ExamplePair(ids[task, record], ids[other, test_record], share)
                for other, record, test_record, share in best
                if other is test[t]
            ),
        )
        for t in np.flatnonzero(touched).tolist()
    ]
