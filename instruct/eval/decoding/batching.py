"""From a list of token sequences to few batches of few shapes, and back to the list's order.

Every batch has one of a handful of lengths (its bucket's) and a fixed number of rows, so that a
function compiles once per bucket. Which buckets there are depends on the lengths alone, not on
what ran before: the same list is always computed the same way, also after a restart.
"""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from instruct.eval.decoding.decode import DecodeConfig, search_of
from instruct.eval.decoding.search import PADDING_EXAMPLE
from instruct.eval.decoding.slots import AdjustFn, DecodableModel, Report, SlotArray, SlotPrograms
from instruct.fields import bounded, check_fields
from instruct.mesh import batch_sharding, replicated_sharding

_SHORTEST = 8
# Fewer buckets are preferred as long as they cost at most this much more padded work.
_TOLERATED_PADDING = 1.1
# A turn of the host may wait for one slot in this many.
_SLOTS_PER_TURN = 16
# Batches handed to the device before the results of the first are awaited.
_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """How evaluation examples are grouped; speed and memory only, never results.

    Attributes:
        batch_size: rows of a batch, or slots that generate side by side; rounded up to what the
            mesh's data axes divide.
        max_shapes: most bucket lengths, and so compilations, per list of examples.
    """

    batch_size: int = bounded(32, least=1)
    max_shapes: int = bounded(4, least=1)

    __post_init__ = check_fields


class Bucket(NamedTuple):
    """Batches of one shape. Rows of `batches` are example numbers, -1 for padding rows."""

    length: int
    batches: np.ndarray  # [number of batches, rows] int32


def rounded_length(length: int) -> int:
    """The next of 8, 12, 16, 24, 32, 48, 64, 96, ...: at most a third of it is padding."""
    size = _SHORTEST
    while size < length:
        if size * 3 // 2 >= length:
            return size * 3 // 2
        size *= 2
    return size


def plan_buckets(
    lengths: Sequence[int], batch_size: int, max_shapes: int, multiple: int = 1
) -> list[Bucket]:
    """Groups examples by length so that little is padded, in few shapes; the longest first.

    Args:
        lengths: tokens of each example.
        batch_size: rows of a batch.
        max_shapes: most different lengths.
        multiple: the rows of a batch are rounded up to a multiple of this.

    Worked example: lengths [3, 30, 5, 7, 6] with two rows a batch and two shapes become
        Bucket(32, [[1, 3]]), Bucket(8, [[4, 2], [0, -1]])
    """
    if not lengths:
        return []
    rows = batch_rows(len(lengths), batch_size, multiple)
    tops = _bucket_tops([rounded_length(length) for length in lengths], rows, max_shapes)
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    buckets = []
    for top, shorter in zip(tops, [*tops[1:], 0], strict=True):
        batches = math.ceil(sum(lengths[i] > shorter for i in order) / rows)
        # Shorter examples fill what would be padding rows.
        members, order = order[: batches * rows], order[batches * rows :]
        if members:
            padded = members + [PADDING_EXAMPLE] * (batches * rows - len(members))
            buckets.append(Bucket(top, np.array(padded, np.int32).reshape(-1, rows)))
    return buckets


def batch_rows(num_examples: int, batch_size: int, multiple: int) -> int:
    """Rows of a batch: no more than a list needs, rounded up to a power of two, then to `multiple`.

    Few examples get a smaller batch, so that one prompt does not cost a full one.
    """
    rows = min(batch_size, 1 << (num_examples - 1).bit_length())
    return math.ceil(rows / multiple) * multiple


def row_multiple(mesh: Mesh | None) -> int:
    """Rows of a batch must be a multiple of this: the number of shards of the batch."""
    if mesh is None:
        return 1
    return mesh.size // batch_sharding(mesh).shard_shape((mesh.size,))[0]


