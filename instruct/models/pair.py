"""Encoder-decoders of two stacks of blocks (T5Gemma, T5Gemma 2): pure functions of parameters.

The blocks are those of decoder-only models (`stack_blocks.py`); batches, prompts and the cache are
those of an encoder-decoder. With merged attention a source is to the decoder what a prompt is to a
decoder-only model: keys and values in the same softmax as its own.

B rows, S source and T target tokens, D model, N heads, K key-value heads (or sequences of a prompt
while decoding), H head dim, V vocabulary, M nodes of a tree.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from instruct import batch as batch_keys
from instruct.collectives import gather_params
from instruct.head import head_logits
from instruct.mesh import logical_constraint
from instruct.model_interface import Batch, Params
from instruct.models import decode_cache, masks
from instruct.models.attention import CachePlace, KeyValue
from instruct.models.blocks import RESIDUAL
from instruct.models.decode_cache import DecodeCache, Prompts
from instruct.models.decoder_only import DecoderEnd
from instruct.models.layer_loop import Part, init_layers, map_layers, run_stack, update_layers
from instruct.models.layers import Embedder, Norm, apply_kept, draw_kept
from instruct.models.pair_config import PairConfig
from instruct.models.rope import Rotation
from instruct.models.shared_methods import SharedMethods, keys_of_both, segments_of_both
from instruct.models.stack_blocks import Block, GroupedAttention, StepPlace, layer_period, scaled
from instruct.models.stack_config import StackConfig


class PairBlock(Block):
    """A decoder's block: it attends to sources after its own tokens, or in the same softmax."""

    def __init__(self, config: PairConfig, *, rngs: nnx.Rngs):
        stack = config.decoder
        super().__init__(stack, config, rngs=rngs)
        self.merged = config.cross == "merged"
        if self.merged:
            return
        width = config.encoder.d_model
        self.cross_attention = GroupedAttention(stack, config, rngs=rngs, memory_width=width)
        self.pre_cross_norm = Norm(stack, config.dtype)
        if stack.post_norms:
            self.post_cross_norm = Norm(stack, config.dtype)

    def source(self, encoded: jax.Array) -> KeyValue:
        """Keys and values of encoded sources [B, S, D]."""
        attention = self.attention if self.merged else self.cross_attention
        return attention.keys_values(encoded, None)

    def run(
        self,
        x: jax.Array,
        encoded: jax.Array,
        rotation: Rotation | None,
        mask: jax.Array,
        source_mask: jax.Array,
        key: jax.Array | None,
    ) -> jax.Array:
        """[B, T, D] and encoded [B, S, D] -> [B, T, D]; masks [B, 1, T, T] and [B, 1, T, S]."""
        rows, tokens, width = x.shape
        heads, length = self.config.num_kv_heads, encoded.shape[1]
        kept = draw_kept(
            key,
            self.compute.dropout_rate,
            [
                (rows, heads, 1, tokens),
                (rows, heads, 1, length),
                (rows, 1, width),
                (rows, 1, width),
                (rows, 1, self.config.d_ff),
                (rows, 1, width),
            ],
            self.compute.dtype,
        )
        y, source = self.pre_attention_norm(x), self.source(encoded)
        memory, of_keys = self.attention.keys_values(y, rotation), kept[0]
        if self.merged:
            memory = KeyValue(*(jnp.concatenate(pair, axis=2) for pair in zip(memory, source)))
            both = (mask, source_mask)
            whole = [jnp.broadcast_to(a, (rows, 1, tokens, a.shape[-1])) for a in both]
            mask = jnp.concatenate(whole, axis=-1)
            if kept[0] is not None and kept[1] is not None:
                of_keys = jnp.concatenate([kept[0], kept[1]], axis=-1)
        x = self.add_attention(x, self.attention(y, memory, rotation, mask, of_keys), kept[2])
        if not self.merged:
            x = self._add_cross(x, source, source_mask, kept[1], kept[3])
        return self.add_mlp(x, kept[4:])

    def step(
        self, x: jax.Array, memory: KeyValue, source: KeyValue, place: StepPlace
    ) -> tuple[jax.Array, KeyValue]:
        """One token of each sequence [R, Q, D] -> [R, Q, D] and this layer's updated cache.

        `source`, with turned keys, serves all sequences of a prompt.
        """
        if self.merged:
            return self.decode_step(x, memory, source, place)
        # The cache alone; the source follows in attention of its own.
        nothing = KeyValue(source.key[..., :0], source.value[..., :0, :])
        own = place._replace(prompt_mask=place.prompt_mask[..., :0])
        y = self.pre_attention_norm(x)
        attended, memory = self.attention.decode_step(y, memory, nothing, own)
        x = self.add_attention(x, attended, None)
        by_prompt = x.reshape(source.key.shape[0], -1, x.shape[-1])
        y = self._add_cross(by_prompt, source.turned(), place.prompt_mask, None, None)
        return self.add_mlp(y.reshape(x.shape), [None, None]), memory

    def _add_cross(self, x, source, mask, of_keys, kept) -> jax.Array:
        y = self.cross_attention(self.pre_cross_norm(x), source, None, mask, of_keys)
        if self.config.post_norms:
            y = self.post_cross_norm(y)
        return logical_constraint(x + apply_kept(y, kept), RESIDUAL)


