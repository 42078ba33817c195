"""The unit of work of the feed: some thousand consecutive examples, as packed and shuffled rows.

`WindowBuilder.build(number)` is a pure function of (seed, number): which records, which wording,
which exemplars, which rows in which order. So any process can build any window, and an
interrupted run continues by number. Worker processes import this module: no TensorFlow here.
"""

import collections
import dataclasses
import functools
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instruct.data.feed.packing import pack
from instruct.data.feed.plan import Plan
from instruct.data.feed.rendering import example_key, exemplar_indices, name_key, render_example
from instruct.data.stores.store import Store
from instruct.data.token_record import TokenRecord
from instruct.data.vocab import Vocabulary, load_vocabulary
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.prompts.template import TemplateSet

_MASK = (1 << 64) - 1

# What is counted for each leaf, in the order of the rows of `Window.counts`.
COUNTS = ("asked", "kept", "dropped", "truncated", "input_tokens", "target_tokens")


@dataclasses.dataclass(frozen=True, eq=False)
class FeedLeaf:
    """What building a window needs of a leaf; small, and without its metrics.

    Attributes:
        path, sha256: the store; the hash tells a rebuilt one from the one already open.
        templates: None for a plain seqio task, whose records are tokens.
        exemplar_path, exemplar_sha256: the store of exemplars; "" if the mode shows none.
        shots: how many exemplars are always shown; None where they are drawn.
    """

    name: str
    mode: str
    path: str
    sha256: str
    num_records: int
    templates: TemplateSet | None
    exemplar_path: str = ""
    exemplar_sha256: str = ""
    shots: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """One window's rows in their final order.

    Attributes:
        rows: batch.py's arrays, [R, S] and [R, T].
        row_ends: [R] number of examples in the rows up to and including each.
        example_leaves: [E] leaf of each example, in row order.
        counts: [6, L] COUNTS of every leaf, dropped examples included.
        dropped: reason -> examples.
    """

    rows: dict[str, np.ndarray]
    row_ends: np.ndarray
    example_leaves: np.ndarray
    counts: np.ndarray
    dropped: dict[str, int]

    @property
    def num_rows(self) -> int:
        return self.row_ends.size


@functools.cache
def open_store(path: str, sha256: str) -> Store:
    """An open store, shared by all leaves and threads of a process."""
    del sha256  # part of the key only: a store built anew is another one
    return Store(Path(path))


