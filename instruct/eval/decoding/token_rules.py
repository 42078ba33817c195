"""Rules on the next token: transformers' logits processors, in their order.

A rule sees the scores of a step (logits; in beam search log-probabilities, as in transformers) and
the sequence so far, with the start token 0. Rules that are off are not compiled.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from instruct.errors import UserError
from instruct.fields import bounded, check_fields

# (scores [R, V], tokens [R, T] int32, positions [R] int32) -> scores [R, V]; row r has positions[r]
# tokens so far.
ConstrainFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
_LONGEST_SHOWN = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenRules:
    """Rules on generated tokens, with transformers' names and meanings.

    Attributes:
        repetition_penalty: divides the scores of tokens that occurred (multiplies negative ones);
            1.0 is off.
        no_repeat_ngram_size: no n-gram of this length occurs twice; 0 is off.
        bad_words_ids: forbidden sequences of ids.
        min_decode_steps: number of tokens before EOS is allowed (transformers' `min_new_tokens`;
            its `min_length` counts the start token too).
        forced_bos_token_id: the first token.
        forced_eos_token_id: the token at the last step, max_decode_steps.
        exponential_decay_length_penalty: (start, factor): after `start` tokens EOS becomes likelier
            with every token.
        suppress_tokens: forbidden ids.
        begin_suppress_tokens: forbidden ids of the first token (after a forced one).

    Raises:
        UserError: a value out of range.
    """

    repetition_penalty: float = bounded(1.0, above=0, note=", 1.0 for off")
    no_repeat_ngram_size: int = bounded(0, least=0, note=", 0 for off")
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    min_decode_steps: int = bounded(0, least=0, note=", 0 for off")
    forced_bos_token_id: int | None = bounded(None, least=0, note=": a token id, or None")
    forced_eos_token_id: int | None = bounded(None, least=0, note=": a token id, or None")
    exponential_decay_length_penalty: tuple[int, float] | None = None
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("suppress_tokens", "begin_suppress_tokens"):
            self._set(name, ids_of(getattr(self, name)), "a list of token ids")
        words = self.bad_words_ids
        ids = [ids_of(word) for word in words] if isinstance(words, list | tuple) else [None]
        self._set("bad_words_ids", tuple(ids) if all(ids) else None, "a list of lists of token ids")
        decay: Any = self.exponential_decay_length_penalty
        if decay is not None:
            is_pair = isinstance(decay, list | tuple) and len(decay) == 2
            valid = is_pair and type(decay[0]) is int and type(decay[1]) in (int, float)
            valid = valid and decay[0] >= 0 and 0 < decay[1] < math.inf
            name = "exponential_decay_length_penalty"
            self._set(name, tuple(decay) if valid else None, "(tokens before it acts, factor)")
        check_fields(self)

    def _set(self, name: str, value: tuple | None, allowed: str) -> None:
        if value is None:
            raise UserError(f"DecodeConfig.{name} is {getattr(self, name)!r}; use {allowed}.")
        object.__setattr__(self, name, value)

    def rules_set(self) -> dict[str, Any]:
        """The rules that are on, as JSON values."""
        values = ((field, getattr(self, field.name)) for field in dataclasses.fields(TokenRules))
        rules = {field.name: value for field, value in values if value != field.default}
        return json.loads(json.dumps(rules))

    def describe_rules(self) -> str:
        """' no_repeat_ngram_size=3 suppress_tokens=[5]'; a hash for a long list; '' for no rule."""
        description = ""
        for name, value in self.rules_set().items():
            text = json.dumps(value, separators=(",", ":"))
            if len(text) > _LONGEST_SHOWN:
                text = hashlib.sha256(text.encode()).hexdigest()[:12]
            description += f" {name}={text}"
        return description


def ids_of(values: Any) -> tuple[int, ...] | None:
    """Token ids as a tuple; None if they are not a list of whole numbers."""
    valid = isinstance(values, list | tuple)
    valid = valid and all(type(value) is int and value >= 0 for value in values)
    return tuple(values) if valid else None


def constrain_fn(rules: TokenRules, end_ids: tuple[int, ...], max_steps: int) -> ConstrainFn | None:
    """The rules as a function of a step's scores, for sequences of at most `max_steps` tokens.

    None if all rules are off. `end_ids` end a sequence.
    """
    if not rules.rules_set():
        return None
    return functools.partial(_constrain, rules, end_ids, max_steps)


def _constrain(
    rules: TokenRules,
    end_ids: tuple[int, ...],
    max_steps: int,
    scores: jax.Array,
    tokens: jax.Array,
    positions: jax.Array,
) -> jax.Array:
    size = scores.shape[-1]
    _check_ids(rules, size)
    history = jnp.pad(tokens, ((0, 0), (1, 0)))  # [R, T + 1], the start token in front
    lengths = positions + 1
    if rules.repetition_penalty != 1.0:
        seen = _marked(history, jnp.arange(history.shape[1]) < lengths[:, None], size)
        penalty = rules.repetition_penalty
        lowered = jnp.where(scores < 0, scores * penalty, scores / penalty)
        scores = jnp.where(seen, lowered, scores)
    if 0 < rules.no_repeat_ngram_size <= history.shape[1]:
        banned = _repeating(history, lengths, rules.no_repeat_ngram_size, size)
        scores = jnp.where(banned, -jnp.inf, scores)
    words = [
        word for word in rules.bad_words_ids if not (len(word) == 1 and set(word) <= set(end_ids))
    ]
    if words:
        scores = jnp.where(_completing(history, lengths, words, size), -jnp.inf, scores)
    if rules.min_decode_steps:
        scores = _banned(scores, end_ids, positions < rules.min_decode_steps)
    for forced, position in (
        (rules.forced_bos_token_id, 0),
        (rules.forced_eos_token_id, max_steps - 1),
    ):
        if forced is not None:
            only = jnp.where(jnp.arange(size) == forced, 0.0, -jnp.inf)
            scores = jnp.where((positions == position)[:, None], only, scores)
    if rules.exponential_decay_length_penalty is not None:
        start, factor = rules.exponential_decay_length_penalty
        late = jnp.maximum(positions - start, 0).astype(jnp.float32)
        growth = jnp.power(jnp.float32(factor), late) - 1
        for end_id in end_ids:
            end = scores[:, end_id]
            bonus = jnp.where(jnp.isfinite(end), jnp.abs(end) * growth, 0.0)
            scores = scores.at[:, end_id].add(bonus)
    if rules.suppress_tokens:
        scores = _banned(scores, rules.suppress_tokens, jnp.ones_like(positions, bool))
    if rules.begin_suppress_tokens:
        begin = 0 if rules.forced_bos_token_id is None else 1
        scores = _banned(scores, rules.begin_suppress_tokens, positions == begin)
    return scores


def _check_ids(rules: TokenRules, size: int) -> None:
    ids = {
        "forced_bos_token_id": [rules.forced_bos_token_id or 0],
        "forced_eos_token_id": [rules.forced_eos_token_id or 0],
        "suppress_tokens": rules.suppress_tokens,
        "begin_suppress_tokens": rules.begin_suppress_tokens,
        "bad_words_ids": [number for word in rules.bad_words_ids for number in word],
    }
    for name, numbers in ids.items():
        if numbers and max(numbers) >= size:
            raise UserError(
                f"DecodeConfig.{name} has the id {max(numbers)}; the model's vocabulary has "
                f"{size} rows, so ids are below that."
            )


def _marked(ids: jax.Array, counts: jax.Array, size: int) -> jax.Array:
    """Marks [R, V] the ids [R, M] where `counts` [R, M]."""
    rows = jnp.arange(ids.shape[0])[:, None]
    marks = jnp.zeros((ids.shape[0], size), bool)
    return marks.at[rows, jnp.where(counts, ids, size)].set(True, mode="drop")


def _banned(scores: jax.Array, ids: Iterable[int], rows: jax.Array) -> jax.Array:
    """Sets scores [R, V] of ids to -inf in the marked rows [R]."""
    listed = jnp.asarray(list(ids))
    marks = jnp.zeros(scores.shape[-1], bool).at[listed].set(True)
    return jnp.where(rows[:, None] & marks, -jnp.inf, scores)


def _repeating(history: jax.Array, lengths: jax.Array, n: int, size: int) -> jax.Array:
    """Marks [R, V] tokens that would complete an n-gram that the row has already."""
    windows = history.shape[1] - n + 1
    first = jnp.arange(windows)
    match = first <= (lengths - n)[:, None]
    for k in range(n - 1):
        wanted = jnp.take_along_axis(history, jnp.maximum(lengths - n + 1 + k, 0)[:, None], axis=1)
        match &= history[:, k : k + windows] == wanted
    return _marked(history[:, n - 1 :], match, size)


def _completing(
    history: jax.Array, lengths: jax.Array, words: list[tuple[int, ...]], size: int
) -> jax.Array:
    """Marks [R, V] tokens that would complete one of the sequences of ids."""
    longest = max(len(word) for word in words) - 1
    # The words without their last ids, right-aligned; -1 matches anything.
    beginnings = [[-1] * (longest + 1 - len(word)) + list(word[:-1]) for word in words]
    prefixes = jnp.asarray(beginnings, jnp.int32).reshape(len(words), longest)
    at = lengths[:, None] + jnp.arange(-longest, 0)
    tail = jnp.take_along_axis(history, jnp.maximum(at, 0), axis=1)
    tail = jnp.where(at >= 0, tail, -2)[:, None]  # [R, 1, longest]
    match = jnp.all((tail == prefixes) | (prefixes == -1), axis=-1)  # [R, words]
    last = jnp.broadcast_to(jnp.asarray([word[-1] for word in words]), match.shape)
    return _marked(last, match, size)
