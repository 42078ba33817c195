"""KV cache for continuous batching: a fixed number of slots that are refilled with new prompts.

Each slot holds one prompt and K sequences that continue it. At each step all slots write the same
column of their cache, whatever their positions: a relative bias depends on distance only, and a
column's distance is the number of steps since it was written; rotary keys are rotated before they
are written. So slots differ only in how far back they may look (`masks.cache_mask`), a new prompt
needs no clearing, and columns are reused in turn. Reordering beams moves no keys or values either;
it updates which columns each beam reads (`attention.attend_lines`).

Keys are stored transposed, [.., H, S]: 3 to 8 times faster with several queries on CPUs.

The prompt of an encoder-decoder is cross-attention's keys and values. That of a decoder-only model
is its own prefix: all but its last token, which the first step computes again, so that each step
is the same.

With drafts (`eval/decoding/drafts.py`) a step has several tokens of a row, of which some are taken
back, so rows advance by different numbers of tokens. There each row writes the columns of its own
positions, those of tokens taken back once more, and layers with a window keep all columns.

B slots, S source tokens, T columns, N heads of keys, H head dim, K sequences of a slot, M tokens of
a step.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from instruct.mesh import logical_constraint
from instruct.models import masks
from instruct.models.attention import CachePlace, KeyValue


class Prompts(NamedTuple):
    """Encoded prompts, shared by all sequences and steps; a pytree.

    `cross`: keys [B, N, H, S] and values [B, N, S, H]: a `KeyValue` a layer, or with `scan_layers`
    one for each layer of a period, the axis of periods first (`layer_loop.update_layers`). S is
    smaller in layers that keep only a window. `mask` [B, 1, 1, S]. A decoder-only model also has
    `lengths` and the `last` token of each prompt, [B] int32.
    """

    cross: tuple[KeyValue, ...]
    mask: jax.Array
    lengths: jax.Array | None = None
    last: jax.Array | None = None


class DecodeCache(NamedTuple):
    """The slots' prompts, and self-attention's keys and values of each layer; a pytree.

    `memory`, arranged as `Prompts.cross`: values [B * K, N, T, H], or [B, N, T * K, H] if sequences
    are reordered, T being at most the window in layers that have one; `step`: int32 scalar, number
    of the next step, which writes column step mod T; `ancestors` [B, T, K] int32: which sequence
    wrote a sequence's columns, None without reordering.
    """

    memory: tuple[KeyValue, ...]
    prompts: Prompts
    step: jax.Array
    ancestors: jax.Array | None


def new_cache(
    prompts: Prompts,
    num_sequences: int,
    num_columns: int,
    reordered: bool,
    windows: Sequence[int | None] = (None,),
) -> DecodeCache:
    """An empty cache; `windows` of the layers of one period, None: all columns."""

    def by_rows(a: jax.Array) -> jax.Array:
        axes = (*[None] * (a.ndim - 4), "batch", "heads")
        return logical_constraint(a, (*axes, *[None] * (a.ndim - len(axes))))

    def empty(cross: KeyValue, window: int | None) -> KeyValue:
        *layers, rows, heads, _, width = cross.value.shape
        columns = min(num_columns, window or num_columns)
        shape = (rows * num_sequences, heads, columns, width)
        if reordered:
            shape = (rows, heads, columns * num_sequences, width)
        value = jnp.zeros((*layers, *shape), cross.value.dtype)
        return KeyValue(by_rows(value.swapaxes(-1, -2)), by_rows(value))

    ancestors = None
    if reordered:
        rows = prompts.mask.shape[0]
        ancestors = jnp.zeros((rows, num_columns, num_sequences), jnp.int32)
    memory = tuple(map(empty, prompts.cross, itertools.cycle(windows)))
    prompts = prompts._replace(cross=jax.tree.map(by_rows, prompts.cross))
    return DecodeCache(memory, prompts, jnp.int32(0), ancestors)


def token_positions(tokens: jax.Array, positions: jax.Array) -> jax.Array:
    """Positions [B, 1] or [B, M] of a step's tokens [B * K] or [B, M]; `positions` [B]."""
    count = tokens.shape[1] if tokens.ndim == 2 else 1
    return positions[:, None] + jnp.arange(count)


def tokens_by_row(tokens: jax.Array, place: CachePlace) -> jax.Array:
    """A step's tokens [B * K] as queries [R, Q] of the cache's rows; [B, M] are that already."""
    if tokens.ndim == 2:
        return tokens
    return tokens.reshape(-1, 1 if place.line is None else place.line.shape[2])


