"""Flash attention on TPUs with T5's relative position bias, in Pallas (Mosaic).

The logits of a row never leave the chip's vector memory: forward and backward work on blocks of
keys x queries, with a running maximum and sum, and the backward pass recomputes the weights from
the saved log-sum-exp (Dao 2022, 2023). JAX's own TPU kernel (`jax.experimental.pallas.ops.tpu`)
reads a bias [B, N, T, S] and returns its gradient in the same shape, as large as the logits that it
avoids; tokamax's refuses a bias. T5's bias depends on the distance alone, so here

- a kernel reads [N, 2P] numbers, expands them to one tile a diagonal of blocks in vector memory
  once a head, and reads the tile of every block from there;
- the bias's gradient adds up in such tiles over the blocks and the rows of the batch, which are
  sequential for a head, and is folded to [N, 2P] at the head's end.

Blocks without a pair of query and key in one segment are skipped, so a packed row costs about its
examples' own squares. Logits, softmax and sums are float32 for any type; products take operands of
the given type. Blocks hold keys x queries, so the statistics of the queries are rows of lanes.
B rows, T queries, S keys, N heads, H head dim, P self-attention length padded to blocks.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from instruct.errors import UserError
from instruct.models.masks import LOWEST_SHIFT, MASKED_LOGIT, SegmentMask

LANES = 128
SUBLANES = 8
BLOCKS = (512, 256, 128)
# Most padding that a larger block may add, as a share of the length.
_MOST_PADDING = 1 / 8
# Bytes of bias tiles and of their gradient in vector memory: wanted, and at most.
_TILE_BYTES = 12 * 2**20
_MOST_TILE_BYTES = 28 * 2**20
# Above the compilers' default of 16 MiB (v5e) and 32 MiB (v6e); v5p has 64 MiB a core.
_VMEM_BYTES = 40 * 2**20


def block_size(length: int, biased: bool) -> int:
    """Tokens of a block: the largest that adds little padding and whose bias tiles fit.

    Raises:
        UserError: with a bias, the smallest block's tiles do not fit.
    """
    least = pl.cdiv(length, LANES) * LANES
    for block in BLOCKS[:-1]:
        padded = pl.cdiv(length, block) * block
        fits = not biased or _tile_bytes(padded, block) <= _TILE_BYTES
        if padded <= least * (1 + _MOST_PADDING) and fits:
            return block
    if biased and _tile_bytes(least, LANES) > _MOST_TILE_BYTES:
        longest = _MOST_TILE_BYTES // _tile_bytes(LANES, LANES) * LANES
        raise UserError(
            f"ModelConfig.attention = 'flash' takes rows of at most {longest} tokens, not "
            f"{length} tokens. Shorten the rows, or set ModelConfig.attention = 'einsum'."
        )
    return BLOCKS[-1]


def _tile_bytes(padded: int, block: int) -> int:
    """Bytes of about 2 padded / block tiles in bfloat16, and in float32 for their gradient."""
    return 2 * padded * block * 6


def padded_length(length: int) -> int:
    """P: a self-attention's length, padded to whole blocks."""
    block = block_size(length, biased=True)
    return pl.cdiv(length, block) * block


class Kernel(NamedTuple):
    """What a kernel is specialised for."""

    query_block: int
    key_block: int
    causal: bool
    interpret: bool