def allow_many_files() -> None:
    """Raises the soft limit of open files: every store in use is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@dataclasses.dataclass(frozen=True, eq=False)
class WindowBuilder:
    """Builds windows. Holds no open file, so that it can be sent to worker processes.

    Attributes:
        leaves: in the order of the mixture's.
        plan: which record of which leaf every example is.
        lengths: (S, T).
    """

    leaves: tuple[FeedLeaf, ...]
    plan: Plan
    vocabulary: str
    lengths: tuple[int, int]
    seed: int
    window_examples: int
    packing: str

    def __call__(self, number: int) -> dict[str, Any]:
        """`build` as a dictionary of arrays, which Grain hands over in shared memory.

        Through a pipe a window would fill it, and a worker that is told to stop would hang until
        Grain kills it after 25 s.
        """
        window = self.build(int(number))
        return {field.name: getattr(window, field.name) for field in dataclasses.fields(window)}

    def build(self, number: int) -> Window:
        """Window `number`: examples number * window_examples and the following."""
        leaves, counts, turns = self.plan.window(number, self.window_examples)
        numbers = self.plan.record_indices(leaves, turns)
        kept, totals, dropped = self._tokenise(leaves.tolist(), counts.tolist(), numbers.tolist())
        example_leaves = np.array([example.leaf for example in kept], dtype=np.int64)
        packed = pack(
            [example.input_ids for example in kept],
            [example.target_ids for example in kept],
            example_leaves + 1,
            *self.lengths,
            self.packing,
        )
        # Best fit makes long and short rows in turn, so their order is drawn.
        generator = np.random.Generator(np.random.Philox(key=[self.seed & _MASK, number]))
        order = generator.permutation(packed.num_rows)
        by_row = np.argsort(np.argsort(order)[packed.example_rows], kind="stable")
        per_row = np.bincount(packed.example_rows, minlength=packed.num_rows)[order]
        rows = {key: value[order] for key, value in packed.rows.items()}
        return Window(rows, np.cumsum(per_row), example_leaves[by_row], totals, dropped)

    def _tokenise(
        self, leaves: list[int], counts: list[int], numbers: list[int]
    ) -> tuple[list["_Example"], np.ndarray, dict[str, int]]:
        """Reads and renders examples: those kept, COUNTS by leaf, drops by reason."""
        vocabulary = load_vocabulary(self.vocabulary)
        leaf_keys = [name_key(leaf.name) for leaf in self.leaves]
        draws = []
        for leaf, count, number in zip(leaves, counts, numbers):
            key = example_key(self.seed, leaf_keys[leaf], count)
            draws.append((leaf, number, key, self._exemplars(self.leaves[leaf], key, number)))
        records = self._read(draws)
        totals = np.zeros((len(COUNTS), len(self.leaves)), dtype=np.int64)
        dropped: collections.Counter[str] = collections.Counter()
        kept = []
        for leaf, number, key, exemplars in draws:
            source = self.leaves[leaf]
            shots = [records[source.exemplar_path][n] for n in exemplars]
            shots = [shot for shot in shots if isinstance(shot, Record)]
            record = records[source.path][number]
            example = self._example(leaf, record, key, shots, vocabulary)
            totals[0, leaf] += 1
            if isinstance(example, Dropped):
                totals[2, leaf] += 1
                dropped[example.reason] += 1
                continue
            totals[1, leaf] += 1
            totals[3, leaf] += example.truncated
            totals[4, leaf] += len(example.input_ids)
            totals[5, leaf] += len(example.target_ids)
            kept.append(example)
        return kept, totals, dict(sorted(dropped.items()))

    def _exemplars(self, leaf: FeedLeaf, key: int, number: int) -> list[int]:
        if not leaf.exemplar_path:
            return []
        query = number if leaf.exemplar_path == leaf.path else None
        pool = open_store(leaf.exemplar_path, leaf.exemplar_sha256)
        return exemplar_indices(leaf.mode, key, len(pool), query, leaf.shots)

    def _read(
        self, draws: list[tuple[int, int, int, list[int]]]
    ) -> dict[str, dict[int, Record | TokenRecord]]:
        """Every record the window needs, by store and number: one read of each store."""
        wanted: dict[tuple[str, str], set[int]] = {}
        for index, number, _, exemplars in draws:
            leaf = self.leaves[index]
            wanted.setdefault((leaf.path, leaf.sha256), set()).add(number)
            if exemplars:
                pool = (leaf.exemplar_path, leaf.exemplar_sha256)
                wanted.setdefault(pool, set()).update(exemplars)
        records = {}
        for (path, sha256), numbers in wanted.items():
            in_order = sorted(numbers)
            found = open_store(path, sha256).read(in_order)
            records[path] = dict(zip(in_order, found))
        return records

    def _example(
        self,
        index: int,
        record: Record | TokenRecord,
        key: int,
        exemplars: Sequence[Record],
        vocabulary: Vocabulary,
    ) -> "_Example | Dropped":
        leaf = self.leaves[index]
        if isinstance(record, TokenRecord):
            return _Example(index, record.input_ids, record.target_ids, False)
        if leaf.templates is None:
            raise TypeError(f"{leaf.path} holds records, and {leaf.name} has no templates")
        shown = render_example(
            record,
            leaf.templates,
            leaf.mode,
            key,
            exemplars,
            vocabulary,
            self.lengths,
        )
        if isinstance(shown, Dropped):
            return shown
        return _Example(index, shown.input_ids, shown.target_ids, shown.truncated)


@dataclasses.dataclass(frozen=True, slots=True)
class _Example:
    leaf: int
    input_ids: list[int]
    target_ids: list[int]
    truncated: bool
