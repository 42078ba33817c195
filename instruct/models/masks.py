"""Attention masks, from segment ids and token ids. B rows, S source, T target.

A mask is boolean [B, 1, queries, keys], True where the query attends to the key. A packed row holds
several examples, which never attend to each other or to padding. They are contiguous, so distances
in the row are distances in the example.

A query whose mask is all False (padding, or the cross-attention of an example with an empty source)
gets zeros, see `attention.py`.
"""

import jax
import jax.numpy as jnp


def source_segments(tokens: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """[B, S] int32: segment of each source token, 0 for padding.

    Without segment ids every row is one example, and id 0 is padding:

        tokens    7 8 1 0        segments    1 1 1 0
    """
    return (tokens != 0).astype(jnp.int32) if segment_ids is None else segment_ids


def source_mask(segments: jax.Array) -> jax.Array:
    """[B, 1, S, S]: source tokens attend to their own example.

    segments 1 1 2 0     1 1 0 0
                         1 1 0 0
                         0 0 1 0
                         0 0 0 0
    """
    same = segments[:, :, None] == segments[:, None, :]
    return (same & (segments[:, None, :] != 0))[:, None]


def target_mask(num_tokens: int, segment_ids: jax.Array | None) -> jax.Array:
    """[B, 1, T, T] ([1, 1, T, T] without segment ids): causal within each example.

    Unpacked rows need no padding mask: padding comes last, where no real token attends.

    segments 1 1 2 0     1 0 0 0
                         1 1 0 0
                         0 0 1 0
                         0 0 0 0
    """
    order = jnp.arange(num_tokens)
    causal = (order[:, None] >= order[None, :])[None, None]
    return causal if segment_ids is None else causal & source_mask(segment_ids)


def cross_mask(source: jax.Array, target_segment_ids: jax.Array | None) -> jax.Array:
    """[B, 1, T, S] ([B, 1, 1, S] without target segments): targets attend to their source.

    source segments [B, S] 1 1 2 0, target segments [B, T] 1 2 2     1 1 0 0
                                                                     0 0 1 0
                                                                     0 0 1 0
    """
    real = (source != 0)[:, None, None, :]
    if target_segment_ids is None:
        return real
    return real & (target_segment_ids[:, None, :, None] == source[:, None, None, :])


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
