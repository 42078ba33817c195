"""Windows, the unit of work of the feed: some thousand examples as packed and shuffled rows.

`WindowBuilder.build(number)` is a pure function of (seed, number): records, templates, exemplars,
packing and row order. So any process can build any window, and an interrupted run resumes by window
number. Worker processes import this module: no TensorFlow here.
"""

import collections
import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from instruct.batch import DECODER_ONLY
from instruct.data.config import DataConfig
from instruct.data.feed.packing import pack
from instruct.data.feed.plan import Plan
from instruct.data.feed.rendering import ExampleRenderer, example_key, exemplars_asked, name_key
from instruct.data.stores.store import Store
from instruct.prompts.frame import Frame
from instruct.prompts.render import Dropped, Rendered
from instruct.prompts.template import TemplateSet

# Rows of `Window.counts`. `exemplars_missing`: exemplars that prompts should show but do not,
# because they did not fit or ask the same as the query.
COUNTS = (
    *("asked", "kept", "dropped", "truncated", "input_tokens", "target_tokens"),
    "exemplars_missing",
)


@dataclasses.dataclass(frozen=True, eq=False)
class FeedLeaf:
    """What a window builder needs of a leaf: small to pickle, without its metrics.

    Attributes:
        store: (path, SHA-256) of its records: a rebuilt store is opened again.
        exemplar_store: the same of its exemplars; ("", "") if the mode shows none.
        templates, shots: see `ExampleRenderer`.
    """

    name: str
    mode: str
    store: tuple[str, str]
    num_records: int
    templates: TemplateSet | None
    exemplar_store: tuple[str, str] = ("", "")
    shots: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """One window's rows in their final order.

    Attributes:
        rows: the arrays of a layout of batch.py, [R, S] and [R, T].
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


@dataclasses.dataclass(frozen=True, eq=False)
class WindowBuilder:
    """Builds windows. Holds no open file, so it can be pickled to worker processes.

    Attributes:
        leaves: in the order of the plan's.
    """

    leaves: tuple[FeedLeaf, ...]
    plan: Plan
    config: DataConfig

    def __call__(self, number: int) -> dict[str, Any]:
        """`build` as a dictionary of arrays, which Grain passes through shared memory.

        Pickling a window through a pipe fills it, and blocks the worker's shutdown until Grain
        kills it after 25 s.
        """
        return vars(self.build(int(number)))

    def build(self, number: int) -> Window:
        """Window `number`: examples number * window_examples and the following."""
        kept_leaves, kept, totals, dropped = self.examples(number)
        example_leaves = np.array(kept_leaves, dtype=np.int64)
        # Best fit orders rows by length, so they are shuffled.
        generator = np.random.Generator(np.random.Philox(key=[self.config.seed, number]))
        packed = pack(
            [example.input_ids for example in kept],
            [example.target_ids for example in kept],
            example_leaves + 1,
            *self.config.lengths,
            self.config.packing,
            self.config.batch_layout,
            target_weights=[example.target_weights for example in kept],
            loss_on=self.config.loss_on,
            permutation_fn=generator.permutation,
        )
        by_row = np.argsort(packed.example_rows, kind="stable")
        per_row = np.bincount(packed.example_rows, minlength=packed.num_rows)
        return Window(packed.rows, np.cumsum(per_row), example_leaves[by_row], totals, dropped)

    def examples(self, number: int) -> tuple[list[int], list[Rendered], np.ndarray, dict[str, int]]:
        """Window `number` before packing; see `_render`."""
        leaves, counts, turns = self.plan.window(number, self.config.window_examples)
        records = self.plan.record_indices(leaves, turns)
        return self._render(leaves.tolist(), counts.tolist(), records.tolist())

    def _render(
        self, leaves: list[int], counts: list[int], numbers: list[int]
    ) -> tuple[list[int], list[Rendered], np.ndarray, dict[str, int]]:
        """Leaves of the kept examples, the examples, COUNTS by leaf, drops by reason."""
        frame = dataclasses.replace(self.config.frame, arrays=True)
        renderers = {n: self._renderer(self.leaves[n], frame) for n in dict.fromkeys(leaves)}
        wanted: dict[tuple[str, str], set[int]] = collections.defaultdict(set)
        draws = []
        for leaf, count, number in zip(leaves, counts, numbers):
            feed_leaf, renderer = self.leaves[leaf], renderers[leaf]
            key = example_key(self.config.seed, name_key(feed_leaf.name), count)
            exemplars = renderer.exemplar_numbers(number, key)
            wanted[feed_leaf.store].add(number)
            if exemplars:
                wanted[feed_leaf.exemplar_store].update(exemplars)
            draws.append((leaf, number, key, exemplars))
        records = {}
        for store, chosen in wanted.items():
            order = sorted(chosen)  # one read per store is much cheaper than one per record
            records[store] = dict(zip(order, open_store(*store).read(order)))
        dropped: collections.Counter[str] = collections.Counter()
        kept_leaves, kept, counted = [], [], []
        for leaf, number, key, exemplars in draws:
            feed_leaf, renderer = self.leaves[leaf], renderers[leaf]
            shown = [records[feed_leaf.exemplar_store][n] for n in exemplars]
            example = renderer.render(records[feed_leaf.store][number], key, shown)
            if isinstance(example, Dropped):
                counted.append((1, 0, 1, 0, 0, 0, 0))
                dropped[example.reason] += 1
                continue
            lengths = len(example.input_ids), len(example.target_ids)
            missing = 0
            if renderer.exemplars is not None:
                asked = exemplars_asked(
                    renderer.mode, renderer.shots, len(exemplars), example.template_id
                )
                missing = asked - example.num_exemplars
            counted.append((1, 1, 0, example.truncated, *lengths, missing))
            kept_leaves.append(leaf)
            kept.append(example)
        totals = np.zeros((len(COUNTS), len(self.leaves)), dtype=np.int64)
        np.add.at(totals.T, leaves, np.array(counted, dtype=np.int64))
        return kept_leaves, kept, totals, dict(sorted(dropped.items()))

    def _renderer(self, leaf: FeedLeaf, frame: Frame) -> ExampleRenderer:
        return ExampleRenderer(
            leaf.mode,
            leaf.templates,
            leaf.shots,
            frame,
            self.config.example_lengths,
            open_store(*leaf.exemplar_store) if leaf.exemplar_store[0] else None,
            query_among_exemplars=leaf.exemplar_store == leaf.store,
            every_turn=self.config.batch_layout is DECODER_ONLY,
        )
