"""Decoding strategies over a step function: greedy, sampling and beam search.

Everything runs in one compiled `lax.while_loop` (`search.py`). No model is imported: a strategy
needs a step function (cache, tokens, positions) -> (logits, cache), so the key-value cache is a
value of whatever structure the model likes. Conventions are T5's: position 0 is fed token 0, token
0 is padding, and after EOS only zeros follow.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from instruct.errors import UserError
from instruct.eval.decoding import beam
from instruct.eval.decoding.search import (
    PADDING_EXAMPLE,
    Search,
    StepFn,
    advance,
    largest,
    write_at,
)
from instruct.eval.decoding.token_rules import ConstrainFn, TokenRules, constrain_fn
from instruct.fields import bounded, one_of

STRATEGIES = ("greedy", "sample", "beam")
# T5X's floor: below it float32 logits may overflow, and the result is greedy's anyhow.
_LOWEST_TEMPERATURE = 1e-4


@dataclasses.dataclass(frozen=True)
class DecodeConfig(TokenRules):
    """How sequences are generated; `TokenRules` has the rules on single tokens.

    Attributes:
        strategy: 'greedy', 'sample' or 'beam'.
        max_decode_steps: most tokens of a generated sequence, EOS included.
        temperature: logits are divided by it before sampling.
        top_k: sample among the k most likely tokens only; 0 is off.
        top_p: sample among the fewest most likely tokens whose probabilities add up to top_p
            (after temperature and top_k; Holtzman et al. 2020); 1.0 is off.
        num_samples: independent samples per prompt.
        num_beams: width of the beam.
        length_penalty: exponent alpha of ((5 + length) / 6) ** alpha (of length ** alpha, by
            transformers' rules); below 0 it favours short sequences.
        beam_rules: 't5x', 'transformers' or one of its variants, see `beam.BEAM_RULES`.
        rescale_scores: False: a score is the log-likelihood of the sequence under the model.
            True: under the distribution it was drawn from, after temperature, top_k and top_p
            (T5X's default; always 0 for greedy).
        eos_id: the token that ends a sequence.
        seed: samples are a function of (seed, example number, sample number) alone.

    Raises:
        UserError: a value out of range, or one that the strategy would ignore.
    """

    strategy: str = one_of("greedy", STRATEGIES)
    max_decode_steps: int = bounded(128, least=1)
    temperature: float = bounded(1.0, above=0, note=" (for 0: strategy='greedy')")
    top_k: int = bounded(0, least=0, note=", 0 for off")
    top_p: float = bounded(1.0, above=0, most=1, note=", 1.0 for off")
    num_samples: int = bounded(1, least=1)
    num_beams: int = bounded(4, least=1)
    length_penalty: float = 0.6
    beam_rules: str = one_of("t5x", tuple(beam.BEAM_RULES))
    rescale_scores: bool = False
    eos_id: int = bounded(1, least=1)
    seed: int = bounded(0, least=0)

    def __post_init__(self):
        super().__post_init__()
        self._refuse_ignored("sample", ("temperature", "top_k", "top_p", "num_samples"))
        self._refuse_ignored("beam", ("num_beams", "length_penalty", "beam_rules"))
        if self.strategy == "beam" and self.rescale_scores:
            raise UserError("rescale_scores=True has no meaning with strategy='beam'; leave it out")

    def _refuse_ignored(self, strategy: str, names: tuple[str, ...]) -> None:
        """Deterministic results where samples were asked for would go unnoticed."""
        if self.strategy == strategy:
            return
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise UserError(
                    f"DecodeConfig.{name} = {getattr(self, name)!r} has no effect with "
                    f"strategy={self.strategy!r}; set strategy={strategy!r} or leave {name} out"
                )

    @property
    def num_sequences(self) -> int:
        """N, sequences returned per prompt."""
        return {"greedy": 1, "sample": self.num_samples, "beam": self.num_beams}[self.strategy]

    def describe(self) -> str:
        """One line for a results file: 'greedy steps=32', 'beam-4 alpha=0.6 steps=32'."""
        if self.strategy == "beam":
            text = f"beam-{self.num_beams} alpha={self.length_penalty:g}"
            text += f" rules={self.beam_rules}" if self.beam_rules != "t5x" else ""
        elif self.strategy == "sample":
            text = f"sample temperature={self.temperature:g}"
            text += f" top_k={self.top_k}" if self.top_k else ""
            text += f" top_p={self.top_p:g}" if self.top_p < 1 else ""
            text += f" samples={self.num_samples} seed={self.seed}"
        else:
            text = "greedy"
        return f"{text} steps={self.max_decode_steps}{self.describe_rules()}"

    def settings(self) -> dict[str, Any]:
        """All fields as JSON values, of the rules on tokens those that are set."""
        rules = {field.name for field in dataclasses.fields(TokenRules)}
        names = [field.name for field in dataclasses.fields(self) if field.name not in rules]
        return {name: getattr(self, name) for name in names} | self.rules_set()


class Decoded(NamedTuple):
    """What decoding returns; B rows, N sequences each, T = max_decode_steps.

    Beams come best first; samples in the order of their number, so that sample n of an example is
    the same whatever num_samples is.
    """

    tokens: jax.Array  # [B, N, T] int32, EOS included, zeros after it
    scores: jax.Array  # [B, N] float32, log-likelihood (beam: length-penalised)
    steps: jax.Array  # scalar int32, how many steps ran before all rows had ended


class _Sequences(NamedTuple):
    example_ids: jax.Array  # [B] int32
    positions: jax.Array  # [B] int32
    tokens: jax.Array  # [B, N, T] int32
    last: jax.Array  # [B, N] int32, what the next step is fed
    scores: jax.Array  # [B, N] float32
    ended: jax.Array  # [B, N] bool


@dataclasses.dataclass(frozen=True)
class OneByOne:
    """Greedy decoding and sampling (a `search.Search`): every sequence is extended on its own."""

    config: DecodeConfig

    @property
    def num_sequences(self) -> int:
        return self.config.num_sequences

    def start(self, example_ids: jax.Array) -> _Sequences:
        rows, num = example_ids.shape[0], self.num_sequences
        padding = example_ids == PADDING_EXAMPLE
        return _Sequences(
            example_ids=example_ids,
            positions=jnp.zeros((rows,), jnp.int32),
            tokens=jnp.zeros((rows, num, self.config.max_decode_steps), jnp.int32),
            last=jnp.zeros((rows, num), jnp.int32),
            scores=jnp.zeros((rows, num), jnp.float32),
            ended=jnp.broadcast_to(padding[:, None], (rows, num)),
        )

    def fed(self, state: _Sequences) -> jax.Array:
        return state.last.reshape(-1)

    def extend(self, state: _Sequences, logits: jax.Array) -> tuple[_Sequences, None]:
        config = self.config
        positions = jnp.repeat(state.positions, self.num_sequences)
        allowed = logits
        constrain = _constrain_fn(config)
        if constrain is not None:
            tokens = state.tokens.reshape(-1, config.max_decode_steps)
            allowed = constrain(logits, tokens, positions)
        if config.strategy == "sample":
            keys = _row_keys(config.seed, state.example_ids, self.num_sequences)
            keys = jax.vmap(jax.random.fold_in)(keys, positions)
            token, logprob = _sampled(config, logits, allowed, keys)
        else:
            token, logprob = _likeliest(config, logits, allowed)
        token = jnp.where(state.ended, 0, token.reshape(state.last.shape))
        logprob = jnp.where(state.ended, 0.0, logprob.reshape(state.last.shape))
        extended = _Sequences(
            example_ids=state.example_ids,
            positions=state.positions + 1,
            tokens=write_at(state.tokens, token, state.positions),
            last=token,
            scores=state.scores + logprob,
            ended=state.ended | (token == config.eos_id),
        )
        return extended, None

    def ended(self, state: _Sequences) -> jax.Array:
        full = state.positions >= self.config.max_decode_steps
        return full | jnp.all(state.ended, axis=-1)

    def found(self, state: _Sequences) -> tuple[jax.Array, jax.Array]:
        return state.tokens, state.scores


def search_of(config: DecodeConfig) -> Search:
    """The strategy that a configuration asks for."""
    if config.strategy != "beam":
        return OneByOne(config)
    return beam.BeamSearch(
        num_beams=config.num_beams,
        max_steps=config.max_decode_steps,
        alpha=config.length_penalty,
        eos_id=config.eos_id,
        rules=config.beam_rules,
        constrain=_constrain_fn(config),
    )


def _constrain_fn(config: DecodeConfig) -> ConstrainFn | None:
    return constrain_fn(config, config.eos_id, config.max_decode_steps)


def decode(
    step_fn: StepFn,
    reorder_fn: Callable,
    cache: Any,
    example_ids: jax.Array,
    config: DecodeConfig,
) -> Decoded:
    """Generates `config.num_sequences` sequences per row, all rows from the start to their end.

    Args:
        step_fn: (cache, tokens [B * N] int32, positions [B] int32) -> (logits [B * N, V], cache).
        reorder_fn: (cache, beams [B, N] int32) -> cache whose sequence n continues beams[:, n];
            called by beam search only.
        cache: the step function's, for B * N rows, a row's sequences next to each other.
        example_ids: [B] int32, number of each row's example, PADDING_EXAMPLE for padding rows
            (which end at once). Samples depend on it, so they do not depend on the batching.
        config: the strategy.
    """
    search = search_of(config)
    state = search.start(example_ids)
    rows = example_ids.shape[0]
    state, _, steps = advance(step_fn, reorder_fn, search, state, cache, rows)
    return Decoded(*search.found(state), steps)


def _likeliest(
    config: DecodeConfig, logits: jax.Array, allowed: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The most likely token [R] of those allowed, and its log-probability [R] under the model.

    Args:
        config: the strategy.
        logits: [R, V], the model's.
        allowed: [R, V], the same after the rules on tokens.
    """
    token = largest(allowed, 1)[1][:, 0]
    if config.rescale_scores:
        return token, jnp.zeros(token.shape, jnp.float32)
    return token, token_logprobs(logits, token)


def _sampled(
    config: DecodeConfig, logits: jax.Array, allowed: jax.Array, keys: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A token [R] drawn by the rows' keys, and its log-probability [R]; see `_likeliest`."""
    allowed = sampling_logits(allowed, config.temperature, config.top_k, config.top_p)
    token = jax.vmap(jax.random.categorical)(keys, allowed).astype(jnp.int32)
    return token, token_logprobs(allowed if config.rescale_scores else logits, token)


def _row_keys(seed: int, example_ids: jax.Array, num_samples: int) -> jax.Array:
    """[B * N] keys from (seed, example, sample)."""
    fold = jax.vmap(jax.random.fold_in)
    examples = jnp.repeat(example_ids.astype(jnp.uint32), num_samples)
    samples = jnp.tile(jnp.arange(num_samples, dtype=jnp.uint32), example_ids.shape[0])
    keys = jnp.broadcast_to(jax.random.key(seed), examples.shape)
    return fold(fold(keys, examples), samples)


def token_logprobs(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Log-probability of tokens [...] under logits [..., V], float32, without a [..., V] result."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def sampling_logits(
    logits: jax.Array,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
) -> jax.Array:
    """Logits [R, V] of the distribution to draw from: -inf for tokens that are ruled out.

    Tokens that tie with the last one allowed are allowed too.

    Worked example: probabilities 0.4, 0.3, 0.2, 0.1 at temperature 1; top_k 2 leaves 0.4 and 0.3
    (drawn with 4/7 and 3/7); top_p 0.75 leaves 0.4, 0.3 and 0.2, as 0.4 + 0.3 < 0.75.
    """
    logits = logits / max(temperature, _LOWEST_TEMPERATURE)
    if 0 < top_k < logits.shape[-1]:
        last = jax.lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits >= last, logits, -jnp.inf)
    if top_p < 1.0:
        probabilities = jax.nn.softmax(logits, axis=-1)
        logits = jnp.where(probabilities >= _nucleus(probabilities, top_p), logits, -jnp.inf)
    return logits


def _nucleus(probabilities: jax.Array, top_p: float) -> jax.Array:
    """Largest threshold [R, 1] at which the probabilities not below it add up to top_p.

    Bisects on the bit pattern, which orders non-negative floats as their values do: 31 sums over
    the vocabulary find the exact threshold, where a sort is slow on every accelerator.
    """
    rows = probabilities.shape[0]

    def halve(_, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        threshold = jax.lax.bitcast_convert_type(middle, jnp.float32)
        mass = jnp.sum(
            jnp.where(probabilities >= threshold, probabilities, 0.0), axis=-1, keepdims=True
        )
        enough = mass >= top_p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    above_one = jnp.full((rows, 1), jax.lax.bitcast_convert_type(jnp.float32(1.0), jnp.int32) + 1)
    low, _ = jax.lax.fori_loop(0, 31, halve, (jnp.zeros((rows, 1), jnp.int32), above_one))
    return jax.lax.bitcast_convert_type(low, jnp.float32)
