"""Bucketed batches of token sequences, and `Decoder`, which generates from a list of prompts.

Batches have one of a few lengths (that of their bucket) and a fixed number of rows, so a function
compiles once per bucket. Buckets depend only on the lengths of the list, so the same list is always
computed in the same way, also after a restart.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from instruct.distributed import report_progress
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.search import PADDING, PADDING_EXAMPLE, AdjustFn
from instruct.eval.decoding.slots import (
    Report,
    SlotArray,
    mesh_context,
    put_array,
    slot_programs,
)
from instruct.eval.decoding.weights import check_weights, decoding_params
from instruct.fields import bounded, check_fields
from instruct.mesh import batch_sharding, replicated_sharding
from instruct.model_interface import Model

_SHORTEST = 8
# Fewer buckets are preferred if padded work grows at most by this factor.
_TOLERATED_PADDING = 1.1
# The host refills slots when one in this many has ended.
_SLOTS_PER_TURN = 16
# Batches dispatched to the device before the first result is fetched.
_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """Batching of evaluation: affects speed and memory, not results.

    Attributes:
        batch_size: rows of a batch, or decoding slots; rounded up to a multiple of the data shards.
        max_shapes: most bucket lengths, and so compilations, per list of examples.
    """

    batch_size: int = bounded(32, least=1)
    max_shapes: int = bounded(6, least=1)

    __post_init__ = check_fields


class Bucket(NamedTuple):
    """Batches of one shape, as example numbers; -1 for padding rows."""

    length: int
    batches: np.ndarray  # [number of batches, rows] int32


def rounded_length(length: int) -> int:
    """Rounds up to 8, 12, 16, 24, 32, 48, 64, 96, ...; at most a third is padding."""
    size = _SHORTEST
    while size < length:
        if size * 3 // 2 >= length:
            return size * 3 // 2
        size *= 2
    return size


def plan_buckets(
    lengths: Sequence[int], batch_size: int, max_shapes: int, multiple: int = 1
) -> list[Bucket]:
    """Groups examples by length into batches of few shapes with little padding, longest first.

    Args:
        lengths: tokens of each example.
        batch_size: rows of a batch, rounded up to a multiple of `multiple`.
        max_shapes: most bucket lengths.

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
        # Shorter examples take the place of padding rows.
        members, order = order[: batches * rows], order[batches * rows :]
        if members:
            padded = members + [PADDING_EXAMPLE] * (batches * rows - len(members))
            buckets.append(Bucket(top, np.array(padded, np.int32).reshape(-1, rows)))
    return buckets


def batch_rows(num_examples: int, batch_size: int, multiple: int) -> int:
    """Rows of a batch: `batch_size`, or for few examples the next power of two; then rounded up."""
    rows = min(batch_size, 1 << (num_examples - 1).bit_length())
    return math.ceil(rows / multiple) * multiple


def row_multiple(mesh: Mesh | None) -> int:
    """Number of shards of a batch, which the number of its rows must be a multiple of."""
    if mesh is None:
        return 1
    return mesh.size // batch_sharding(mesh).shard_shape((mesh.size,))[0]


def _bucket_tops(rounded: list[int], rows: int, max_shapes: int) -> list[int]:
    """Bucket lengths, longest first, that minimise padded tokens (dynamic programming)."""
    counts = collections.Counter(rounded)
    tops = sorted(counts)
    below = np.concatenate([[0], np.cumsum([counts[top] for top in tops])])

    def cost(first: int, last: int) -> float:
        return math.ceil((below[last + 1] - below[first]) / rows) * rows * tops[last]

    # best[k][j]: (cost, bucket lengths) of tops[: j + 1] with at most k + 1 buckets.
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
    """Tokens [rows, length] int32 of the numbered sequences, padded with PADDING on the right.

    Padding rows repeat the first row: with real tokens no intermediate value is extreme.
    """
    tokens = np.full((len(rows), length), PADDING, np.int32)
    for row, number in enumerate(rows):
        sequence = sequences[rows[0] if number == PADDING_EXAMPLE else number]
        tokens[row, : len(sequence)] = sequence
    return tokens


