"""The decoding loop of all strategies; every row has its own position.

The state of a strategy is a tree of arrays with a leading row axis. An ended row is frozen while
others continue, and may be replaced between two runs of the loop, so results of a row depend
neither on when it started nor on its neighbours.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

PADDING = -1  # of prompts: below every id, as token 0 is text in some vocabularies
PADDING_EXAMPLE = -1
NO_LIMIT = 2**31 - 1
_BLOCK = 128  # width of the blocks whose maxima `largest` compares first


class Search(Protocol):
    """A decoding strategy: B rows, N sequences per row, T tokens at most, V vocabulary.

    A state has `positions` [B] int32 (tokens generated so far) and `example_ids` [B].
    """

    @property
    def num_sequences(self) -> int: ...

    def start(self, example_ids: jax.Array, /) -> Any:
        """The initial state [B]; rows of PADDING_EXAMPLE have ended."""
        ...

    def input_tokens(self, state: Any, /) -> jax.Array:
        """Input tokens of the next step [B * N] int32, 0 at position 0."""
        ...

    def extend(self, state: Any, logits: jax.Array, /) -> tuple[Any, jax.Array | None]:
        """Adds a token: the state, and the parent [B, N] of each sequence (None: itself)."""
        ...

    def ended(self, state: Any, /) -> jax.Array:
        """Whether each row has ended, [B] bool."""
        ...

    def sequences(self, state: Any, /) -> tuple[jax.Array, jax.Array]:
        """Tokens [B, N, T] int32 and scores [B, N] float32 so far."""
        ...


StepFn = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]]
AdjustFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def advance(
    step_fn: StepFn,
    reorder_fn: Callable[[Any, jax.Array], Any],
    search: Search,
    state: Any,
    cache: Any,
    enough: int | jax.Array,
    adjust_fn: AdjustFn | None = None,
    most_steps: int | jax.Array = NO_LIMIT,
    drafts_fn: Callable[[Any], jax.Array] | None = None,
) -> tuple[Any, Any, jax.Array]:
    """Runs decoding steps in one `lax.while_loop` until `enough` rows have ended.

    Args:
        step_fn: (cache, tokens [B * N] int32, positions [B] int32) -> (logits [B * N, V], cache).
            With drafts tokens [B, M] and logits [B, M, V] of M tokens in a row.
        reorder_fn: (cache, parents [B, N]) -> cache whose sequence n continues parents[:, n].
        state, cache: of the previous run; the sequences of a row are adjacent.
        enough: number of rows, including those that have ended already.
        adjust_fn: (logits, example_ids [B * N], positions [B * N]) -> logits; may forbid tokens.
        most_steps: after which the loop ends, however many rows have ended.
        drafts_fn: state -> guesses [B, M - 1] int32 of the tokens after the next step's input, of
            strategies with one sequence a row; None: a step has one token.

    Returns:
        The state, the cache, and the number of steps, int32.
    """

    def unfinished(carry: tuple) -> jax.Array:
        return (jnp.sum(search.ended(carry[0])) < enough) & (carry[2] < most_steps)

    def step(carry: tuple) -> tuple:
        state, cache, steps = carry
        tokens = search.input_tokens(state)
        if drafts_fn is not None:
            tokens = jnp.concatenate([tokens[:, None], drafts_fn(state)], axis=1)
        logits, cache = step_fn(cache, tokens, state.positions)
        if drafts_fn is not None:
            return _take_tokens(search, state, tokens, logits, adjust_fn), cache, steps + 1
        extended, parents = _extend(search, state, logits, adjust_fn)
        if parents is not None:
            cache = reorder_fn(cache, parents)
        return replace_rows(~search.ended(state), extended, state), cache, steps + 1

    return jax.lax.while_loop(unfinished, step, (state, cache, jnp.int32(0)))


def _extend(
    search: Search, state: Any, logits: jax.Array, adjust_fn: AdjustFn | None
) -> tuple[Any, jax.Array | None]:
    """`Search.extend` of adjusted logits [B * N, V]."""
    logits = logits.astype(jnp.float32)
    if adjust_fn is not None:
        num = search.num_sequences
        ids, positions = (jnp.repeat(a, num) for a in (state.example_ids, state.positions))
        logits = adjust_fn(logits, ids, positions)
    return search.extend(state, logits)


def _take_tokens(
    search: Search,
    state: Any,
    tokens: jax.Array,
    logits: jax.Array,
    adjust_fn: AdjustFn | None,
) -> Any:
    """The state after each row took the drafted tokens that the strategy chose too, and one more.

    Args:
        search: of one sequence a row.
        state: before the step.
        tokens: [B, M] the step's input, drafted but for the first.
        logits: [B, M, V] after each.
        adjust_fn: see `advance`.
    """
    num_tokens = tokens.shape[1]

    def unfinished(carry: tuple) -> jax.Array:
        number, _, active = carry
        return (number < num_tokens) & jnp.any(active)

    def take(carry: tuple) -> tuple:
        number, state, active = carry
        scores = jax.lax.dynamic_index_in_dim(logits, number, axis=1, keepdims=False)
        extended = _extend(search, state, scores, adjust_fn)[0]
        state = replace_rows(active, extended, state)
        following = jax.lax.dynamic_index_in_dim(
            tokens, jnp.minimum(number + 1, num_tokens - 1), axis=1, keepdims=False
        )
        active &= (search.input_tokens(state) == following) & ~search.ended(state)
        return number + 1, state, active

    start = (jnp.int32(0), state, ~search.ended(state))
    return jax.lax.while_loop(unfinished, take, start)[1]


def replace_rows(replaced: jax.Array, new: Any, old: Any) -> Any:
    """Selects rows of two trees of arrays: the new ones where `replaced` [B], else the old."""

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(replaced.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, new, old)


def write_at(tokens: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
    """tokens [B, N, T] with new [B, N] at each row's position [B]."""
    is_position = jnp.arange(tokens.shape[-1]) == positions[:, None, None]
    return jnp.where(is_position, new[..., None], tokens)


def is_any(tokens: jax.Array, ids: Sequence[int]) -> jax.Array:
    """Whether each token is one of the ids, at least one."""
    return functools.reduce(jnp.logical_or, [tokens == number for number in ids])


def largest(values: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k` of values [R, V], with the same order of ties; several times faster on CPUs.

    The `count` largest values lie in the `count` blocks with the largest maxima. The blocks are
    kept in order, so the first of equal values stays first.
    """
    rows, width = values.shape
    num_blocks = -(-width // _BLOCK)
    if num_blocks <= 2 * count:
        return jax.lax.top_k(values, count)
    missing = num_blocks * _BLOCK - width
    padded = jnp.pad(values, [(0, 0), (0, missing)], constant_values=-jnp.inf)
    blocks = padded.reshape(rows, num_blocks, _BLOCK)
    chosen = jnp.sort(jax.lax.top_k(jnp.max(blocks, axis=-1), count)[1], axis=-1)
    candidates = jnp.take_along_axis(blocks, chosen[..., None], axis=1).reshape(rows, -1)
    top, indices = jax.lax.top_k(candidates, count)
    block = jnp.take_along_axis(chosen, indices // _BLOCK, axis=-1)
    return top, block * _BLOCK + indices % _BLOCK
