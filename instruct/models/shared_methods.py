"""`SharedMethods`: what all models do alike, logits of hidden states and the decoding cache."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from instruct import batch as batch_keys
from instruct.head import head_logits
from instruct.mesh import logical_constraint
from instruct.model_interface import Batch, Params
from instruct.models import decode_cache
from instruct.models.adapters import has_dropout, merge_adapters
from instruct.models.decode_cache import DecodeCache, Prompts
from instruct.quantized import INT8_HEAD, Int8Kernel, int8_kernel, int8_tree


class SharedMethods:
    """The methods of `model_interface.Model` that follow from its others, in every model."""

    config: Any
    init: Any
    decoder_hidden: Any
    head_kernel: Any

    @property
    def final_cap(self) -> float | None:
        """Soft cap of the logits."""
        return self.config.final_cap

    def abstract_params(self) -> Params:
        """Shapes and dtypes of `init`'s result as `jax.ShapeDtypeStruct`s; allocates nothing."""
        leaves, structure = _abstract_leaves(self)
        return jax.tree.unflatten(structure, leaves)

    def apply(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Logits [B, T, V] float32 of a teacher-forced batch.

        Args:
            params: as from `init`.
            batch: arrays named as in `instruct.batch`; the input tokens [B, S] and [B, T] of the
                configuration's layout are required. With segment ids (of encoder and decoder, or
                of neither) rows are packed; without, each row is one example, padded on the right,
                and 0 is padding of an encoder. A prefix-LM needs decoder_causal_attention.
            dropout_key: None: no dropout.
        """
        return self._logits(params, self.decoder_hidden(params, batch, dropout_key))

    def int8_params(self, params: Params) -> Params:
        """See `Model`."""
        params = merge_adapters(params)
        return int8_tree(params, _int8_head(self, params) if self.config.tied_output else None)

    def _head(self, params: Params) -> jax.Array | Int8Kernel:
        """The output kernel [D, V], in the type of the parameters' kernels."""
        int8_head = params["token_embedder"].get(INT8_HEAD)
        return self.head_kernel(params) if int8_head is None else int8_head

    def _logits(self, params: Params, hidden: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, T, V] float32."""
        logits = head_logits(hidden, self._head(params), self.final_cap)
        return logical_constraint(logits, ("batch", "length", "vocab"))

    def target_logits(self, params: Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        """See `Model.target_logits`; of an encoder-decoder.

        targets 3 1 -    decoder_input_tokens 0 3 1
        """
        fed = jnp.pad(jnp.maximum(targets, 0), ((0, 0), (1, 0)))[:, :-1]
        tokens = {batch_keys.ENCODER_INPUT_TOKENS: jnp.maximum(inputs, 0)}
        return self.apply(params, tokens | {batch_keys.DECODER_INPUT_TOKENS: fed})

    def init_cache(
        self,
        prompts: Prompts,
        num_sequences: int,
        num_columns: int,
        reordered: bool = True,
        by_position: bool = False,
    ) -> DecodeCache:
        """See `Model.init_cache`."""
        windows = (None,) if by_position else self.config.windows
        return decode_cache.new_cache(prompts, num_sequences, num_columns, reordered, windows)

    # See `Model`.
    fill_slots = staticmethod(decode_cache.fill_slots)
    narrow = staticmethod(decode_cache.narrow)
    reorder_cache = staticmethod(decode_cache.reorder_cache)


@functools.lru_cache(maxsize=64)
def _abstract_leaves(model: Any) -> tuple[list[jax.ShapeDtypeStruct], Any]:
    """Leaves and structure of `abstract_params`; the trace takes a tenth of a second."""
    return jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0)))


@functools.partial(jax.jit, static_argnums=0)
def _int8_head(model: Any, params: Params) -> Int8Kernel:
    return int8_kernel(model.head_kernel(params))


def segments_of_both(batch: Batch) -> tuple[jax.Array | None, jax.Array | None]:
    """Segment ids of an encoder-decoder's sources and targets, or None for both."""
    source_ids = batch.get(batch_keys.ENCODER_SEGMENT_IDS)
    target_ids = batch.get(batch_keys.DECODER_SEGMENT_IDS)
    if (source_ids is None) != (target_ids is None):
        raise ValueError("give segment ids for both encoder and decoder, or for neither")
    return source_ids, target_ids


def used_key(dropout_key: jax.Array | None, rate: float, params: Params) -> jax.Array | None:
    """The dropout key, or None if neither the model nor an adapter has dropout."""
    return dropout_key if rate > 0 or has_dropout(params) else None


def keys_of_both(
    dropout_key: jax.Array | None, rate: float, params: Params
) -> tuple[jax.Array | None, jax.Array | None]:
    """Dropout keys of an encoder and its decoder; None for both without dropout."""
    dropout_key = used_key(dropout_key, rate, params)
    if dropout_key is None:
        return None, None
    encoder_key, decoder_key = jax.random.split(dropout_key)
    return encoder_key, decoder_key