def _bucket_tops(rounded: list[int], rows: int, max_shapes: int) -> list[int]:
    """Bucket lengths, longest first: cheapest split of the rounded lengths in padded tokens."""
    counts = collections.Counter(rounded)
    tops = sorted(counts)
    below = np.concatenate([[0], np.cumsum([counts[top] for top in tops])])

    def cost(first: int, last: int) -> float:
        return math.ceil((below[last + 1] - below[first]) / rows) * rows * tops[last]

    # best[k][j]: (cost, bucket lengths) of tops[: j + 1] in at most k + 1 buckets.
    best = [[(cost(0, j), [tops[j]]) for j in range(len(tops))]]
    for _ in range(1, min(max_shapes, len(tops))):
        previous = best[-1]
        row = []
        for j in range(len(tops)):
            splits = [
                (previous[i][0] + cost(i + 1, j), [tops[j], *previous[i][1]]) for i in range(j)
            ]
            row.append(min([previous[j], *splits], key=lambda split: split[0]))
        best.append(row)
    cheapest = best[-1][-1][0]
    return next(r[-1][1] for r in best if r[-1][0] <= _TOLERATED_PADDING * cheapest)


def padded_rows(sequences: Sequence[Sequence[int]], rows: np.ndarray, length: int) -> np.ndarray:
    """Tokens [rows, length] int32 of the numbered sequences, zeros on the right.

    Padding rows repeat the first: real tokens keep every intermediate value ordinary.
    """
    tokens = np.zeros((len(rows), length), np.int32)
    for row, number in enumerate(rows):
        sequence = sequences[rows[0] if number == PADDING_EXAMPLE else number]
        tokens[row, : len(sequence)] = sequence
    return tokens


