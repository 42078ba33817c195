"""Drafted tokens: n-grams of the prompt and the answer guess what follows, one step checks them.

A step of one token reads all weights. With a draft the same step computes the logits after the last
token and after each drafted one, and the strategy then takes tokens as ever, one after another,
while they are those of the draft. So an answer is the one without drafts, up to the rounding of
products of another shape, and takes fewer steps the more of it stands in its prompt (summaries,
corrections, quotations) or repeats. Prompt lookup decoding; see arXiv 2211.17192 for the checking.

B rows, S tokens of a prompt, T of an answer.
"""

import jax
import jax.numpy as jnp

from instruct.eval.decoding.search import PADDING

_LONGEST_MATCH = 3  # tokens that a continuation is looked up by, at most


def ngram_drafts(
    prompts: jax.Array, answers: jax.Array, positions: jax.Array, count: int
) -> jax.Array:
    """Drafts [B, count] int32: what followed the last tokens of the answer where they stood before.

    The longest match decides (of at most 3 tokens, at least 1); of equally long ones one with
    `count` tokens after it, which in a loop the latest has not; of those the latest. Zeros where
    nothing matches, and after the end of the prompt or of the answer.

    Args:
        prompts: [B, S] int32, padded below 0.
        answers: [B, T] int32, of which the first `positions` [B] are there.
        count: tokens of the draft.

    prompt 7 8 9 4 8 5, answer 6 8 9, count 2    4 8 (after "8 9", not what followed "9" elsewhere)
    """
    rows, (width, length) = prompts.shape[0], (prompts.shape[1], answers.shape[1])
    written = jnp.where(jnp.arange(length) < positions[:, None], answers, PADDING)
    gap = jnp.full((rows, max(count, _LONGEST_MATCH)), PADDING, jnp.int32)
    text = jnp.concatenate([gap, prompts, gap, written, gap], axis=1)
    first = gap.shape[1]  # of the columns at which a match may end
    columns = jnp.arange(first, text.shape[1] - first)
    last = width + 2 * first + positions - 1  # column of the last token
    matched = jnp.zeros((rows, columns.size), jnp.int32)
    matches = jnp.broadcast_to(columns < last[:, None], matched.shape)
    for back in range(_LONGEST_MATCH):
        token = jnp.take_along_axis(text, jnp.maximum(last - back, 0)[:, None], axis=1)
        earlier = text[:, first - back : text.shape[1] - first - back]
        matches &= (earlier == token) & (token >= 0)
        matched += matches
    is_whole = text[:, first + count : text.shape[1] - first + count] >= 0
    order = (2 * matched + is_whole) * columns.size + jnp.arange(columns.size)
    best = jnp.argmax(jnp.where(matched > 0, order, 0), axis=1)
    has_match = jnp.take_along_axis(matched, best[:, None], axis=1) > 0
    after = best[:, None] + first + 1 + jnp.arange(count)
    return jnp.where(has_match, jnp.maximum(jnp.take_along_axis(text, after, axis=1), 0), 0)