def flash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None,
    mask: SegmentMask,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Weighted sums of `value`, [B, N, T, H]; zeros for a query without keys.

    Args:
        query: [B, N, T, H].
        key: [B, N, S, H].
        value: [B, N, S, H].
        bias: [N, 2P] added to the logits by distance, key minus query position from -P to P - 1,
            P = `padded_length(T)`; T = S. Or None.
        mask: segments of queries and keys.
        interpret: runs on a CPU, for tests.
    """
    queries, keys = query.shape[2], key.shape[2]
    kernel = Kernel(
        block_size(queries, bias is not None),
        block_size(keys, bias is not None),
        mask.causal,
        interpret,
    )
    windows = None
    if bias is not None:
        if queries != keys or bias.shape[1] != 2 * padded_length(keys):
            raise ValueError(f"bias {bias.shape} does not fit {queries} queries and {keys} keys")
        windows = _windows(bias.astype(jnp.float32), kernel.key_block)
    query_segments, key_segments = mask.segments(query.shape[0], queries)
    query = _pad(query, 2, kernel.query_block)
    key, value = _pad(key, 2, kernel.key_block), _pad(value, 2, kernel.key_block)
    query_segments = _pad(query_segments, 1, kernel.query_block)
    key_segments = _pad(key_segments, 1, kernel.key_block)
    attended: Any = _attend(kernel, query, key, value, windows, query_segments, key_segments)
    return attended[:, :, :queries]


def _pad(x: jax.Array, axis: int, block: int) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % block)
    return jnp.pad(x, widths)


def _windows(bias: jax.Array, block: int) -> jax.Array:
    """[N, 2P] by distance -> [N, 2P / block - 1, 2 block], a window for each diagonal of blocks.

    Window d holds the distances of the blocks whose key block minus query block is
    d - (P / block - 1), from the largest to the smallest: the order that `_expand` rolls.
    """
    chunks = bias.reshape(bias.shape[0], -1, block)
    return jnp.flip(jnp.concatenate([chunks[:, :-1], chunks[:, 1:]], axis=-1), axis=-1)


def _expand(window: jax.Array, block: int) -> jax.Array:
    """Window [1, 2 block] -> tile [block, block]; row j, column i is the bias of distance j - i.

    Row j is the window rolled by j + 1: eight rows by the bits of j, then by doubling.
    """
    rolled = pltpu.roll(jnp.broadcast_to(window, (SUBLANES, 2 * block)), 1, 1)
    row = jax.lax.broadcasted_iota(jnp.int32, rolled.shape, 0)
    for bit in (1, 2, 4):
        rolled = jnp.where(row & bit != 0, pltpu.roll(rolled, bit, 1), rolled)
    while rolled.shape[0] < block:
        rolled = jnp.concatenate([rolled, pltpu.roll(rolled, rolled.shape[0], 1)], axis=0)
    return rolled[:, block:]


def _fold(tile: jax.Array, block: int) -> jax.Array:
    """The transpose of `_expand`: tile [block, block] -> window [1, 2 block], sums of diagonals."""
    rolled = jnp.concatenate([jnp.zeros_like(tile), tile], axis=1)
    while rolled.shape[0] > SUBLANES:
        half = rolled.shape[0] // 2
        rolled = rolled[:half] + pltpu.roll(rolled[half:], 2 * block - half, 1)
    row = jax.lax.broadcasted_iota(jnp.int32, rolled.shape, 0)
    for bit in (1, 2, 4):
        rolled = jnp.where(row & bit != 0, pltpu.roll(rolled, 2 * block - bit, 1), rolled)
    return pltpu.roll(jnp.sum(rolled, axis=0, keepdims=True), 2 * block - 1, 1)


def _expand_all(window, tiles) -> None:
    """Writes the tile of every window [1, diagonals, 2 block] of a head."""

    @pl.loop(0, tiles.shape[0])
    def _(diagonal):
        tile = _expand(window[0, pl.ds(diagonal, 1), :], tiles.shape[1])
        tiles[diagonal] = tile.astype(tiles.dtype)


def _fold_all(tiles, window) -> None:
    """Writes the window of every tile."""

    @pl.loop(0, tiles.shape[0])
    def _(diagonal):
        window[0, pl.ds(diagonal, 1), :] = _fold(tiles[diagonal], tiles.shape[1])


def _meeting_blocks(kernel: Kernel, query_segments: jax.Array, key_segments: jax.Array):
    """[B, T / query_block, S / key_block] int32: 1 where a query may see a key, else 0.

    By the range of each block's segments, which is exact for a packed row, whose segments are
    contiguous and numbered upwards.
    """

    def ranges(segments, block):
        blocks = segments.reshape(segments.shape[0], -1, block)
        lowest = jnp.where(blocks == 0, jnp.iinfo(jnp.int32).max, blocks).min(axis=-1)
        return lowest, blocks.max(axis=-1)

    query_low, query_high = ranges(query_segments, kernel.query_block)
    key_low, key_high = ranges(key_segments, kernel.key_block)
    meet = (query_low[:, :, None] <= key_high[:, None, :]) & (
        key_low[:, None, :] <= query_high[:, :, None]
    )
    if kernel.causal:
        last_query = (jnp.arange(query_low.shape[1]) + 1) * kernel.query_block - 1
        first_key = jnp.arange(key_low.shape[1]) * kernel.key_block
        meet = meet & (first_key[None, :] <= last_query[:, None])
    return meet.astype(jnp.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(kernel, query, key, value, windows, query_segments, key_segments):
    return _forward(kernel, query, key, value, windows, query_segments, key_segments)[0]


def _attend_forward(kernel, query, key, value, windows, query_segments, key_segments):
    attended, log_sums = _forward(kernel, query, key, value, windows, query_segments, key_segments)
    saved = (query, key, value, windows, query_segments, key_segments, attended, log_sums)
    return attended, saved


def _attend_backward(kernel, saved, gradient):
    query, key, value, windows, query_segments, key_segments, attended, log_sums = saved
    # Sum over keys of weight times the weight's gradient, of each query.
    means = jnp.sum(attended.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1)
    gradients = _backward(
        kernel,
        query,
        key,
        value,
        windows,
        query_segments,
        key_segments,
        gradient,
        log_sums,
        means[:, :, None, :],
    )
    return (*gradients, None, None)


_attend.defvjp(_attend_forward, _attend_backward)


class _Grid(NamedTuple):
    """Shapes and block specifications that both kernels share; grid axes head, row, then blocks."""

    rows: int
    heads: int
    query_blocks: int
    key_blocks: int
    diagonals: int
    head_dim: int
    kernel: Kernel
    keys_outer: bool  # the backward kernel's order of the last two grid axes

    def positions(self, outer, inner):
        """(query block, key block) of the last two grid indices."""
        return (inner, outer) if self.keys_outer else (outer, inner)

    def queries(self, width: int) -> pl.BlockSpec:
        """Blocks of an array [B, N, T, width]."""
        return pl.BlockSpec(
            (1, 1, self.kernel.query_block, width),
            lambda n, b, i, j, _: (b, n, self.positions(i, j)[0], 0),
        )

    def keys(self) -> pl.BlockSpec:
        """Blocks of an array [B, N, S, H]."""
        return pl.BlockSpec(
            (1, 1, self.kernel.key_block, self.head_dim),
            lambda n, b, i, j, _: (b, n, self.positions(i, j)[1], 0),
        )

    def statistics(self) -> pl.BlockSpec:
        """Blocks of an array [B, N, 1, T]."""
        return pl.BlockSpec(
            (1, 1, 1, self.kernel.query_block),
            lambda n, b, i, j, _: (b, n, 0, self.positions(i, j)[0]),
        )

    def segments(self) -> list[pl.BlockSpec]:
        """Blocks of the queries' segments [B, 1, T] and the keys' [B, S, LANES]."""
        return [
            pl.BlockSpec(
                (1, 1, self.kernel.query_block),
                lambda n, b, i, j, _: (b, 0, self.positions(i, j)[0]),
            ),
            pl.BlockSpec(
                (1, self.kernel.key_block, LANES),
                lambda n, b, i, j, _: (b, self.positions(i, j)[1], 0),
            ),
        ]

    def windows(self) -> pl.BlockSpec:
        """All windows of a head, of an array [N, diagonals, 2 block]."""
        return pl.BlockSpec(
            (1, self.diagonals, 2 * self.kernel.key_block), lambda n, b, i, j, _: (n, 0, 0)
        )

    def tiles(self, dtype: Any):
        """Scratch memory of a head's tiles."""
        return pltpu.VMEM((self.diagonals, self.kernel.key_block, self.kernel.key_block), dtype)

    def call(self, body, name, products, in_specs, out_specs, out_shape, scratch, *arrays):
        """Runs `body` over the grid; the first array is the scalars of `_meeting_blocks`.

        `products`: matrix products of a block, for XLA's scheduler.
        """
        outer, inner = self.positions(self.query_blocks, self.key_blocks)
        blocks = self.rows * self.heads * self.query_blocks * self.key_blocks
        pairs = blocks * self.kernel.query_block * self.kernel.key_block
        return pl.pallas_call(
            body,
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=1,
                grid=(self.heads, self.rows, outer, inner),
                in_specs=in_specs,
                out_specs=out_specs,
                scratch_shapes=scratch,
            ),
            out_shape=out_shape,
            name=name,
            cost_estimate=pl.CostEstimate(
                flops=2 * products * pairs * self.head_dim,
                transcendentals=pairs,
                bytes_accessed=sum(x.size * x.dtype.itemsize for x in (*arrays, *out_shape)),
            ),
            interpret=self.kernel.interpret,
            compiler_params=pltpu.CompilerParams(
                # Rows are sequential because tiles and their gradient live for a head.
                dimension_semantics=("parallel", "arbitrary", "arbitrary", "arbitrary"),
                vmem_limit_bytes=_VMEM_BYTES,
            ),
        )(*arrays)