class BatchRunner:
    """Runs a compiled function over batches of a mesh and brings every result to every host.

    All processes call it with the same batches. The function compiles once per shape and is kept.
    """

    def __init__(self, function: Callable[..., Any], mesh: Mesh | None = None):
        self._mesh = mesh
        out_shardings = None if mesh is None else replicated_sharding(mesh)
        self._run = jax.jit(function, out_shardings=out_shardings)

    @property
    def row_multiple(self) -> int:
        """See the function `row_multiple`."""
        return row_multiple(self._mesh)

    def __call__(
        self, params: Any, batches: Iterable[tuple[np.ndarray, tuple]]
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Yields (example numbers of the rows, results as NumPy arrays) for (numbers, arguments).

        Every argument is an array, or a dict of arrays, with the rows in front.
        """
        waiting: collections.deque = collections.deque()
        for numbers, arguments in batches:
            # Not around the yield: the caller's code would run under our mesh.
            with contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh):
                waiting.append((numbers, self._run(params, *jax.tree.map(self._put, arguments))))
            if len(waiting) >= _IN_FLIGHT:
                numbers, results = waiting.popleft()
                yield numbers, jax.device_get(results)
        for numbers, results in waiting:
            yield numbers, jax.device_get(results)

    def _put(self, array: np.ndarray) -> jax.Array:
        if self._mesh is None:
            return jnp.asarray(array)
        sharding = batch_sharding(self._mesh)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


class Generated(NamedTuple):
    """Results in the order of the examples: N sequences each, T tokens, best (or first) first."""

    tokens: np.ndarray  # [examples, N, T] int32, EOS included, zeros after it
    scores: np.ndarray  # [examples, N] float32


class _Encoded(NamedTuple):
    """Prompts that wait for a slot."""

    prompts: Any
    length: int
    waiting: collections.deque[tuple[int, int]]  # (row, number of the example)


class Decoder:
    """Generates from lists of token sequences; compiles once per bucket, for any parameters.

    A fixed number of slots generate side by side. One whose answer has ended takes the next prompt,
    which was encoded ahead with others of its length; so neither short prompts wait for long ones
    nor short answers for long ones.

    Args:
        model: encodes and steps.
        reorder_fn: (cache, beams [B, N]) -> the cache in which beam n of a row continues
            beams[:, n]; `instruct.models.encoder_decoder.reorder_cache`.
        config: the strategy.
        batching: slots and buckets.
        mesh: where parameters live and slots are split over the data axes; None: one device.
        adjust_fn: (logits [R, V], example ids [R], positions [R]) -> logits, before the strategy
            sees them: for tokens that are not allowed, or not yet.
    """

    def __init__(
        self,
        model: DecodableModel,
        reorder_fn: Callable[[Any, jax.Array], Any],
        config: DecodeConfig,
        batching: BatchConfig | None = None,
        mesh: Mesh | None = None,
        adjust_fn: AdjustFn | None = None,
    ):
        self.config = config
        self._batching = batching or BatchConfig()
        self._multiple = row_multiple(mesh)
        self._programs = SlotPrograms(
            model,
            reorder_fn,
            search_of(config),
            num_columns=config.max_decode_steps,
            reordered=config.strategy == "beam",
            adjust_fn=adjust_fn,
            mesh=mesh,
        )

    def generate(
        self,
        params: Any,
        inputs: Sequence[Sequence[int]],
        example_ids: Sequence[int] | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Generated:
        """Decodes every example.

        Args:
            params: the model's parameters, on the mesh if there is one.
            inputs: token ids of each example, EOS included, at least one token each.
            example_ids: number of each example, 0, 1, ... if not given; samples follow from it.
            progress: called now and then with the number of examples just finished.

        Raises:
            ValueError: an empty input.
        """
        check_not_empty(inputs)
        num, steps = self.config.num_sequences, self.config.max_decode_steps
        found = Generated(
            np.zeros((len(inputs), num, steps), np.int32), np.zeros((len(inputs), num), np.float32)
        )
        if not inputs:
            return found
        ids = np.arange(len(inputs)) if example_ids is None else np.asarray(example_ids)
        num_slots = batch_rows(len(inputs), self._batching.batch_size, self._multiple)
        encoded = self._encoded(params, inputs, num_slots)
        ahead = next(encoded)
        slots = SlotArray(self._programs, params, num_slots, ahead.length)
        # Waiting for several to end saves the host's part of a turn where there are many slots.
        turn = max(1, num_slots // _SLOTS_PER_TURN)
        while True:
            free = int(np.count_nonzero(slots.owners < 0))
            while free and ahead is not None:
                count = min(free, len(ahead.waiting))
                rows, owners = zip(*(ahead.waiting.popleft() for _ in range(count)))
                slots.fill(ahead.prompts, ahead.length, rows, owners, ids)
                free -= count
                if not ahead.waiting:
                    ahead = next(encoded, None)
            if free == num_slots:
                return found
            report = slots.run(num_slots if ahead is None else min(free + turn, num_slots))
            report = Report(*jax.device_get(report))
            ended = np.flatnonzero(report.ended & (slots.owners >= 0))
            numbers = slots.owners[ended]
            found.tokens[numbers] = report.tokens[ended]
            found.scores[numbers] = report.scores[ended]
            slots.owners[ended] = -1
            progress(len(ended))

    def _encoded(self, params, inputs, num_slots: int) -> Iterator[_Encoded]:
        """Prompts by length, the longest first, a quarter of the slots at a time."""
        rows = batch_rows(len(inputs), max(1, num_slots // 4), self._multiple)
        lengths = [len(ids) for ids in inputs]
        for bucket in plan_buckets(lengths, rows, self._batching.max_shapes, self._multiple):
            for numbers in bucket.batches:
                tokens = self._programs.rows(padded_rows(inputs, numbers, bucket.length))
                waiting = [(row, n) for row, n in enumerate(numbers) if n != PADDING_EXAMPLE]
                prompts = self._programs.encode(params, tokens)
                yield _Encoded(prompts, bucket.length, collections.deque(waiting))


def check_not_empty(sequences: Sequence[Sequence[Any]]) -> None:
    """Raises ValueError if a sequence is empty: there would be padding only to attend to."""
    for number, sequence in enumerate(sequences):
        if len(sequence) == 0:
            raise ValueError(f"sequence {number} is empty; it needs EOS at least")
