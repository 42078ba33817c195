"""Decoder-only and prefix-LM models: pure functions of a parameter tree.

One stack of blocks (`stack_blocks.py`) between an embedding and an output head: PaLM, Llama, Gemma,
Qwen by configuration. As in `encoder_decoder.py`, modules are split once into static graphs and
nested dicts of float32 arrays, and `scan_layers` stacks the layers.

Decoding: `start_prompts` computes the keys and values of a prompt (prefill), which its
continuations share. The prompt's last token is masked there: the first step computes it again and
writes its key to the cache. That changes no number, in a prefix-LM too, since the last token
attends to all of the prompt. So every step is the same, and slots, beams and trees work as for an
encoder-decoder.

B rows, S tokens of a prompt, T tokens of a row, D model, N heads, K key-value heads (or sequences
of a prompt while decoding), H head dim, V vocabulary, M nodes of a tree.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from instruct import batch as batch_keys
from instruct.collectives import gather_params
from instruct.head import head_logits
from instruct.model_interface import Batch, Params
from instruct.models import decode_cache, masks
from instruct.models.attention import CachePlace, KeyValue, platform_implementation
from instruct.models.decode_cache import DecodeCache, Prompts
from instruct.models.decoder_config import DecoderConfig
from instruct.models.layer_loop import Part, init_layers, layer_zeros, run_stack, update_layers
from instruct.models.layers import Dense, Embedder, Norm
from instruct.models.pair_config import PairConfig
from instruct.models.shared_methods import SharedMethods, used_key
from instruct.models.stack_blocks import Block, StepPlace, layer_period, scaled
from instruct.models.stack_config import StackConfig


class DecoderEnd(nnx.Module):
    """The modules after a decoder's layers."""

    def __init__(self, stack: StackConfig, config: DecoderConfig | PairConfig, *, rngs: nnx.Rngs):
        self.decoder_norm = Norm(stack, config.dtype)
        if not config.tied_output:
            sizes = stack.d_model, config.vocab_size
            self.logits_dense = Dense(*sizes, dtype="float32", rngs=rngs)


class _Parts(NamedTuple):
    embedder: Part
    end: Part
    layer: Part


@functools.lru_cache(maxsize=64)
def _parts(config: DecoderConfig) -> _Parts:
    # Unit variance of what the first layer reads (if embeddings are scaled) and of the logits.
    scale = config.d_model**-0.5 if config.tied_output and not config.output_scale else 1.0

    def embedder(rngs: nnx.Rngs) -> Embedder:
        shape = (config.vocab_size, config.d_model)
        return Embedder(*shape, dtype=config.dtype, rngs=rngs, scale=scale)

    return _Parts(
        Part(embedder),
        Part(lambda rngs: DecoderEnd(config, config, rngs=rngs)),
        Part(lambda rngs: Block(config, config, rngs=rngs)),
    )


