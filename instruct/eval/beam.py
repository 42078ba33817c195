"""Beam search with T5X's semantics (`t5x.decoding.beam_search`), over any step function.

Two sets are kept per row: `num_beams` live hypotheses (no EOS yet) and `num_beams` finished ones.
A step extends every live hypothesis by every token and keeps the best 2 * num_beams candidates:
as at most num_beams of them can end in EOS, enough are left to refill the live set. Finished
hypotheses compete by log-likelihood / ((5 + length) / 6) ** alpha (Wu et al. 2016, equation 14),
length counting EOS. A row ends when its worst finished score beats the best that any of its live
hypotheses could still reach.

Worked example, one row, two beams, alpha 0, tokens {1: EOS, 2, 3}; log-probabilities at step 0
are -1 (EOS), -2 (2), -3 (3), and -1, -2, -3 again after every prefix:

    step 0   candidates [1] -1, [2] -2, [3] -3     finished {[1] -1}        live {[2] -2, [3] -3}
    step 1   candidates [2 1] -3, [2 2] -4, [3 1] -4, [2 3] -5
                                                   finished {[1] -1, [2 1] -3}   live {[2 2] -4, ..}
    end      the worst finished (-3) beats the best live (-4): [1], [2 1]
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from instruct.errors import UserError

# Stands for "no hypothesis in this slot"; T5X's value, far below any sum of log-probabilities.
EMPTY_SCORE = -1e7


class _Beams(NamedTuple):
    step: jax.Array  # scalar int32, tokens written so far
    live_tokens: jax.Array  # [B, N, T] int32
    live_logprobs: jax.Array  # [B, N] float32, best first
    done_tokens: jax.Array  # [B, N, T] int32
    done_scores: jax.Array  # [B, N] float32, length-penalised, best first
    cache: Any


def length_penalty(length: jax.Array | int, alpha: float) -> jax.Array:
    """((5 + length) / 6) ** alpha, the divisor of a hypothesis of `length` tokens with EOS."""
    return jnp.power((5.0 + length) / 6.0, alpha)


def beam_search(
    step_fn: Callable,
    reorder_fn: Callable,
    cache: Any,
    padding: jax.Array,
    *,
    num_beams: int,
    max_steps: int,
    alpha: float,
    eos_id: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Finds high-scoring sequences; one `lax.while_loop`.

    Args:
        step_fn: (cache, tokens [B * N] int32, position scalar) -> (logits [B * N, V], cache).
        reorder_fn: (cache, beams [B, N] int32) -> cache whose hypothesis n continues beams[:, n].
        cache: for B * N rows, a row's hypotheses next to each other.
        padding: [B] bool, rows whose result nobody reads; they end at once.
        num_beams, max_steps, alpha, eos_id: N, T, the length penalty's exponent, the token that
            ends a sequence.

    Returns:
        tokens [B, N, T] int32, 0 after EOS, best first (T5X returns them best last); scores
        [B, N] float32; steps, scalar int32. A slot that was never filled has score -1e7. A row
        without any finished hypothesis returns its live ones with plain log-likelihoods, as T5X's.
    """
    rows = padding.shape[0]
    best_penalty = length_penalty(max_steps, alpha)

    def unfinished(beams: _Beams) -> jax.Array:
        bound = beams.live_logprobs[:, 0] / best_penalty
        ended = (beams.done_scores[:, -1] > bound) | padding
        return (beams.step < max_steps) & ~jnp.all(ended)

    def extend(beams: _Beams) -> _Beams:
        step = beams.step
        last = jnp.where(step > 0, _column(beams.live_tokens, step - 1), 0)
        logits, cache = step_fn(beams.cache, last.reshape(rows * num_beams), step)
        logprobs, parents, tokens = _candidates(logits, beams.live_logprobs)
        sequences = _take(beams.live_tokens, parents)
        sequences = jax.lax.dynamic_update_slice_in_dim(sequences, tokens[..., None], step, axis=2)
        ends = tokens == eos_id

        live_logprobs, best = jax.lax.top_k(jnp.where(ends, EMPTY_SCORE, logprobs), num_beams)
        scores = jnp.where(ends, logprobs / length_penalty(step + 1, alpha), EMPTY_SCORE)
        done_scores, kept = jax.lax.top_k(
            jnp.concatenate([beams.done_scores, scores], axis=1), num_beams
        )
        return _Beams(
            step=step + 1,
            live_tokens=_take(sequences, best),
            live_logprobs=live_logprobs,
            done_tokens=_take(jnp.concatenate([beams.done_tokens, sequences], axis=1), kept),
            done_scores=done_scores,
            cache=reorder_fn(cache, jnp.take_along_axis(parents, best, axis=1)),
        )

    # Only the first hypothesis starts alive, else all would be the same one.
    empty = jnp.full((rows, num_beams), EMPTY_SCORE, jnp.float32)
    no_tokens = jnp.zeros((rows, num_beams, max_steps), jnp.int32)
    start = _Beams(jnp.int32(0), no_tokens, empty.at[:, 0].set(0.0), no_tokens, empty, cache)
    end = jax.lax.while_loop(unfinished, extend, start)

    any_done = end.done_scores[:, :1] > EMPTY_SCORE
    tokens = jnp.where(any_done[..., None], end.done_tokens, end.live_tokens)
    return tokens, jnp.where(any_done, end.done_scores, end.live_logprobs), end.step


def _candidates(
    logits: jax.Array, live_logprobs: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The 2N best extensions: log-likelihoods, parents (which hypothesis), tokens, all [B, 2N].

    Each hypothesis' own 2N best first: none further down its list can be among the row's 2N best,
    and neither [B, N * V] log-probabilities nor a search over them is needed.
    """
    rows, num_beams = live_logprobs.shape
    keep = 2 * num_beams
    if logits.shape[-1] < keep:
        raise UserError(
            f"num_beams = {num_beams} needs a vocabulary of at least {keep} tokens, "
            f"this one has {logits.shape[-1]}; use fewer beams"
        )
    logits = logits.astype(jnp.float32)
    normaliser = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    top, tokens = jax.lax.top_k(logits, keep)
    each = (top - normaliser).reshape(rows, num_beams, keep) + live_logprobs[..., None]
    logprobs, index = jax.lax.top_k(each.reshape(rows, -1), keep)
    tokens = jnp.take_along_axis(tokens.reshape(rows, -1), index, axis=1)
    return logprobs, index // keep, tokens


def _take(values: jax.Array, index: jax.Array) -> jax.Array:
    """values [B, M, T] at index [B, N] of its second axis -> [B, N, T]."""
    return jnp.take_along_axis(values, index[..., None], axis=1)


def _column(tokens: jax.Array, step: jax.Array) -> jax.Array:
    """tokens [B, N, T] -> [B, N], the one at `step`."""
    return jax.lax.dynamic_index_in_dim(tokens, step, axis=2, keepdims=False)
