"""Training examples that share text with test examples, over prepared stores.

Every n-gram of every test record is compared with every n-gram of every training record. An example
is *touched* if the other side holds any of its n-grams (as in the analysis of GPT-3, Brown et al.
2020, with 13 words). A training example is *covered* if the test side holds 70 % of its n-grams
(PaLM, Chowdhery et al. 2022); a test example, if that share of the record as a whole or of its
question alone is there (`ngrams.question_texts`): a copied question is covered whatever else the
record holds, such as a description, a passage or the options.

A text shorter than n words counts if it is the whole text of an example on the other side. So does
a question that is a whole field or line there, case, blanks, punctuation and a heading ("17. ",
"### Human: ") aside; one of 6 to n - 1 words may stand anywhere, from 8 words on without its
options if it has any. Words that several questions of the test tasks have ("Which of these is
true?") tell none of them: these count with their options, or as a whole field. Nor do words tell a
short question whose signs matter (3 + 4): it counts as a field or line only. Escapes and tags of
HTML and JSON do not count.

N-grams that more than 5 % (and more than 10) of a test task's examples hold are passed over: they
are wording, such as a task's definition. The test side is in memory, 12 bytes a word of each form
(up to three) and about 40 while it is built; the training side streams by in one pass, in
processes. Duplicates within a mixture: instruct/data/overlap/duplicates.py.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instruct.data.overlap.index import Index, IndexPart, question_part
from instruct.data.overlap.scan import (
    COVERED,
    ExamplePair,
    Hits,
    RecordIds,
    Runner,
    StoredTask,
    best_pairs,
    loaded,
    share_of,
    stream,
)


@dataclasses.dataclass(frozen=True)
class Contamination:
    """What a training task and a test task share; numbers of examples."""

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
        """The pair as JSON values, with shares of the examples."""
        return dataclasses.asdict(self) | {
            "train_touched_share": share_of(self.train_touched, self.train_examples),
            "test_touched_share": share_of(self.test_touched, self.test_examples),
            "test_covered_share": share_of(self.test_covered, self.test_examples),
        }


@dataclasses.dataclass(frozen=True)
class Total:
    """What a test task shares with all training tasks together; numbers of examples.

    `comparable`: those with text that is not wording.
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
        most: pairs of examples that are named for each pair of tasks.
    """
    size = sum(task.size for task in (*train, *test))
    with Runner(workers, size) as run, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parts: list[IndexPart] = (
            list(run.map(question_part, [(t.path, t.size, n) for t in test])) if test else []
        )
        index = Index.of(parts)
        index.save(folder)
        numbers = {task.path: number for number, task in enumerate(test)}
        own = [numbers.get(task.path, -1) for task in train]
        total = np.zeros(index.hashes.size, dtype=bool)
        hits: dict[int, list[Hits]] = {}
        pairs = []
        stretches = stream(run, folder, train, own, (len(test), n, most, True))
        for place, found in stretches:
            total[found.entries] = True
            hits.setdefault(place, []).append(found)
            if sum(h.texts.size for h in hits[place]) == train[place].size:
                pairs += _contaminations(train[place], test, index, hits.pop(place), most)
        loaded.cache_clear()
    touched, covered = _by_task(index, np.flatnonzero(total), len(test))
    comparable = index.examples(np.flatnonzero(index.sizes > 0), len(test))
    totals = [
        Total(task.name, task.size, int(comparable[t]), int(touched[t]), int(covered[t]))
        for t, task in enumerate(test)
    ]
    return pairs, totals


def _by_task(index: Index, entries: np.ndarray, num_tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """[tasks of the index] examples that hold one of the entries, and that are covered by them."""
    texts, counts = np.unique(index.texts[entries], return_counts=True)
    covered = texts[counts >= COVERED * index.sizes[texts]]
    return index.examples(texts, num_tasks), index.examples(covered, num_tasks)


def _contaminations(
    task: StoredTask, test: Sequence[StoredTask], index: Index, hits: Sequence[Hits], most: int
) -> list[Contamination]:
    entries = functools.reduce(np.union1d, [hit.entries for hit in hits])
    touched = np.sum([hit.touched for hit in hits], axis=0)
    covered = np.sum([hit.covered for hit in hits], axis=0)
    test_touched, test_covered = _by_task(index, entries, len(test))
    best = best_pairs([pair for hit in hits for pair in hit.pairs], most)
    ids = RecordIds(
        [(task, record) for _, _, record, _ in best] + [(test[t], other) for t, _, _, other in best]
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
                ExamplePair(ids[task, record], ids[test[t], other], share)
                for at, share, record, other in best
                if at == t
            ),
        )
        for t in np.flatnonzero(touched).tolist()
    ]