class EncoderEnd(nnx.Module):
    """The encoder's module after its layers."""

    def __init__(self, config: PairConfig):
        self.encoder_norm = Norm(config.encoder, config.dtype)


class _Parts(NamedTuple):
    embedder: Part
    source_embedder: Part
    encoder: Part
    encoder_layer: Part
    decoder: Part
    decoder_layer: Part


@functools.lru_cache(maxsize=64)
def _parts(config: PairConfig) -> _Parts:
    def embedder(stack: StackConfig) -> Part:
        shape, scale = (config.vocab_size, stack.d_model), stack.d_model**-0.5
        return Part(lambda rngs: Embedder(*shape, dtype=config.dtype, rngs=rngs, scale=scale))

    return _Parts(
        embedder(config.decoder),
        embedder(config.encoder),
        Part(lambda _: EncoderEnd(config)),
        Part(lambda rngs: Block(config.encoder, config, rngs=rngs)),
        Part(lambda rngs: DecoderEnd(config.decoder, config, rngs=rngs)),
        Part(lambda rngs: PairBlock(config, rngs=rngs)),
    )


@dataclasses.dataclass(frozen=True)
class PairModel(SharedMethods):
    """An encoder-decoder of two stacks. Holds no arrays; hashable, may be a static argument."""

    config: PairConfig

    def init(self, key: jax.Array) -> Params:
        """Fresh float32 parameters; both layouts agree up to rounding."""
        config, parts = self.config, _parts(self.config)
        keys = jax.random.split(key, len(parts))
        scan = config.scan_layers
        encoder = init_layers(parts.encoder_layer, keys[3], config.encoder.num_layers, scan)
        if not config.shared_embedding:
            encoder["token_embedder"] = parts.source_embedder.init(keys[1])
        decoder = init_layers(parts.decoder_layer, keys[5], config.decoder.num_layers, scan)
        return {
            "token_embedder": parts.embedder.init(keys[0]),
            "encoder": parts.encoder.init(keys[2]) | encoder,
            "decoder": parts.decoder.init(keys[4]) | decoder,
        }

    def decoder_hidden(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """[B, T, D] decoder output in `config.dtype`, before the output head."""
        source_ids, target_ids = segments_of_both(batch)
        keys = keys_of_both(dropout_key, self.config.dropout_rate, params)
        tokens = batch[batch_keys.ENCODER_INPUT_TOKENS]
        segments = masks.source_segments(tokens, source_ids)
        positions = batch.get(batch_keys.ENCODER_POSITIONS, jnp.arange(tokens.shape[1])[None])
        encoded = self._encode(params, tokens, segments, positions, keys[0])
        source_mask = masks.cross_mask(segments, target_ids).dense()
        tokens = batch[batch_keys.DECODER_INPUT_TOKENS]
        positions = batch.get(batch_keys.DECODER_POSITIONS, jnp.arange(tokens.shape[1])[None])
        targets = jnp.ones_like(tokens[:1]) if target_ids is None else target_ids

        def mask(window: int | None) -> jax.Array:
            return masks.prefix_mask(targets, None, window).dense()

        return self._decode(params, tokens, positions, mask, encoded, source_mask, keys[1])

    def head_kernel(self, params: Params) -> jax.Array:
        """[D, V] float32 output kernel; see `instruct.head.head_logits`."""
        if self.config.tied_output:
            return params["token_embedder"]["embedding"].T
        return params["decoder"]["logits_dense"]["kernel"]

    def tree_logits(
        self,
        params: Params,
        inputs: jax.Array,
        tokens: jax.Array,
        depths: jax.Array,
        seen: jax.Array,
    ) -> jax.Array:
        """Logits [B, M, V] float32 after each node of a tree of continuations; see `Model`."""
        encoded, source_mask = self._encoded_prompts(params, inputs)

        def mask(window: int | None) -> jax.Array:
            visible = seen
            if window is not None:
                visible = seen & (depths[:, :, None] - depths[:, None, :] < window)
            return visible[:, None]

        hidden = self._decode(params, tokens, depths, mask, encoded, source_mask, None)
        return self._logits(params, hidden)

    def start_prompts(self, params: Params, tokens: jax.Array) -> Prompts:
        """Encodes prompts [B, S] (0 or less is padding); keys and values of every layer."""
        config, part = self.config, _parts(self.config).decoder_layer
        encoded, source_mask = self._encoded_prompts(params, tokens)

        def source(layer_params: Params) -> KeyValue:
            layer_params = gather_params(layer_params, config.dtype)
            return part.bind(layer_params).source(encoded).turned()

        stack = config.decoder
        cross = map_layers(source, params["decoder"], stack.num_layers, len(stack.pattern))
        return Prompts(cross, source_mask)

    def decode_step(
        self, params: Params, cache: DecodeCache, tokens: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, DecodeCache]:
        """See `Model.decode_step`."""
        stack, part, prompts = self.config.decoder, _parts(self.config), cache.prompts
        number, at = cache.step, decode_cache.token_positions(tokens, positions)
        cache, place = decode_cache.next_place(cache, tokens, positions)
        by_row = decode_cache.tokens_by_row(tokens, place)
        turns = jnp.repeat(at, by_row.shape[0] // positions.shape[0], axis=0)
        x = self._embed_targets(params, by_row, turns)

        def mask(window: int | None) -> CachePlace:
            return place if window is None else decode_cache.local_place(place, number, window)

        def step(turn, visible, layer_params, x: jax.Array, memory: KeyValue, source: KeyValue):
            step_place = StepPlace(turn, visible, prompts.mask)
            return part.decoder_layer.bind(layer_params).step(x, memory, source, step_place)

        period, decoder = layer_period(stack, step, turns, mask), params["decoder"]
        x, memory = update_layers(period, decoder, stack.num_layers, x, cache.memory, prompts.cross)
        hidden = part.decoder.bind(decoder).decoder_norm(x).reshape(*tokens.shape, -1)
        logits = head_logits(hidden, self._head(params), self.final_cap)
        return logits, cache._replace(memory=memory)

    def _encoded_prompts(self, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Prompts [B, S] -> encoded [B, S, D] and mask [B, 1, 1, S]."""
        tokens = jnp.maximum(tokens, 0)
        segments = masks.source_segments(tokens, None)
        positions = jnp.arange(tokens.shape[1])[None]
        encoded = self._encode(params, tokens, segments, positions, None)
        return encoded, masks.cross_mask(segments, None).dense()

    def _encode(self, params, tokens, segments, positions, key) -> jax.Array:
        """Encoded sources [B, S, D]."""
        config, parts, encoder = self.config, _parts(self.config), params["encoder"]
        if config.shared_embedding:
            x = parts.embedder.bind(params["token_embedder"])(tokens)
        else:
            x = parts.source_embedder.bind(encoder["token_embedder"])(tokens)

        def mask(window: int | None) -> jax.Array:
            if window is None:
                return masks.source_mask(segments).dense()
            return masks.around_mask(segments, *config.encoder_reach)

        def layer(turn, visible, layer_params: Params, x: jax.Array, layer_key: jax.Array | None):
            return parts.encoder_layer.bind(layer_params)(x, turn, visible, layer_key)[0]

        period = layer_period(config.encoder, layer, positions, mask)
        norm, count = parts.encoder.bind(encoder).encoder_norm, config.encoder.num_layers
        return run_stack(period, encoder, count, scaled(x, config.encoder), norm, key, config)

    def _decode(self, params, tokens, positions, mask, encoded, source_mask, key) -> jax.Array:
        """Hidden states [B, T, D]; `mask(window)` of a kind of layer."""
        config, parts, decoder = self.config, _parts(self.config), params["decoder"]

        def layer(turn, visible, layer_params: Params, x: jax.Array, layer_key: jax.Array | None):
            bound = parts.decoder_layer.bind(layer_params)
            return bound.run(x, encoded, turn, visible, source_mask, layer_key)

        period = layer_period(config.decoder, layer, positions, mask)
        norm, count = parts.decoder.bind(decoder).decoder_norm, config.decoder.num_layers
        x = self._embed_targets(params, tokens, positions)
        return run_stack(period, decoder, count, x, norm, key, config)

    def _embed_targets(self, params, tokens, positions) -> jax.Array:
        """[B, T] -> [B, T, D]; the token at position 0 is `start_id`."""
        tokens = jnp.where(positions == 0, self.config.start_id, tokens)
        x = _parts(self.config).embedder.bind(params["token_embedder"])(tokens)
        return scaled(x, self.config.decoder)
