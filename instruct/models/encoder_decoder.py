"""The T5 encoder-decoder: pure functions of a parameter tree.

Modules (`blocks.py`, `layers.py`, `attention.py`) are split once into a static graph and
parameters, a nested dict of float32 arrays, so `jax.jit`, `grad`, `lax.scan` and `checkpoint` apply
without wrappers (docs/decisions/0001). Paths are T5X's ('encoder/layers_0/attention/query/kernel');
`scan_layers` stacks the layers, see `layout.py`. Dropout keys and the decoding cache are arguments
and results, never state.

B rows, S source and T target tokens, D model, N heads, H head dim, V vocabulary, K sequences of a
prompt while decoding (`decode_cache.py`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from instruct import batch as batch_keys
from instruct.head import head_logits
from instruct.model_interface import Batch, Params
from instruct.models import decode_cache, masks
from instruct.models.attention import KeyValue, platform_implementation
from instruct.models.blocks import DecoderFrame, DecoderLayer, EncoderFrame, EncoderLayer
from instruct.models.config import ModelConfig
from instruct.models.decode_cache import DecodeCache, Prompts
from instruct.models.flash import padded_length
from instruct.models.layer_loop import Part, init_layers, map_layers, run_stack, update_layers
from instruct.models.layers import Embedder, RelativePositionBias
from instruct.models.shared_methods import SharedMethods, keys_of_both, segments_of_both


class _Parts(NamedTuple):
    embedder: Part
    encoder: Part
    encoder_layer: Part
    decoder: Part
    decoder_layer: Part


@functools.lru_cache(maxsize=64)
def _parts(config: ModelConfig) -> _Parts:
    def part(module_type: Any, *arguments: Any, **settings: Any) -> Part:
        return Part(lambda rngs: module_type(*arguments, rngs=rngs, **settings))

    return _Parts(
        part(Embedder, config.vocab_size, config.d_model, dtype=config.dtype),
        part(EncoderFrame, config),
        part(EncoderLayer, config),
        part(DecoderFrame, config),
        part(DecoderLayer, config),
    )


@dataclasses.dataclass(frozen=True)
class EncoderDecoder(SharedMethods):
    """T5 1.1, or 1.0 by config. Holds no arrays; hashable, so it may be a static argument."""

    config: ModelConfig

    def init(self, key: jax.Array) -> Params:
        """Fresh float32 parameters with T5's initialisers; both layouts agree up to rounding."""
        config, parts = self.config, _parts(self.config)
        keys, scan = jax.random.split(key, len(parts)), config.scan_layers
        encoder = init_layers(parts.encoder_layer, keys[2], config.num_encoder_layers, scan)
        decoder = init_layers(parts.decoder_layer, keys[4], config.num_decoder_layers, scan)
        return {
            "token_embedder": parts.embedder.init(keys[0]),
            "encoder": parts.encoder.init(keys[1]) | encoder,
            "decoder": parts.decoder.init(keys[3]) | decoder,
        }

    def decoder_hidden(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """[B, T, D] decoder output in `config.dtype`, before the output head."""
        source_ids, target_ids = segments_of_both(batch)
        keys = keys_of_both(dropout_key, self.config.dropout_rate, params)
        tokens = batch[batch_keys.ENCODER_INPUT_TOKENS]
        segments = masks.source_segments(tokens, source_ids)
        encoded = self._run_encoder(params, tokens, segments, keys[0])
        _, cross_mask = self._bias_and_mask(None, masks.cross_mask(segments, target_ids))
        tokens = batch[batch_keys.DECODER_INPUT_TOKENS]
        mask = masks.target_mask(tokens.shape[1], target_ids)
        bias_and_mask = functools.partial(self._bias_and_mask, mask=mask)
        return self._run_decoder(params, tokens, encoded, bias_and_mask, cross_mask, keys[1])

    def head_kernel(self, params: Params) -> jax.Array:
        """[D, V] float32 output kernel; logits are `decoder_hidden` in float32 @ kernel."""
        if self.config.tied_output:
            embedding = params["token_embedder"]["embedding"]
            return embedding.T * self.config.d_model**-0.5
        return params["decoder"]["logits_dense"]["kernel"]

    def encode(self, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Prompts [B, S] -> encoded [B, S, D] and mask [B, S] boolean; 0 or less is padding."""
        tokens = jnp.maximum(tokens, 0)
        segments = masks.source_segments(tokens, None)
        return self._run_encoder(params, tokens, segments, None), segments != 0

    def tree_logits(
        self,
        params: Params,
        inputs: jax.Array,
        tokens: jax.Array,
        depths: jax.Array,
        seen: jax.Array,
    ) -> jax.Array:
        """Logits [B, M, V] float32 after each node of a tree of continuations; see `Model`."""
        encoded, mask = self.encode(params, inputs)
        cross_mask = masks.cross_mask(mask.astype(jnp.int32), None).dense()
        distance = depths[:, None, :] - depths[:, :, None]

        def bias_and_mask(table: RelativePositionBias) -> tuple[jax.Array, jax.Array]:
            return table.of_distance(distance).swapaxes(0, 1), seen[:, None]

        hidden = self._run_decoder(params, tokens, encoded, bias_and_mask, cross_mask, None)
        return self._logits(params, hidden)

    def start_prompts(self, params: Params, tokens: jax.Array) -> Prompts:
        """Encodes prompts [B, S] (0 or less is padding); keys and values of every layer."""
        config, part = self.config, _parts(self.config).decoder_layer
        encoded, mask = self.encode(params, tokens)

        def keys_values(layer_params: Params) -> KeyValue:
            attention = part.bind(layer_params).encoder_decoder_attention
            return attention.keys_values(encoded).turned()

        cross = map_layers(keys_values, params["decoder"], config.num_decoder_layers)
        return Prompts(cross, masks.cross_mask(mask.astype(jnp.int32), None).dense())

    def decode_step(
        self, params: Params, cache: DecodeCache, tokens: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, DecodeCache]:
        """See `Model.decode_step`."""
        parts, decoder = _parts(self.config), params["decoder"]
        frame = parts.decoder.bind(decoder)
        cache, place = decode_cache.next_place(cache, tokens, positions)
        bias_of = _by_layer(frame, lambda table: table.of_distance(-place.ages).swapaxes(0, 1))
        by_row = decode_cache.tokens_by_row(tokens, place)
        x = parts.embedder.bind(params["token_embedder"])(by_row)
        prompts = cache.prompts

        def step(layer_params, x, memory, cross):
            layer = parts.decoder_layer.bind(layer_params)
            biased = place._replace(bias=bias_of(layer))
            return layer.decode_step(x, memory, cross, prompts.mask, biased)

        count = self.config.num_decoder_layers
        x, memory = update_layers([step], decoder, count, x, cache.memory, prompts.cross)
        hidden = frame.decoder_norm(x).reshape(*tokens.shape, -1)
        logits = head_logits(hidden, self._head(params), None)
        return logits, cache._replace(memory=memory)

    def _bias_and_mask(
        self, relpos_bias: RelativePositionBias | None, mask: masks.SegmentMask
    ) -> tuple[jax.Array | None, jax.Array | masks.SegmentMask]:
        """What `attend` takes for all layers of a stack: arrays, or the flash kernel's form."""
        length = mask.keys.shape[1]
        if platform_implementation(self.config.attention) != "flash":
            return None if relpos_bias is None else relpos_bias(length), mask.dense()
        if relpos_bias is None:
            return None, mask
        reach = padded_length(length)
        return relpos_bias.of_distance(jnp.arange(-reach, reach)), mask

    def _run_encoder(self, params, tokens, segments, key) -> jax.Array:
        config, parts, encoder = self.config, _parts(self.config), params["encoder"]
        frame, mask = parts.encoder.bind(encoder), masks.source_mask(segments)
        bias_and_mask = _by_layer(frame, lambda table: self._bias_and_mask(table, mask))

        def layer(layer_params, x, layer_key):
            bound = parts.encoder_layer.bind(layer_params)
            return bound(x, *bias_and_mask(bound), layer_key)

        x = parts.embedder.bind(params["token_embedder"])(tokens)
        count, norm = config.num_encoder_layers, frame.encoder_norm
        # The encoder's last dropout is the only one that differs over the length, as in T5X.
        return run_stack([layer], encoder, count, x, norm, key, config, by_token=True)

    def _run_decoder(self, params, tokens, encoded, compute, cross_mask, key) -> jax.Array:
        """Hidden states [B, T, D]; `compute(table)` is the bias and mask of self-attention."""
        config, parts, decoder = self.config, _parts(self.config), params["decoder"]
        frame = parts.decoder.bind(decoder)
        bias_and_mask = _by_layer(frame, compute)

        def layer(layer_params, x, layer_key):
            bound = parts.decoder_layer.bind(layer_params)
            return bound(x, encoded, *bias_and_mask(bound), cross_mask, layer_key)

        x = parts.embedder.bind(params["token_embedder"])(tokens)
        count, norm = config.num_decoder_layers, frame.decoder_norm
        return run_stack([layer], decoder, count, x, norm, key, config)


def _by_layer(frame: Any, compute: Callable[[RelativePositionBias], Any]) -> Callable[[Any], Any]:
    """Layer -> `compute` of its relative positions, which are its own (umT5) or its stack's."""
    if not hasattr(frame, "relpos_bias"):
        return lambda layer: compute(layer.relpos_bias)
    shared = compute(frame.relpos_bias)  # once
    return lambda layer: shared
