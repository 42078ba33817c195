"""Beam search by the rules of T5X (`t5x.decoding.beam_search`) or of transformers.

Each row has `num_beams` live hypotheses (no EOS yet) and `num_beams` finished ones. A step extends
every live hypothesis by every token and keeps the best 2 * num_beams candidates: at most num_beams
of them end in EOS, so enough are left for the live set (with E tokens that end an answer, the best
(1 + E) * num_beams). Finished hypotheses are ranked by
log-likelihood / ((5 + length) / 6) ** alpha (Wu et al. 2016, equation 14); the length counts EOS. A
row ends when its worst finished score beats the best that any live hypothesis can still reach.

Worked example, one row, two beams, alpha 0, tokens {1: EOS, 2, 3}; log-probabilities at step 0
are -1 (EOS), -2 (2), -3 (3), and -1, -2, -3 again after every prefix:

    step 0   candidates [1] -1, [2] -2, [3] -3     finished {[1] -1}        live {[2] -2, [3] -3}
    step 1   candidates [2 1] -3, [2 2] -4, [3 1] -4, [2 3] -5
                                                   finished {[1] -1, [2 1] -3}   live {[2 2] -4, ..}
    end      the worst finished (-3) beats the best live (-4): [1], [2 1]

transformers' `generate` differs: it divides scores by length ** alpha; an ended candidate counts
only if it is among the best num_beams of its step; hypotheses that are live at the last step count
as finished; and when a row ends is a setting (`BEAM_RULES`).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from instruct.errors import UserError
from instruct.eval.decoding.search import PADDING_EXAMPLE, is_any, largest, write_at
from instruct.eval.decoding.token_rules import ConstrainFn

# 't5x', or transformers with early_stopping False (its default), "never" or True: a row ends when
# its worst finished score beats the best live one at the current length; at the maximum length; or
# as soon as num_beams hypotheses are finished.
BEAM_RULES = ("t5x", "transformers", "transformers-never", "transformers-early")
# Score of an empty slot: T5X's value, far below any sum of log-probabilities.
EMPTY_SCORE = -1e7


class _Beams(NamedTuple):
    example_ids: jax.Array  # [B] int32
    positions: jax.Array  # [B] int32, tokens generated so far
    last: jax.Array  # [B, N] int32, input of the next step
    live_tokens: jax.Array  # [B, N, T] int32
    live_logprobs: jax.Array  # [B, N] float32, best first
    done_tokens: jax.Array  # [B, N, T] int32
    done_scores: jax.Array  # [B, N] float32, length-penalised, best first


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Beam search (a `search.Search`).

    Attributes:
        num_beams, max_steps: N and T.
        alpha: exponent of the length penalty.
        rules: one of `BEAM_RULES`.
        constrain: token rules; log-probabilities are not renormalised after them (transformers).
    """

    num_beams: int
    max_steps: int
    alpha: float
    end_ids: tuple[int, ...]
    rules: str = "t5x"
    constrain: ConstrainFn | None = None

    @property
    def num_sequences(self) -> int:
        return self.num_beams

    def start(self, example_ids: jax.Array) -> _Beams:
        rows, num = example_ids.shape[0], self.num_beams
        # Only the first hypothesis starts live, otherwise all beams would be equal.
        empty = jnp.full((rows, num), EMPTY_SCORE, jnp.float32)
        no_tokens = jnp.zeros((rows, num, self.max_steps), jnp.int32)
        return _Beams(
            example_ids=example_ids,
            positions=jnp.zeros((rows,), jnp.int32),
            last=jnp.zeros((rows, num), jnp.int32),
            live_tokens=no_tokens,
            live_logprobs=empty.at[:, 0].set(0.0),
            done_tokens=no_tokens,
            done_scores=empty,
        )

    def input_tokens(self, state: _Beams) -> jax.Array:
        return state.last.reshape(-1)

    def _penalty(self, length: jax.Array | int) -> jax.Array:
        """The divisor of a score; `length` in tokens counts EOS."""
        if self.rules == "t5x":
            return jnp.power((5.0 + length) / 6.0, self.alpha)
        # The first step has length 0 and score 0.
        return jnp.power(jnp.maximum(length, 1).astype(jnp.float32), self.alpha)

    def ended(self, state: _Beams) -> jax.Array:
        worst, best = state.done_scores[:, -1], state.live_logprobs[:, 0]
        # A negative alpha favours short sequences: a live score can only fall.
        at_end = self.rules in ("t5x", "transformers-never") and self.alpha >= 0
        reachable = best / self._penalty(self.max_steps if at_end else state.positions)
        if self.rules == "t5x":
            closed = worst > reachable
        elif self.rules == "transformers-early":
            closed = worst > EMPTY_SCORE
        else:
            closed = worst >= reachable
        padding = state.example_ids == PADDING_EXAMPLE
        return padding | (state.positions >= self.max_steps) | closed

    def extend(self, state: _Beams, logits: jax.Array) -> tuple[_Beams, jax.Array]:
        num, positions = self.num_beams, state.positions
        scores, ruled = logits.astype(jnp.float32), self.constrain is not None
        if self.constrain is not None:
            history = state.live_tokens.reshape(-1, self.max_steps)
            scores = jax.nn.log_softmax(scores, axis=-1)
            scores = self.constrain(scores, history, jnp.repeat(positions, num))
        keep = (1 + len(self.end_ids)) * num
        logprobs, parents, tokens = _candidates(scores, state.live_logprobs, keep, normalised=ruled)
        sequences = write_at(_take(state.live_tokens, parents), tokens, positions)
        ends = is_any(tokens, self.end_ids)
        live_logprobs, best = jax.lax.top_k(jnp.where(ends, EMPTY_SCORE, logprobs), num)
        if self.rules != "t5x":
            ends |= (positions + 1 == self.max_steps)[:, None]
            ends &= jnp.arange(keep) < num
        penalty = self._penalty(positions + 1)[:, None]
        scores = jnp.where(ends, logprobs / penalty, EMPTY_SCORE)
        done_scores, kept = jax.lax.top_k(jnp.concatenate([state.done_scores, scores], axis=1), num)
        extended = _Beams(
            example_ids=state.example_ids,
            positions=positions + 1,
            last=jnp.take_along_axis(tokens, best, axis=1),
            live_tokens=_take(sequences, best),
            live_logprobs=live_logprobs,
            done_tokens=_take(jnp.concatenate([state.done_tokens, sequences], axis=1), kept),
            done_scores=done_scores,
        )
        return extended, jnp.take_along_axis(parents, best, axis=1)

    def sequences(self, state: _Beams) -> tuple[jax.Array, jax.Array]:
        """Best first (T5X: best last); empty slots have score -1e7 and an empty answer.

        A row without a finished hypothesis returns the live ones with log-likelihoods, as T5X does.
        """
        any_done = state.done_scores[:, :1] > EMPTY_SCORE
        tokens = jnp.where(any_done[..., None], state.done_tokens, state.live_tokens)
        scores = jnp.where(any_done, state.done_scores, state.live_logprobs)
        # Zeros are no empty answer: they do not end it, and in some vocabularies they are text.
        first = jnp.where(scores <= EMPTY_SCORE, self.end_ids[0], tokens[..., 0])
        return tokens.at[..., 0].set(first), scores


def _candidates(
    logits: jax.Array, live_logprobs: jax.Array, keep: int, normalised: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best extensions: log-likelihoods, parent hypotheses and tokens, all [B, keep].

    Takes the best of each hypothesis first, which avoids [B, N * V] log-probabilities and a search
    over them.

    Args:
        normalised: `logits` are log-probabilities already, perhaps changed by token rules.
    """
    rows, num_beams = live_logprobs.shape
    if logits.shape[-1] < keep:
        raise UserError(
            f"num_beams = {num_beams} needs a vocabulary of at least {keep} tokens, "
            f"this one has {logits.shape[-1]}; use fewer beams"
        )
    top, tokens = largest(logits, keep)
    if not normalised:  # only the kept logits
        top -= jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    each = top.reshape(rows, num_beams, keep) + live_logprobs[..., None]
    logprobs, index = jax.lax.top_k(each.reshape(rows, -1), keep)
    tokens = jnp.take_along_axis(tokens.reshape(rows, -1), index, axis=1)
    return logprobs, index // keep, tokens


def _take(values: jax.Array, index: jax.Array) -> jax.Array:
    """values [B, M, T] at index [B, N] of its second axis -> [B, N, T]."""
    return jnp.take_along_axis(values, index[..., None], axis=1)
