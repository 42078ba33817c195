"""Attention masks, from segment ids, positions and token ids. B rows, S source, T target.

A `SegmentMask` says which keys a query attends to by segment ids, which flash attention reads (but
for windows and prefixes); its dense form is boolean [B, 1, queries, keys], True where the query
attends to the key. A packed row holds several examples, which never attend to each other or to
padding. They are contiguous, so distances in the row are distances in the example.

A query whose mask is all False (padding, or the cross-attention of an example with an empty source)
gets zeros, see `attention.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Far below any logit, far above float32's overflow; T5X's value.
MASKED_LOGIT = -1e10
# Softmax shifts by the largest logit but at least by this, so a row without keys sums to 0.
LOWEST_SHIFT = -1e9


class SegmentMask(NamedTuple):
    """Which keys a query attends to: those of its own segment, 0 being padding."""

    queries: jax.Array | None  # [B, T] int32; None: to all keys but padding
    keys: jax.Array  # [B, S] int32, or [1, S] for all rows
    causal: bool = False  # and only keys at the query's position or before, T = S
    prefix: jax.Array | None = None  # [B, T] boolean: these attend to each other, causal or not
    window: int | None = None  # and only keys less than `window` positions away, T = S

    def segments(self, rows: int, num_queries: int) -> tuple[jax.Array, jax.Array]:
        """Segments of queries [rows, num_queries] and of keys [rows, S]."""
        queries, keys = self.queries, self.keys
        if queries is None:
            queries, keys = jnp.int32(1), (keys != 0).astype(jnp.int32)
        return (
            jnp.broadcast_to(queries, (rows, num_queries)),
            jnp.broadcast_to(keys, (rows, keys.shape[1])),
        )

    def dense(self) -> jax.Array:
        """Boolean [B, 1, T, S], an axis that does not matter being 1."""
        mask = (self.keys != 0)[:, None, None, :]
        if self.queries is not None:
            mask = mask & (self.queries[:, None, :, None] == self.keys[:, None, None, :])
        order = jnp.arange(self.keys.shape[1])
        distance = order[:, None] - order[None, :]
        if self.causal:
            visible = distance >= 0
            if self.prefix is not None:
                visible = visible | (self.prefix[:, None, :, None] & self.prefix[:, None, None, :])
            mask = mask & visible
        if self.window is not None:
            mask = mask & (jnp.abs(distance) < self.window)
        return mask


def source_segments(tokens: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """[B, S] int32: segment of each source token, 0 for padding.

    Without segment ids every row is one example, and id 0 is padding:

        tokens    7 8 1 0        segments    1 1 1 0
    """
    return (tokens != 0).astype(jnp.int32) if segment_ids is None else segment_ids


def source_mask(segments: jax.Array) -> SegmentMask:
    """Source tokens attend to their own example.

    segments 1 1 2 0     1 1 0 0
                         1 1 0 0
                         0 0 1 0
                         0 0 0 0
    """
    return SegmentMask(segments, segments)


def target_mask(num_tokens: int, segment_ids: jax.Array | None) -> SegmentMask:
    """Causal within each example.

    Unpacked rows need no padding mask: padding comes last, where no real token attends.

    segments 1 1 2 0     1 0 0 0
                         1 1 0 0
                         0 0 1 0
                         0 0 0 0
    """
    if segment_ids is None:
        return SegmentMask(None, jnp.ones((1, num_tokens), jnp.int32), causal=True)
    return SegmentMask(segment_ids, segment_ids, causal=True)


def prefix_mask(segments: jax.Array, prefix: jax.Array | None, window: int | None) -> SegmentMask:
    """Causal within each example, but for its prefix [B, T], which attends to itself.

    segments 1 1 1 2 0, prefix 1 1 0 0 0     1 1 0 0 0
                                             1 1 0 0 0
                                             1 1 1 0 0     (window 2: 0 1 1 0 0)
                                             0 0 0 1 0
                                             0 0 0 0 0

    `prefix` None: all is causal. `window`: tokens that a query attends to, itself included, and in
    a prefix as many on the other side; None: all.
    """
    return SegmentMask(segments, segments, True, prefix, window)


def around_mask(segments: jax.Array, behind: int, ahead: int) -> jax.Array:
    """Dense `source_mask` of tokens at most so far behind a query and ahead of it.

    segments 1 1 1 1, behind 1, ahead 2     1 1 1 0
                                            1 1 1 1
                                            0 1 1 1
                                            0 0 1 1
    """
    order = jnp.arange(segments.shape[1])
    distance = order[None, :] - order[:, None]
    return source_mask(segments).dense() & (distance >= -behind) & (distance <= ahead)


def cross_mask(source: jax.Array, target_segment_ids: jax.Array | None) -> SegmentMask:
    """Targets attend to their source; without target segments, to all of the row's.

    source segments [B, S] 1 1 2 0, target segments [B, T] 1 2 2     1 1 0 0
                                                                     0 0 1 0
                                                                     0 0 1 0
    """
    return SegmentMask(target_segment_ids, source)


def cache_ages(column: jax.Array, num_columns: int) -> jax.Array:
    """[T] int32: steps since each column of a decoding cache was written.

    Columns are written in turn, cyclically, `column` in this step.

    column 1 of 4    1 0 3 2
    """
    return (column - jnp.arange(num_columns)) % num_columns


def cache_mask(ages: jax.Array, positions: jax.Array) -> jax.Array:
    """[B, 1, 1, T]: columns that hold tokens of a row's current sequence.

    ages 1 0 3 2, positions 0 2    0 1 0 0
                                   1 1 0 1
    """
    return (ages[None, :] <= positions[:, None])[:, None, None]


def prompt_mask(lengths: jax.Array, num_columns: int) -> jax.Array:
    """[B, 1, 1, S]: columns of decoder-only prompts, but for the last token, which is in the cache.

    length 5, 6 columns    1 1 1 1 0 0
    """
    return (jnp.arange(num_columns) < lengths[:, None] - 1)[:, None, None]


def prompt_window_mask(
    lengths: jax.Array, positions: jax.Array, num_columns: int, window: int
) -> jax.Array:
    """`prompt_mask` of a local layer, [B, 1, M, S], for tokens at `positions` [B, M].

    Columns are the last `window` tokens of the prompt, or all (`prompt_start`).

    length 5, position 1, window 3: tokens 3, 4 and 5 are visible, of which the prompt has 3

    columns are tokens 2 3 4    0 1 0
    """
    token = jnp.arange(num_columns) + prompt_start(lengths, window)[:, None]
    query = (lengths[:, None] - 1 + positions)[..., None]
    visible = (token < lengths[:, None] - 1)[:, None] & (query - token[:, None] < window)
    return visible[:, None]


def prompt_start(lengths: jax.Array, window: int) -> jax.Array:
    """[B]: the first token of each prompt that a local layer keeps."""
    return jnp.maximum(lengths - window, 0)
