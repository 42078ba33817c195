"""Decoder-only and prefix-LM models: pure functions of a parameter tree."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from instruct import batch as batch_keys
from instruct.head import head_logits
from instruct.mesh import logical_constraint
from instruct.models import decode_cache
from instruct.models.decode_cache import DecodeCache, Prompts
from instruct.models.decoder_config import DecoderConfig

Params = dict[str, Any]
Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class DecoderOnly:
    """A decoder-only or prefix-LM model. Holds no arrays; hashable."""

    config: DecoderConfig

    @property
    def final_cap(self) -> float | None:
        """Soft cap of the logits."""
        return self.config.final_cap

    def init(self, key: jax.Array) -> Params:
        """Fresh float32 parameters."""
        raise NotImplementedError

    def abstract_params(self) -> Params:
        """Shapes and dtypes of `init`'s result as `jax.ShapeDtypeStruct`s; allocates nothing."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def apply(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Logits [B, T, V] float32 of a teacher-forced batch."""
        raise NotImplementedError

    def decoder_hidden(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """[B, T, D] in `config.dtype`, before the output head."""
        raise NotImplementedError

    def head_kernel(self, params: Params) -> jax.Array:
        """[D, V] float32 output kernel."""
        raise NotImplementedError

    def target_logits(self, params: Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        """See `Model.target_logits`.

        A row is the prompt and, right behind it, the targets; S = 3, T = 2:

            inputs 7 8 -    targets 4 1    decoder_input_tokens 7 8 4 1 0    logits at columns 1 2
        """
        length = jnp.sum(inputs >= 0, axis=1)[:, None]
        columns = jnp.arange(inputs.shape[1] + targets.shape[1])
        tokens = jnp.pad(inputs, ((0, 0), (0, targets.shape[1])))
        behind = jnp.clip(columns - length, 0, targets.shape[1] - 1)
        tokens = jnp.where(columns < length, tokens, jnp.take_along_axis(targets, behind, axis=1))
        real = (columns < length + targets.shape[1]) & (tokens >= 0)
        batch = {
            batch_keys.DECODER_INPUT_TOKENS: jnp.maximum(tokens, 0) * real,
            batch_keys.DECODER_CAUSAL_ATTENTION: (columns < length).astype(jnp.int32),
            batch_keys.DECODER_SEGMENT_IDS: real.astype(jnp.int32),
            batch_keys.DECODER_POSITIONS: jnp.broadcast_to(columns, tokens.shape),
        }
        hidden = self.decoder_hidden(params, batch)
        before = length - 1 + jnp.arange(targets.shape[1])
        hidden = jnp.take_along_axis(hidden, before[..., None], axis=1)
        logits = head_logits(hidden, self.head_kernel(params), self.final_cap)
        return logical_constraint(logits, ("batch", "length", "vocab"))

    def tree_logits(
        self,
        params: Params,
        inputs: jax.Array,
        tokens: jax.Array,
        depths: jax.Array,
        seen: jax.Array,
    ) -> jax.Array:
        """Logits [B, M, V] float32 after each node of a tree of continuations."""
        raise NotImplementedError

    def start_prompts(self, params: Params, tokens: jax.Array) -> Prompts:
        """Prefill: keys and values of prompts [B, S], padded with negative tokens on the right."""
        raise NotImplementedError

    def init_cache(
        self, prompts: Prompts, num_sequences: int, num_columns: int, reordered: bool = True
    ) -> DecodeCache:
        """See `Model.init_cache`."""
        return decode_cache.new_cache(prompts, num_sequences, num_columns, reordered)

    def decode_step(
        self, params: Params, cache: DecodeCache, tokens: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, DecodeCache]:
        """Logits [B * K, V] float32 of the next token, and the cache with the current one in it."""
        raise NotImplementedError

    def fill_slots(
        self,
        cache: DecodeCache,
        prompts: Prompts,
        slots: jax.Array,
        rows: jax.Array,
        count: jax.Array,
    ) -> DecodeCache:
        """See `decode_cache.fill_slots`."""
        return decode_cache.fill_slots(cache, prompts, slots, rows, count)

    def narrow(self, cache: DecodeCache, source_length: int) -> DecodeCache:
        """See `decode_cache.narrow`."""
        return decode_cache.narrow(cache, source_length)

    def reorder_cache(self, cache: DecodeCache, beam_indices: jax.Array) -> DecodeCache:
        """See `decode_cache.reorder_cache`."""
        return decode_cache.reorder_cache(cache, beam_indices)
