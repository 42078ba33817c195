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
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from instruct.errors import UserError
from instruct.eval.decode import PADDING_EXAMPLE, DecodeConfig, decode
from instruct.mesh import batch_sharding, replicated_sharding

_SHORTEST = 8
# Fewer buckets are preferred as long as they cost at most this much more padded work.
_TOLERATED_PADDING = 1.1
# Batches handed to the device before the results of the first are awaited.
_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """How evaluation examples are grouped; speed and memory only, never results.

    Attributes:
        batch_size: rows of a batch, rounded up to what the mesh's data axes divide.
        max_shapes: most bucket lengths, and so compilations, per list of examples.
    """

    batch_size: int = 32
    max_shapes: int = 4

    def __post_init__(self):
        for name in ("batch_size", "max_shapes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(
                    f"BatchConfig.{name} = {value!r}, must be a whole number of at least 1"
                )


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

    A list shorter than a batch gets smaller batches (a power of two rows), so that one prompt does
    not cost a full batch.

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
    rows = min(batch_size, 1 << (len(lengths) - 1).bit_length())
    rows = math.ceil(rows / multiple) * multiple
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
        """Rows of a batch must be a multiple of this: the number of shards of the batch."""
        if self._mesh is None:
            return 1
        return self._mesh.size // batch_sharding(self._mesh).shard_shape((self._mesh.size,))[0]

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


class DecodableModel(Protocol):
    """What decoding needs of a model; `instruct.models.encoder_decoder.EncoderDecoder` has it."""

    def encode(self, params: Any, tokens: jax.Array, /) -> tuple[jax.Array, jax.Array]:
        """Tokens [B, S] -> (encoded [B, S, D], mask [B, S])."""
        ...

    def init_cache(
        self,
        params: Any,
        encoded: jax.Array,
        encoded_mask: jax.Array,
        num_beams: int,
        max_decode_steps: int,
    ) -> Any:
        """The cache of a decode: per row once what beams share, per beam what they do not."""
        ...

    def decode_step(
        self, params: Any, cache: Any, tokens: jax.Array, position: jax.Array
    ) -> tuple[jax.Array, Any]:
        """Tokens [B * N], position scalar -> (logits [B * N, V], cache)."""
        ...


class Generated(NamedTuple):
    """Results in the order of the examples: N sequences each, T tokens, best (or first) first."""

    tokens: np.ndarray  # [examples, N, T] int32, EOS included, zeros after it
    scores: np.ndarray  # [examples, N] float32


class Decoder:
    """Generates from lists of token sequences; compiles once per bucket, for any parameters.

    Args:
        model: encodes and steps.
        reorder_fn: (cache, beams [B, N]) -> the cache in which beam n of a row continues
            beams[:, n]; `instruct.models.encoder_decoder.reorder_cache`.
        config: the strategy.
        batching: rows and buckets.
        mesh: where parameters live and batches are split over the data axes; None: one device.
    """

    def __init__(
        self,
        model: DecodableModel,
        reorder_fn: Callable[[Any, jax.Array], Any],
        config: DecodeConfig,
        batching: BatchConfig | None = None,
        mesh: Mesh | None = None,
    ):
        self.config = config
        self._batching = batching or BatchConfig()
        self._runner = BatchRunner(self._decode_batch, mesh)
        self._model = model
        self._reorder_fn = reorder_fn

    def _decode_batch(self, params, tokens, example_ids):
        encoded, mask = self._model.encode(params, tokens)
        cache = self._model.init_cache(
            params, encoded, mask, self.config.num_sequences, self.config.max_decode_steps
        )
        decoded = decode(
            lambda cache, last, position: self._model.decode_step(params, cache, last, position),
            self._reorder_fn,
            cache,
            example_ids,
            self.config,
        )
        return decoded.tokens, decoded.scores

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
            progress: called after each batch with the number of examples just finished.

        Raises:
            ValueError: an empty input.
        """
        check_not_empty(inputs)
        num, steps = self.config.num_sequences, self.config.max_decode_steps
        found = Generated(
            np.zeros((len(inputs), num, steps), np.int32), np.zeros((len(inputs), num), np.float32)
        )
        ids = np.arange(len(inputs)) if example_ids is None else np.asarray(example_ids)
        plan = plan_buckets(
            [len(ids) for ids in inputs],
            self._batching.batch_size,
            self._batching.max_shapes,
            self._runner.row_multiple,
        )
        batches = (
            (
                numbers,
                (
                    padded_rows(inputs, numbers, bucket.length),
                    np.where(numbers < 0, PADDING_EXAMPLE, ids[numbers]).astype(np.int32),
                ),
            )
            for bucket in plan
            for numbers in bucket.batches
        )
        for numbers, (tokens, scores) in self._runner(params, batches):
            real = numbers != PADDING_EXAMPLE
            found.tokens[numbers[real]] = tokens[real]
            found.scores[numbers[real]] = scores[real]
            progress(int(real.sum()))
        return found


def check_not_empty(sequences: Sequence[Sequence[Any]]) -> None:
    """Raises ValueError if a sequence is empty: there would be padding only to attend to."""
    for number, sequence in enumerate(sequences):
        if len(sequence) == 0:
            raise ValueError(f"sequence {number} is empty; it needs EOS at least")
