"""A tiny cached "model" for decoding tests, with the same logits computed twice: by JAX through a
cache, and by NumPy from the whole prefix."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from instruct.eval.decoding.decode import search_of
from instruct.eval.decoding.search import advance

VOCABULARY = 11
EOS = 1
MAX_STEPS = 7
_rng = np.random.default_rng(5)
_EMBEDDING = _rng.normal(size=(VOCABULARY, VOCABULARY)).astype(np.float32)
_POSITION = _rng.normal(size=(MAX_STEPS + 1, VOCABULARY)).astype(np.float32)
_POSITION[:, EOS] += 5.0  # so that most sequences end, at different steps
_PROMPT = _rng.normal(size=(40, VOCABULARY)).astype(np.float32) * 1.5
LOGITS_SIZE = 10.0  # about the largest logit: what log-probabilities near 0 are differences of


def prefix_logits(prompt: int, prefix: list[int]) -> np.ndarray:
    """Logits [V] of the token after `prefix`, for prompt number `prompt`."""
    fed = [0, *prefix]
    steps = sum(_EMBEDDING[token] * (1 + 0.3 * i) for i, token in enumerate(fed))
    return _PROMPT[prompt] + _POSITION[len(prefix)] + steps


def prefix_logprobs(prompt: int, prefix: list[int]) -> np.ndarray:
    """Log-probabilities [V] in float64."""
    logits = prefix_logits(prompt, prefix).astype(np.float64)
    return logits - np.log(np.sum(np.exp(logits)))


def toy_cache(prompts: np.ndarray, num_sequences: int) -> dict[str, jax.Array]:
    """Prompts [B] are shared by a row's sequences; the running sum [B * N, V] is not."""
    rows = prompts.shape[0] * num_sequences
    return {"prompt": jnp.asarray(prompts), "sum": jnp.zeros((rows, VOCABULARY), jnp.float32)}


def toy_step(cache, tokens, positions):
    """One step; the cache holds the sum over the tokens fed so far."""
    beams = tokens.shape[0] // cache["prompt"].shape[0]
    each = jnp.repeat(positions, beams)
    total = cache["sum"] + jnp.asarray(_EMBEDDING)[tokens] * (1 + 0.3 * each[:, None])
    prompt = jnp.repeat(jnp.asarray(_PROMPT)[cache["prompt"]], beams, axis=0)
    logits = prompt + jnp.asarray(_POSITION)[each] + total
    return logits, {"prompt": cache["prompt"], "sum": total}


def toy_reorder(cache, beams):
    """Sequence n of a row continues what sequence beams[:, n] has fed."""
    rows, num = beams.shape
    total = cache["sum"].reshape(rows, num, VOCABULARY)
    total = jnp.take_along_axis(total, beams[..., None], axis=1)
    return {"prompt": cache["prompt"], "sum": total.reshape(rows * num, VOCABULARY)}


class Decoded(NamedTuple):
    """B rows, N sequences each, T = max_decode_steps."""

    tokens: jax.Array  # [B, N, T] int32, EOS included, zeros after it
    scores: jax.Array  # [B, N] float32
    steps: jax.Array  # scalar int32, steps until all rows had ended


def decode(step_fn, reorder_fn, cache, example_ids, config):
    """Decodes all rows from start to end, without slots."""
    search, rows = search_of(config), example_ids.shape[0]
    state = search.start(example_ids)
    state, _, steps = advance(step_fn, reorder_fn, search, state, cache, rows)
    return Decoded(*search.sequences(state), steps)