@dataclasses.dataclass(frozen=True)
class DecoderOnly(SharedMethods):
    """A decoder-only or prefix-LM model. Holds no arrays; hashable, may be a static argument."""

    config: DecoderConfig

    def init(self, key: jax.Array) -> Params:
        """Fresh float32 parameters; both layouts agree up to rounding."""
        config, parts = self.config, _parts(self.config)
        keys = jax.random.split(key, len(parts))
        layers = init_layers(parts.layer, keys[2], config.num_layers, config.scan_layers)
        return {
            "token_embedder": parts.embedder.init(keys[0]),
            "decoder": parts.end.init(keys[1]) | layers,
        }

    def decoder_hidden(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """[B, T, D] in `config.dtype`, before the output head."""
        tokens = batch[batch_keys.DECODER_INPUT_TOKENS]
        segments = batch.get(batch_keys.DECODER_SEGMENT_IDS, jnp.ones_like(tokens))
        positions = batch.get(batch_keys.DECODER_POSITIONS, jnp.arange(tokens.shape[1])[None])
        prefix = None
        if self.config.prefix_lm:
            prefix = batch[batch_keys.DECODER_CAUSAL_ATTENTION] != 0
        key = used_key(dropout_key, self.config.dropout_rate, params)
        mask = functools.partial(self._mask, segments, prefix)
        return self._run(params, tokens, positions, mask, key)

    def head_kernel(self, params: Params) -> jax.Array:
        """[D, V] float32 output kernel; see `instruct.head.head_logits`."""
        if self.config.tied_output:
            kernel = params["token_embedder"]["embedding"].T
        else:
            kernel = params["decoder"]["logits_dense"]["kernel"]
        return kernel * self.config.d_model**-0.5 if self.config.output_scale else kernel

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
        return self._logits(params, hidden)

    def tree_logits(
        self,
        params: Params,
        inputs: jax.Array,
        tokens: jax.Array,
        depths: jax.Array,
        seen: jax.Array,
    ) -> jax.Array:
        """Logits [B, M, V] float32 after each node of a tree of continuations; see `Model`.

        One pass over the prompt and then the nodes, whose root is the prompt's last token.
        """
        width, there = inputs.shape[1], inputs >= 0
        lengths, last = _lengths_and_last(inputs)
        nodes = jnp.where(depths == 0, last[:, None], tokens)
        of_prompt = jnp.broadcast_to(jnp.arange(width), inputs.shape)
        positions = jnp.concatenate([of_prompt, lengths[:, None] - 1 + depths], axis=1)

        def mask(window: int | None) -> jax.Array:
            prompt = masks.prompt_mask(lengths, width)
            prompt = jnp.broadcast_to(prompt, (*prompt.shape[:2], nodes.shape[1], width))
            of_nodes = jnp.concatenate([prompt, seen[:, None]], axis=-1)
            if window is not None:
                distance = positions[:, width:, None] - positions[:, None, :]
                of_nodes = of_nodes & (distance < window)[:, None]
            prefix = there if self.config.prefix_lm else None
            prompt = masks.prefix_mask(there.astype(jnp.int32), prefix, window).dense()
            prompt = jnp.pad(prompt, [(0, 0)] * 3 + [(0, nodes.shape[1])])
            return jnp.concatenate([prompt, of_nodes], axis=2)

        row = jnp.concatenate([jnp.maximum(inputs, 0), nodes], axis=1)
        hidden = self._run(params, row, positions, mask, None)[:, width:]
        return self._logits(params, hidden)

    def start_prompts(self, params: Params, tokens: jax.Array) -> Prompts:
        """Prefill: keys and values of prompts [B, S], padded with negative tokens on the right.

        A local layer keeps those of the last `window` tokens of each prompt.
        """
        config, part = self.config, _parts(self.config).layer
        (rows, width), there = tokens.shape, tokens >= 0
        lengths, last = _lengths_and_last(tokens)

        def step(turn, visible, layer_params: Params, x: jax.Array, _zeros: KeyValue, _read: None):
            mask, window = visible
            layer_params = gather_params(layer_params, config.dtype)
            x, memory = part.bind(layer_params)(x, turn, mask, None)
            return x, KeyValue(*(_kept(a, lengths, window) for a in memory)).turned()

        def zeros(window: int | None) -> KeyValue:
            shape = (rows, config.num_kv_heads, width, config.head_dim)
            return KeyValue(*[_kept(jnp.zeros(shape, config.dtype), lengths, window)] * 2).turned()

        def mask(window: int | None) -> tuple[jax.Array | masks.SegmentMask, int | None]:
            segments = there.astype(jnp.int32)
            return self._mask(segments, there, window, sparse=("flash", "einsum")), window

        period = layer_period(config, step, jnp.arange(width)[None], mask)
        shapes = [jax.eval_shape(functools.partial(zeros, window)) for window in config.windows]
        cross = layer_zeros(shapes, config.num_layers, config.scan_layers)
        x = self._embed(params, jnp.maximum(tokens, 0))
        nothing = (None,) * len(cross)
        _, cross = update_layers(period, params["decoder"], config.num_layers, x, cross, nothing)
        return Prompts(cross, masks.prompt_mask(lengths, width), lengths, last)

    def decode_step(
        self, params: Params, cache: DecodeCache, tokens: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, DecodeCache]:
        """See `Model.decode_step`; the token at position 0 is the prompt's last one."""
        config, part, prompts = self.config, _parts(self.config).layer, cache.prompts
        lengths, last = prompts.lengths, prompts.last
        assert lengths is not None and last is not None
        number, at = cache.step, decode_cache.token_positions(tokens, positions)
        cache, place = decode_cache.next_place(cache, tokens, positions)
        fed = jnp.where(at == 0, last[:, None], tokens.reshape(positions.shape[0], -1))
        x = self._embed(params, decode_cache.tokens_by_row(fed.reshape(tokens.shape), place))
        turns = lengths[:, None] - 1 + at
        turns = jnp.repeat(turns, x.shape[0] // positions.shape[0], axis=0)

        def mask(window: int | None) -> tuple[CachePlace, jax.Array]:
            if window is None:
                return place, prompts.mask
            width = min(prompts.mask.shape[-1], window)
            local = masks.prompt_window_mask(lengths, at, width, window)
            return decode_cache.local_place(place, number, window), local

        def step(turn, visible, layer_params, x: jax.Array, memory: KeyValue, prompt: KeyValue):
            step_place = StepPlace(turn, *visible)
            return part.bind(layer_params).decode_step(x, memory, prompt, step_place)

        period, decoder = layer_period(config, step, turns, mask), params["decoder"]
        x, memory = update_layers(
            period, decoder, config.num_layers, x, cache.memory, prompts.cross
        )
        hidden = _parts(config).end.bind(decoder).decoder_norm(x).reshape(*tokens.shape, -1)
        logits = head_logits(hidden, self._head(params), self.final_cap)
        return logits, cache._replace(memory=memory)

    def _mask(
        self,
        segments: jax.Array,
        prefix: jax.Array | None,
        window: int | None,
        sparse: Sequence[str] = ("flash",),
    ) -> jax.Array | masks.SegmentMask:
        """What `attend` takes: dense, but for the `sparse` implementations.

        The prefix counts in a prefix-LM only.
        """
        mask = masks.prefix_mask(segments, prefix if self.config.prefix_lm else None, window)
        return mask if platform_implementation(self.config.attention) in sparse else mask.dense()

    def _embed(self, params: Params, tokens: jax.Array) -> jax.Array:
        """Tokens [B, T] -> [B, T, D]."""
        config = self.config
        return scaled(_parts(config).embedder.bind(params["token_embedder"])(tokens), config)

    def _run(self, params, tokens, positions, mask, key) -> jax.Array:
        """Hidden states [B, T, D] after the final norm; `mask(window)` of a kind of layer."""
        config, parts, decoder = self.config, _parts(self.config), params["decoder"]

        def layer(turn, visible, layer_params: Params, x: jax.Array, layer_key: jax.Array | None):
            return parts.layer.bind(layer_params)(x, turn, visible, layer_key)[0]

        period = layer_period(config, layer, positions, mask)
        x, norm = self._embed(params, tokens), parts.end.bind(decoder).decoder_norm
        return run_stack(period, decoder, config.num_layers, x, norm, key, config)


def _kept(memory: jax.Array, lengths: jax.Array, window: int | None) -> jax.Array:
    """Those of keys or values [B, K, S, H] of prompts that a layer with this window keeps."""
    if window is None or memory.shape[2] <= window:
        return memory
    start = masks.prompt_start(lengths, window)
    return jax.vmap(lambda a, i: jax.lax.dynamic_slice_in_dim(a, i, window, axis=1))(memory, start)


def _lengths_and_last(tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B] number of tokens, and last token, of prompts [B, S] padded with negative tokens."""
    lengths = jnp.sum(tokens >= 0, axis=1)
    last = jnp.take_along_axis(tokens, jnp.maximum(lengths - 1, 0)[:, None], axis=1)[:, 0]
    return lengths, jnp.maximum(last, 0)
