"""Decoding strategies: greedy, sampling and beam search.

A strategy is a `search.Search`: it turns logits into tokens and knows no model and no cache.
Position 0 is fed token 0 (a decoder-only model takes the prompt's last token instead), and only
zeros follow the token that ended an answer.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from instruct.errors import UserError
from instruct.eval.decoding import beam
from instruct.eval.decoding.drafts import ngram_drafts
from instruct.eval.decoding.search import PADDING_EXAMPLE, Search, is_any, largest, write_at
from instruct.eval.decoding.token_rules import TokenRules, constrain_fn, ids_of
from instruct.fields import bounded, one_of
from instruct.model_interface import Model

STRATEGIES = ("greedy", "sample", "beam")
WEIGHTS = ("float32", "int8")
# T5X's floor: below it float32 logits may overflow, and sampling is greedy in effect.
_LOWEST_TEMPERATURE = 1e-4
_MOST_DRAFTED = 64


@dataclasses.dataclass(frozen=True)
class DecodeConfig(TokenRules):
    """Decoding settings; `TokenRules` has the constraints on single tokens.

    Attributes:
        strategy: 'greedy', 'sample' or 'beam'.
        max_decode_steps: longest generated sequence in tokens, EOS included.
        temperature: divides the logits before sampling.
        top_k: sample from the k most likely tokens; 0 is off.
        top_p: nucleus sampling (Holtzman et al. 2020), after temperature and top_k; 1.0 is off.
        num_samples: independent samples per prompt.
        num_beams: beam width.
        length_penalty: exponent alpha of ((5 + length) / 6) ** alpha, or of length ** alpha with
            transformers' rules; negative values favour short sequences.
        beam_rules: 't5x', 'transformers' or a variant of it (`beam.BEAM_RULES`).
        rescale_scores: False: scores are log-likelihoods under the model. True: under the
            distribution after temperature, top_k and top_p (T5X's default; 0 for greedy).
        eos_id: end-of-sequence token; of a checkpoint, its vocabulary's (`ending_with`).
        stop_ids: further tokens that end an answer, such as a chat template's end of a turn.
        seed: samples depend on (seed, example number, sample number) only.
        draft_tokens: guessed from the prompt and the answer so far, and checked with the next one
            in one step (`drafts.py`): the same answers in fewer steps where they repeat; 0 is off.
        weights: 'int8' rounds the kernels of the model for decoding (`instruct.quantized`): other
            tokens, and faster on CPUs. Scoring of options keeps float32.

    Raises:
        UserError: a value is out of range, the strategy would ignore it, or `min_decode_steps` is
            above `max_decode_steps`.
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
    stop_ids: tuple[int, ...] = ()
    draft_tokens: int = bounded(0, least=0, most=_MOST_DRAFTED, note=", 0 for off")
    weights: str = one_of("float32", WEIGHTS)

    def __post_init__(self):
        self._set("stop_ids", ids_of(self.stop_ids), "a list of token ids")
        super().__post_init__()
        if self.min_decode_steps > self.max_decode_steps:
            raise UserError(
                f"DecodeConfig.min_decode_steps is {self.min_decode_steps}, more tokens than the "
                f"max_decode_steps = {self.max_decode_steps} that are generated; lower it, or set "
                f"max_decode_steps (MAX_DECODE_STEPS) to {self.min_decode_steps} or more"
            )
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        strategy_of = dict.fromkeys(("temperature", "top_k", "top_p", "num_samples"), "sample")
        strategy_of |= dict.fromkeys(("num_beams", "length_penalty", "beam_rules"), "beam")
        for name, strategy in strategy_of.items():
            if self.strategy != strategy and getattr(self, name) != defaults[name]:
                raise UserError(
                    f"DecodeConfig.{name} = {getattr(self, name)!r} has no effect with "
                    f"strategy={self.strategy!r}; set strategy={strategy!r} or leave {name} out"
                )
        if self.draft_tokens and (self.strategy == "beam" or self.num_samples > 1):
            raise UserError(
                f"DecodeConfig.draft_tokens = {self.draft_tokens} is for one answer a prompt; set "
                "strategy='greedy', or 'sample' with num_samples = 1, or leave draft_tokens out"
            )
        if self.strategy == "beam" and self.rescale_scores:
            raise UserError("rescale_scores=True has no meaning with strategy='beam'; leave it out")

    @property
    def num_sequences(self) -> int:
        """N, the number of sequences per prompt."""
        return {"greedy": 1, "sample": self.num_samples, "beam": self.num_beams}[self.strategy]

    @property
    def end_ids(self) -> tuple[int, ...]:
        """All tokens that end an answer, `eos_id` first."""
        return tuple(dict.fromkeys((self.eos_id, *self.stop_ids)))

    def ending_with(self, end_ids: Sequence[int]) -> "DecodeConfig":
        """These settings with a vocabulary's `stop_ids`, the end of sequence first.

        Raises:
            UserError: `eos_id` is set to a token that would not end answers.
        """
        if self.eos_id not in (DecodeConfig.eos_id, *self.stop_ids, *end_ids):
            raise UserError(
                f"DecodeConfig.eos_id is {self.eos_id}, but the vocabulary's end of sequence is "
                f"{end_ids[0]}, which ends answers. Leave eos_id out; if {self.eos_id} is to end "
                f"them too, set stop_ids=({self.eos_id},)"
            )
        stop_ids = tuple(dict.fromkeys((*end_ids[1:], *self.stop_ids)))
        return dataclasses.replace(self, eos_id=end_ids[0], stop_ids=stop_ids)

    def answer_ids(self, tokens: Iterable[int]) -> list[int]:
        """The tokens before the one that ended the answer."""
        ends = self.end_ids
        return list(itertools.takewhile(lambda token: token not in ends, map(int, tokens)))

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
        stop = f" stop={','.join(map(str, self.stop_ids))}" if self.stop_ids else ""
        weights = f" weights={self.weights}" if self.weights != "float32" else ""
        draft = f" draft={self.draft_tokens}" if self.draft_tokens else ""
        # Scores and what they decide differ, so results of the two must not be mixed.
        rescaled = " rescaled scores" if self.rescale_scores else ""
        rest = f"{stop}{weights}{draft}{rescaled}{self.describe_rules()}"
        return f"{text} steps={self.max_decode_steps}{rest}"

    def settings(self) -> dict[str, Any]:
        """All fields as JSON values; those that later versions added only if they are set."""
        rules = {field.name for field in dataclasses.fields(TokenRules)}
        values = dataclasses.asdict(self) | {"stop_ids": list(self.stop_ids)}
        unset = {"stop_ids": [], "weights": "float32", "draft_tokens": 0}
        listed = {
            name: value
            for name, value in values.items()
            if name not in rules and (name not in unset or value != unset[name])
        }
        return listed | self.rules_set()


class _Sequences(NamedTuple):
    example_ids: jax.Array  # [B] int32
    positions: jax.Array  # [B] int32
    tokens: jax.Array  # [B, N, T] int32
    last: jax.Array  # [B, N] int32, input of the next step
    scores: jax.Array  # [B, N] float32
    ended: jax.Array  # [B, N] bool


@dataclasses.dataclass(frozen=True)
class OneByOne:
    """Greedy decoding and sampling (a `search.Search`): sequences are independent."""

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

    def input_tokens(self, state: _Sequences) -> jax.Array:
        return state.last.reshape(-1)

    def extend(self, state: _Sequences, logits: jax.Array) -> tuple[_Sequences, None]:
        config = self.config
        positions = jnp.repeat(state.positions, self.num_sequences)
        allowed = logits
        constrain = constrain_fn(config, config.end_ids, config.max_decode_steps)
        if constrain is not None:
            tokens = state.tokens.reshape(-1, config.max_decode_steps)
            allowed = constrain(logits, tokens, positions)
        if config.strategy == "sample":
            keys = _row_keys(config.seed, state.example_ids, self.num_sequences)
            keys = jax.vmap(jax.random.fold_in)(keys, positions)
            allowed = sampling_logits(allowed, config.temperature, config.top_k, config.top_p)
            token = jax.vmap(jax.random.categorical)(keys, allowed).astype(jnp.int32)
            logprob = token_logprobs(allowed if config.rescale_scores else logits, token)
        else:
            token = largest(allowed, 1)[1][:, 0]
            if config.rescale_scores:
                logprob = jnp.zeros(token.shape, jnp.float32)
            else:
                logprob = token_logprobs(logits, token)
        token = jnp.where(state.ended, 0, token.reshape(state.last.shape))
        logprob = jnp.where(state.ended, 0.0, logprob.reshape(state.last.shape))
        extended = _Sequences(
            example_ids=state.example_ids,
            positions=state.positions + 1,
            tokens=write_at(state.tokens, token, state.positions),
            last=token,
            scores=state.scores + logprob,
            ended=state.ended | is_any(token, config.end_ids),
        )
        return extended, None

    def ended(self, state: _Sequences) -> jax.Array:
        full = state.positions >= self.config.max_decode_steps
        return full | jnp.all(state.ended, axis=-1)

    def sequences(self, state: _Sequences) -> tuple[jax.Array, jax.Array]:
        return state.tokens, state.scores


def empty_cache(model: Model, prompts: Any, config: DecodeConfig) -> Any:
    """A cache for the strategy, of `Model.start_prompts`'s prompts."""
    columns = config.max_decode_steps + config.draft_tokens  # a draft may go beyond the end
    return model.init_cache(
        prompts,
        config.num_sequences,
        columns,
        reordered=config.strategy == "beam",
        by_position=config.draft_tokens > 0,
    )


def drafts_fn(config: DecodeConfig, prompts: jax.Array) -> Callable[[Any], jax.Array] | None:
    """What `search.advance` takes, for `prompts` [B, S] padded below 0; None: no drafts."""
    if not config.draft_tokens:
        return None
    return lambda state: ngram_drafts(
        prompts, state.tokens[:, 0], state.positions, config.draft_tokens
    )


def search_of(config: DecodeConfig) -> Search:
    """Builds the strategy of a configuration."""
    if config.strategy != "beam":
        return OneByOne(config)
    return beam.BeamSearch(
        num_beams=config.num_beams,
        max_steps=config.max_decode_steps,
        alpha=config.length_penalty,
        end_ids=config.end_ids,
        rules=config.beam_rules,
        constrain=constrain_fn(config, config.end_ids, config.max_decode_steps),
    )


def _row_keys(seed: int, example_ids: jax.Array, num_samples: int) -> jax.Array:
    """Random keys [B * N] from (seed, example, sample)."""
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
    """Applies temperature, top_k and top_p to logits [R, V]: -inf for excluded tokens.

    Tokens that tie with the last one kept are kept too.

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
    """Largest threshold [R, 1] such that probabilities not below it sum to at least top_p.

    Bisects on the bit pattern, which orders non-negative floats by value: 31 sums over the
    vocabulary find the exact threshold and are much faster than a sort on accelerators.
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