class BatchRunner:
    """Runs a compiled function over batches and gathers the results on every host.

    All processes call it with the same batches.
    """

    def __init__(self, function: Callable[..., Any], mesh: Mesh | None = None):
        self._mesh = mesh
        out_shardings = None if mesh is None else replicated_sharding(mesh)
        self._run = jax.jit(function, out_shardings=out_shardings)
        self.row_multiple = row_multiple(mesh)

    def __call__(
        self, params: Any, batches: Iterable[tuple[np.ndarray, tuple]]
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Yields (example numbers, results as NumPy arrays) for each (example numbers, arguments).

        Arguments are arrays, or dicts of arrays, with a leading row axis.
        """
        waiting: collections.deque = collections.deque()
        for numbers, arguments in batches:
            arrays = jax.tree.map(lambda a: put_array(a, self._mesh, batch_sharding), arguments)
            with mesh_context(self._mesh):  # not around the yield, which runs the caller's code
                waiting.append((numbers, self._run(params, *arrays)))
            report_progress()
            if len(waiting) >= _IN_FLIGHT:
                numbers, results = waiting.popleft()
                yield numbers, jax.device_get(results)
        for numbers, results in waiting:
            yield numbers, jax.device_get(results)


class Generated(NamedTuple):
    """Generated sequences in the order of the examples: N each, T tokens; best beam first."""

    tokens: np.ndarray  # [examples, N, T] int32, EOS included, zeros after it
    scores: np.ndarray  # [examples, N] float32


class _Encoded(NamedTuple):
    """A batch of encoded prompts that wait for slots."""

    prompts: Any
    tokens: np.ndarray  # [rows, S] int32
    waiting: collections.deque[tuple[int, int]]  # (row, example number)


class Decoder:
    """Generates from lists of prompts with continuous batching; compiles once per bucket.

    A slot whose answer has ended takes the next prompt, which was encoded ahead with others of its
    length, so short answers and short prompts do not wait for long ones.

    Args:
        model: prompts, cache and decoding step.
        config: the strategy.
        batching: slots and buckets.
        mesh: of the parameters; slots are split over its data axes. None: one device.
        adjust_fn: (logits [R, V], example ids [R], positions [R]) -> logits, before the strategy
            sees them; may forbid tokens.
    """

    def __init__(
        self,
        model: Model,
        config: DecodeConfig,
        batching: BatchConfig | None = None,
        mesh: Mesh | None = None,
        adjust_fn: AdjustFn | None = None,
    ):
        check_weights(config, mesh)
        self.config = config
        self._batching = batching or BatchConfig()
        self._multiple = row_multiple(mesh)
        self._programs = slot_programs(model, config, adjust_fn, mesh)

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
            inputs: token ids of each prompt (`Vocabulary`'s, with EOS for an encoder, with the
                start token for a decoder), at least one each.
            example_ids: number of each example, by default 0, 1, ...; samples depend on it.
            progress: called with the number of examples that have just finished.

        Raises:
            ValueError: an empty input.
        """
        check_not_empty(inputs)
        num, steps = self.config.num_sequences, self.config.max_decode_steps
        tokens = np.zeros((len(inputs), num, steps), np.int32)
        generated = Generated(tokens, np.zeros((len(inputs), num), np.float32))
        if not inputs:
            return generated
        ids = np.arange(len(inputs)) if example_ids is None else np.asarray(example_ids)
        num_slots = batch_rows(len(inputs), self._batching.batch_size, self._multiple)
        params = decoding_params(self._programs.model, params, self.config, self._programs.mesh)
        encoded = self._encoded(params, inputs, num_slots)
        ahead = next(encoded)
        slots = SlotArray(self._programs, params, num_slots, ahead.tokens.shape[1])
        # With many slots, waiting for several to end saves host time.
        turn = max(1, num_slots // _SLOTS_PER_TURN)
        while True:
            free = int(np.count_nonzero(slots.owners < 0))
            while free and ahead is not None:
                count = min(free, len(ahead.waiting))
                rows, owners = zip(*(ahead.waiting.popleft() for _ in range(count)))
                slots.fill(ahead.prompts, ahead.tokens, rows, owners, ids)
                free -= count
                if not ahead.waiting:
                    ahead = next(encoded, None)
            if free == num_slots:
                return generated
            report = slots.run(num_slots if ahead is None else min(free + turn, num_slots))
            report_progress()
            report = Report(*jax.device_get(report))
            ended = np.flatnonzero(report.ended & (slots.owners >= 0))
            numbers = slots.owners[ended]
            generated.tokens[numbers] = report.tokens[ended]
            generated.scores[numbers] = report.scores[ended]
            slots.owners[ended] = -1
            progress(len(ended))

    def _encoded(self, params, inputs, num_slots: int) -> Iterator[_Encoded]:
        """Encodes prompts by length, longest first, a quarter of the slots at a time."""
        rows = batch_rows(len(inputs), max(1, num_slots // 4), self._multiple)
        lengths = [len(ids) for ids in inputs]
        for bucket in plan_buckets(lengths, rows, self._batching.max_shapes, self._multiple):
            for numbers in bucket.batches:
                tokens = padded_rows(inputs, numbers, bucket.length)
                waiting = [(row, n) for row, n in enumerate(numbers) if n != PADDING_EXAMPLE]
                prompts = self._programs.encode(params, self._programs.rows(tokens))
                yield _Encoded(prompts, tokens, collections.deque(waiting))


def check_not_empty(sequences: Sequence[Sequence[Any]]) -> None:
    """Raises ValueError if a sequence is empty: attention would see padding only."""
    for number, sequence in enumerate(sequences):
        if len(sequence) == 0:
            raise ValueError(f"sequence {number} is empty; it needs a token at least")