def next_place(
    cache: DecodeCache, tokens: jax.Array, positions: jax.Array
) -> tuple[DecodeCache, CachePlace]:
    """The cache position of the next step, and the cache for the step after it.

    Args:
        cache: of the previous step.
        tokens: [B * K], or [B, M] with a cache by position.
        positions: [B] int32, of the first token.
    """
    if tokens.ndim == 2:
        columns = jnp.arange(jax.tree.leaves(cache.memory)[0].shape[-1])
        ages = token_positions(tokens, positions)[..., None] - columns
        return cache, CachePlace(None, (ages >= 0)[:, None], None, positions, ages)
    sequences = 1 if cache.ancestors is None else cache.ancestors.shape[2]
    widths = [layer.value.shape[-2] // sequences for layer in cache.memory]
    num_columns = max(widths) if cache.ancestors is None else cache.ancestors.shape[1]
    column = cache.step % num_columns
    ages = masks.cache_ages(column, num_columns)
    visible, line, ancestors = masks.cache_mask(ages, positions), None, cache.ancestors
    if ancestors is None:
        rows = jax.tree.leaves(cache.memory)[0].shape[-4]
        visible = jnp.repeat(visible, rows // positions.shape[0], axis=0)
    else:
        rows, _, sequences = ancestors.shape
        itself = jnp.broadcast_to(jnp.arange(sequences), (rows, 1, sequences))
        ancestors = jax.lax.dynamic_update_slice_in_dim(ancestors, itself, column, axis=1)
        by_sequence = ancestors.swapaxes(1, 2)[:, None, :, :, None]
        line = by_sequence == jnp.arange(sequences)
    place = CachePlace(None, visible, line, column, ages[None, None])
    # Numbers start again where the columns of all layers do.
    step = (cache.step + 1) % math.lcm(num_columns, *widths)
    return cache._replace(step=step, ancestors=ancestors), place


def local_place(place: CachePlace, step: jax.Array, window: int) -> CachePlace:
    """The position of step `step` in the cache of a layer that keeps `window` columns.

    place of 5 columns, step 6    columns of steps 5 6 2 3 4
    window 3                      columns of steps 6 4 5        column 0 is written

    A cache by position has all columns in every layer; those out of the window are masked.
    """
    if place.column.ndim:
        return place._replace(visible=place.visible & (place.ages < window)[:, None])
    num_columns = place.visible.shape[-1]
    if num_columns <= window:
        return place
    ages = masks.cache_ages(step % window, window)
    columns = (place.column - ages) % num_columns
    line = None if place.line is None else place.line[..., columns, :]
    return CachePlace(None, place.visible[..., columns], line, step % window, ages[None, None])


def reorder_cache(cache: DecodeCache, beam_indices: jax.Array) -> DecodeCache:
    """The cache after beam search: beam j of slot b continues beam beam_indices[b, j].

    Args:
        cache: of B prompts times K beams, created with `reordered`.
        beam_indices: [B, K] int32, each in 0..K-1, within the prompt.

    Keys and values stay where they are. T = 2, K = 3, indices [[2, 2, 0]]:

        ancestors    0 0 1    ->    1 1 0
                     0 1 2          2 2 0
    """
    if cache.ancestors is None:
        raise ValueError("this cache cannot be reordered; create it with reordered=True")
    indices = beam_indices[:, None, :]
    moved = jnp.take_along_axis(cache.ancestors, indices, axis=2, mode="clip")
    return cache._replace(ancestors=moved)


def fill_slots(
    cache: DecodeCache, prompts: Prompts, slots: jax.Array, rows: jax.Array, count: jax.Array
) -> DecodeCache:
    """Puts prompt `rows[i]` into slot `slots[i]`, for i below `count`.

    Args:
        cache: of slots for S source tokens.
        prompts: of S or fewer source tokens.
        slots, rows: [M] int32.
        count: int32 scalar.

    Behind a prompt that is shorter than its slot, keys of the previous one remain, masked.
    """
    missing = cache.prompts.mask.shape[-1] - prompts.mask.shape[-1]
    mask = jnp.pad(prompts.mask, [(0, 0)] * 3 + [(0, missing)])
    prompts = prompts._replace(mask=mask)

    def put(i: jax.Array, filled: Prompts) -> Prompts:
        def put_row(whole: jax.Array, new: jax.Array) -> jax.Array:
            axis = max(whole.ndim - 4, 0)  # stacked layers come first
            row = jax.lax.dynamic_slice_in_dim(new, rows[i], 1, axis)
            start = [jnp.int32(0)] * whole.ndim
            start[axis] = slots[i]
            return jax.lax.dynamic_update_slice(whole, row, start)

        return jax.tree.map(put_row, filled, prompts)

    return cache._replace(prompts=jax.lax.fori_loop(0, count, put, cache.prompts))


def narrow(cache: DecodeCache, source_length: int) -> DecodeCache:
    """The cache cut to `source_length` source tokens, which no prompt in it exceeds."""
    cross = tuple(
        KeyValue(layer.key[..., :source_length], layer.value[..., :source_length, :])
        for layer in cache.prompts.cross
    )
    mask = cache.prompts.mask[..., :source_length]
    return cache._replace(prompts=cache.prompts._replace(cross=cross, mask=mask))