def _grid(kernel: Kernel, query, key, windows, keys_outer: bool) -> _Grid:
    rows, heads, queries, head_dim = query.shape
    return _Grid(
        rows,
        heads,
        queries // kernel.query_block,
        key.shape[2] // kernel.key_block,
        0 if windows is None else windows.shape[1],
        head_dim,
        kernel,
        keys_outer,
    )


def _segment_arrays(query_segments: jax.Array, key_segments: jax.Array) -> list[jax.Array]:
    """Segments in the kernels' layouts; padding keys get an id that no query has."""
    keys = jnp.where(key_segments == 0, -1, key_segments)
    return [
        query_segments[:, None, :],
        jnp.broadcast_to(keys[:, :, None], (*keys.shape, LANES)),
    ]


def _dot(left: jax.Array, right: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Product in float32, summed over an axis of each operand."""
    # A TPU's default would round float32 operands to bfloat16.
    precision = jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        left,
        right,
        (((axes[0],), (axes[1],)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def _logits(grid: _Grid, query, key, tiles, query_segments, key_segments, query_block, key_block):
    """Masked logits [key_block, query_block] float32 of one pair of blocks."""
    logits = _dot(key, query, (1, 1))
    if tiles is not None:
        logits += tiles[key_block - query_block + grid.query_blocks - 1].astype(jnp.float32)
    visible = jnp.tile(key_segments, (1, logits.shape[1] // LANES)) == query_segments
    if grid.kernel.causal:
        key_position = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 0)
        query_position = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
        distance = key_block * logits.shape[0] - query_block * logits.shape[1]
        visible &= key_position + distance <= query_position
    return jnp.where(visible, logits, MASKED_LOGIT)


def _clear(total) -> None:
    total[...] = jnp.zeros_like(total)


def _first_step() -> jax.Array:
    """Whether a head starts."""
    return (pl.program_id(1) == 0) & (pl.program_id(2) == 0) & (pl.program_id(3) == 0)


def _forward(kernel, query, key, value, windows, query_segments, key_segments):
    """`_attend`'s result, and the logarithms [B, N, 1, T] float32 of the sums of exponentials."""
    grid = _grid(kernel, query, key, windows, keys_outer=False)
    biased = windows is not None

    def body(meeting, query, key, value, query_segments, key_segments, *refs):
        window, *refs = refs if biased else (None, *refs)
        attended, log_sums, total, highest, summed, *refs = refs
        (tiles,) = refs or (None,)
        row, query_block, key_block = (pl.program_id(axis) for axis in (1, 2, 3))

        if tiles is not None:
            pl.when(_first_step())(functools.partial(_expand_all, window, tiles))

        @pl.when(key_block == 0)
        def _():
            highest[...] = jnp.full_like(highest, LOWEST_SHIFT)
            _clear(summed)
            _clear(total)

        @pl.when(meeting[row, query_block, key_block] != 0)
        def _():
            logits = _logits(
                grid,
                query[0, 0],
                key[0, 0],
                tiles,
                query_segments[0],
                key_segments[0],
                query_block,
                key_block,
            )
            shift = jnp.maximum(highest[...], jnp.max(logits, axis=0, keepdims=True))
            weights = jnp.exp(logits - shift)
            shrink = jnp.exp(highest[...] - shift)
            summed[...] = summed[...] * shrink + jnp.sum(weights, axis=0, keepdims=True)
            product = _dot(value[0, 0], weights.astype(value.dtype), (0, 0))
            total[...] = total[...] * shrink + product
            highest[...] = shift

        @pl.when(key_block == grid.key_blocks - 1)
        def _():
            # A query with any key has a sum of at least 1, one without has 0.
            divisor = jnp.maximum(summed[...], 1.0)
            attended[0, 0] = (total[...] / divisor).T.astype(attended.dtype)
            log_sums[0, 0] = highest[...] + jnp.log(divisor)

    in_specs = [grid.queries(grid.head_dim), grid.keys(), grid.keys(), *grid.segments()]
    arrays = [query, key, value, *_segment_arrays(query_segments, key_segments)]
    scratch = [
        pltpu.VMEM((grid.head_dim, kernel.query_block), jnp.float32),
        pltpu.VMEM((1, kernel.query_block), jnp.float32),
        pltpu.VMEM((1, kernel.query_block), jnp.float32),
    ]
    if biased:
        in_specs.append(grid.windows())
        arrays.append(windows)
        scratch.append(grid.tiles(query.dtype))
    return grid.call(
        body,
        "flash_forward",
        2,
        in_specs,
        [grid.queries(grid.head_dim), grid.statistics()],
        [
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((grid.rows, grid.heads, 1, query.shape[2]), jnp.float32),
        ],
        scratch,
        _meeting_blocks(kernel, query_segments, key_segments),
        *arrays,
    )


def _backward(
    kernel,
    query,
    key,
    value,
    windows,
    query_segments,
    key_segments,
    gradient,
    log_sums,
    means,
):
    """Gradients of query, key, value and windows (float32, or None).

    One pass over blocks, keys outermost: the gradients of keys and values add up over the query
    blocks, those of all queries of a row and head in scratch memory [T / query_block, H, block].
    """
    grid = _grid(kernel, query, key, windows, keys_outer=True)
    biased = windows is not None

    def body(meeting, query, key, value, query_segments, key_segments, *refs):
        gradient, log_sums, means, *refs = refs
        window, *refs = refs if biased else (None, *refs)
        query_gradient, key_gradient, value_gradient, *refs = refs
        window_gradient, *refs = refs if biased else (None, *refs)
        query_total, key_total, value_total, *refs = refs
        tiles, tile_totals = refs or (None, None)
        row, key_block, query_block = (pl.program_id(axis) for axis in (1, 2, 3))
        last_query = query_block == grid.query_blocks - 1
        last_block = last_query & (key_block == grid.key_blocks - 1)

        if tiles is not None:
            pl.when(_first_step())(functools.partial(_expand_all, window, tiles))
            pl.when(_first_step())(functools.partial(_clear, tile_totals))

        @pl.when(key_block == 0)
        def _():
            _clear(query_total.at[query_block])

        @pl.when(query_block == 0)
        def _():
            _clear(key_total)
            _clear(value_total)

        @pl.when(meeting[row, query_block, key_block] != 0)
        def _():
            dtype = query.dtype
            logits = _logits(
                grid,
                query[0, 0],
                key[0, 0],
                tiles,
                query_segments[0],
                key_segments[0],
                query_block,
                key_block,
            )
            weights = jnp.exp(logits - log_sums[0, 0])
            value_total[...] += _dot(weights.astype(dtype), gradient[0, 0], (1, 0))
            weight_gradient = _dot(value[0, 0], gradient[0, 0], (1, 1))
            logit_gradient = weights * (weight_gradient - means[0, 0])
            if tile_totals is not None:
                diagonal = key_block - query_block + grid.query_blocks - 1
                tile_totals[diagonal] += logit_gradient
            logit_gradient = logit_gradient.astype(dtype)
            key_total[...] += _dot(logit_gradient, query[0, 0], (1, 0))
            query_total[query_block] += _dot(key[0, 0], logit_gradient, (0, 0))

        @pl.when(last_query)
        def _():
            key_gradient[0, 0] = key_total[...].astype(key_gradient.dtype)
            value_gradient[0, 0] = value_total[...].astype(value_gradient.dtype)

        @pl.when(last_block)
        def _():
            @pl.loop(0, grid.query_blocks)
            def _(block):
                rows = pl.ds(block * kernel.query_block, kernel.query_block)
                query_gradient[0, 0, rows, :] = query_total[block].T.astype(query_gradient.dtype)

        if tiles is not None:
            last_step = last_block & (row == grid.rows - 1)
            pl.when(last_step)(functools.partial(_fold_all, tile_totals, window_gradient))

    in_specs = [
        grid.queries(grid.head_dim),
        grid.keys(),
        grid.keys(),
        *grid.segments(),
        grid.queries(grid.head_dim),
        grid.statistics(),
        grid.statistics(),
    ]
    arrays = [query, key, value, *_segment_arrays(query_segments, key_segments)]
    arrays += [gradient, log_sums, means]
    all_queries = pl.BlockSpec(
        (1, 1, query.shape[2], grid.head_dim), lambda n, b, i, j, _: (b, n, 0, 0)
    )
    out_specs = [all_queries, grid.keys(), grid.keys()]
    out_shape = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query, key, value)]
    scratch = [
        pltpu.VMEM((grid.query_blocks, grid.head_dim, kernel.query_block), jnp.float32),
        pltpu.VMEM((kernel.key_block, grid.head_dim), jnp.float32),
        pltpu.VMEM((kernel.key_block, grid.head_dim), jnp.float32),
    ]
    if biased:
        in_specs.append(grid.windows())
        arrays.append(windows)
        out_specs.append(grid.windows())
        out_shape.append(jax.ShapeDtypeStruct(windows.shape, jnp.float32))
        scratch += [grid.tiles(query.dtype), grid.tiles(jnp.float32)]
    gradients = grid.call(
        body,
        "flash_backward",
        5,
        in_specs,
        out_specs,
        out_shape,
        scratch,
        _meeting_blocks(kernel, query_segments, key_segments),
        *arrays,
    )
    return tuple(gradients) if biased else (*gradients, None)
