"""Windows, the unit of work of the feed: some thousand examples as packed and shuffled rows.

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
from instruct.data.feed.rendering import ExampleRenderer, example_key, exemplars_asked, name_key
from instruct.data.stores.store import Store
from instruct.data.vocab import load_vocabulary
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered
from instruct.prompts.template import TemplateSet

_MASK = (1 << 64) - 1

# What is counted for each leaf, in the order of the rows of `Window.counts`.
# `exemplars_missing`: exemplars that prompts should show and do not, as they did not fit, or ask
# the same as the query.
COUNTS = (
    *("asked", "kept", "dropped", "truncated", "input_tokens", "target_tokens"),
    "exemplars_missing",
)


@dataclasses.dataclass(frozen=True, eq=False)
class FeedLeaf:
    """A leaf as a window builder needs it: small to pickle, without its metrics.

    Attributes:
        path, sha256: of the store; a rebuilt store has another hash, and is opened again.
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
        counts: [7, L] COUNTS of every leaf, dropped examples included.
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
    del sha256  # part of the cache's key only
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

        A pickled window fills the pipe between the processes, and blocks the worker's shutdown
        until Grain kills it after 25 s.
        """
        window = self.build(int(number))
        return {field.name: getattr(window, field.name) for field in dataclasses.fields(window)}

    def build(self, number: int) -> Window:
        """Window `number`: examples number * window_examples and the following."""
        leaves, counts, turns = self.plan.window(number, self.window_examples)
        numbers = self.plan.record_indices(leaves, turns)
        kept_leaves, kept, totals, dropped = self._render(
            leaves.tolist(), counts.tolist(), numbers.tolist()
        )
        example_leaves = np.array(kept_leaves, dtype=np.int64)
        packed = pack(
            [example.input_ids for example in kept],
            [example.target_ids for example in kept],
            example_leaves + 1,
            *self.lengths,
            self.packing,
        )
        # Best fit orders rows by length, so they are shuffled.
        generator = np.random.Generator(np.random.Philox(key=[self.seed & _MASK, number]))
        order = generator.permutation(packed.num_rows)
        by_row = np.argsort(np.argsort(order)[packed.example_rows], kind="stable")
        per_row = np.bincount(packed.example_rows, minlength=packed.num_rows)[order]
        rows = {key: value[order] for key, value in packed.rows.items()}
        return Window(rows, np.cumsum(per_row), example_leaves[by_row], totals, dropped)

    def _render(
        self, leaves: list[int], counts: list[int], numbers: list[int]
    ) -> tuple[list[int], list[Rendered], np.ndarray, dict[str, int]]:
        """Reads and renders: leaves and examples kept, COUNTS by leaf, drops by reason."""
        reads: dict[tuple[str, str], _BatchRead] = {}
        renderers: dict[int, tuple[int, _BatchRead, ExampleRenderer]] = {}
        draws = []
        for leaf, count, number in zip(leaves, counts, numbers):
            if leaf not in renderers:
                renderers[leaf] = self._renderer(self.leaves[leaf], reads)
            leaf_key, records, renderer = renderers[leaf]
            key = example_key(self.seed, leaf_key, count)
            exemplars = renderer.exemplar_numbers(number, key)
            records.wanted.add(number)
            if isinstance(renderer.exemplars, _BatchRead):
                renderer.exemplars.wanted.update(exemplars)
            draws.append((leaf, number, key, exemplars))
        for records in reads.values():
            records.fetch()
        totals = np.zeros((len(COUNTS), len(self.leaves)), dtype=np.int64)
        dropped: collections.Counter[str] = collections.Counter()
        kept_leaves, kept = [], []
        for leaf, number, key, exemplars in draws:
            _, records, renderer = renderers[leaf]
            example = renderer.render(records.records[number], key, exemplars)
            totals[0, leaf] += 1
            if isinstance(example, Dropped):
                totals[2, leaf] += 1
                dropped[example.reason] += 1
                continue
            totals[1, leaf] += 1
            totals[3, leaf] += example.truncated
            totals[4, leaf] += len(example.input_ids)
            totals[5, leaf] += len(example.target_ids)
            if renderer.exemplars is not None:
                asked = exemplars_asked(
                    renderer.mode, renderer.shots, len(exemplars), example.template_id
                )
                totals[6, leaf] += asked - example.num_exemplars
            kept_leaves.append(leaf)
            kept.append(example)
        return kept_leaves, kept, totals, dict(sorted(dropped.items()))

    def _renderer(
        self, leaf: FeedLeaf, reads: dict[tuple[str, str], "_BatchRead"]
    ) -> tuple[int, "_BatchRead", ExampleRenderer]:
        """(key of the leaf, its records, its renderer); each store is read once a window."""

        def records(path: str, sha256: str) -> _BatchRead:
            if (path, sha256) not in reads:
                reads[path, sha256] = _BatchRead(open_store(path, sha256))
            return reads[path, sha256]

        renderer = ExampleRenderer(
            mode=leaf.mode,
            templates=leaf.templates,
            shots=leaf.shots,
            tokenizer=load_vocabulary(self.vocabulary),
            lengths=self.lengths,
            exemplars=(
                records(leaf.exemplar_path, leaf.exemplar_sha256) if leaf.exemplar_path else None
            ),
            query_among_exemplars=leaf.exemplar_path == leaf.path,
        )
        return name_key(leaf.name), records(leaf.path, leaf.sha256), renderer


class _BatchRead:
    """Records of one store that a window reads together, which is cheaper than one by one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.wanted: set[int] = set()
        self.records: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._store)

    def fetch(self) -> None:
        """Reads all wanted records."""
        numbers = sorted(self.wanted)
        self.records = dict(zip(numbers, self._store.read(numbers)))

    def read(self, indices: Sequence[int]) -> list[Record]:
        """Records that were fetched."""
        return [self.records[index] for index in indices]
