"""Blocks of a `StackConfig`: grouped-query attention with rotary positions, layers.

NNX modules that hold only parameters; `decoder_only.py` splits them and runs them as functions.
What differs between layers of a stack (rotation, mask) is an argument.
B rows, T tokens, D model, F feed-forward, N heads, K key-value heads, H head dim, R rows and Q
queries a row while decoding, S tokens of a prompt.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from instruct.head import soft_cap
from instruct.mesh import logical_constraint
from instruct.models.attention import (
    CachePlace,
    KeyValue,
    attend,
    join_heads,
    line_products,
    line_values,
    masked_softmax,
    platform_implementation,
    query_key_products,
    split_heads,
    weighted_values,
    whole_lengths,
    write_column,
)
from instruct.models.blocks import RESIDUAL
from instruct.models.layers import MLP, NORMAL_FAN_IN, Dense, Norm, apply_kept, draw_kept
from instruct.models.masks import MASKED_LOGIT, SegmentMask
from instruct.models.rope import Rotation, frequencies, rotate, rotation
from instruct.models.stack_config import ComputeConfig, StackConfig


class StepPlace(NamedTuple):
    """What attention of one kind of layer reads in a decoding step."""

    rotation: Rotation | None  # [R, 1, 1, H / 2], of the step's token
    cache: CachePlace
    prompt_mask: jax.Array  # [B, 1, 1, S] boolean


class GroupedAttention(nnx.Module):
    """Attention of N heads to K, kernels [D, N * H], [D, K * H] and [N * H, D].

    `memory_width`: width of what keys and values read, if it is not D.
    """

    def __init__(
        self,
        config: StackConfig,
        compute: ComputeConfig,
        *,
        rngs: nnx.Rngs,
        memory_width: int | None = None,
    ):
        self.config, self.compute = config, compute
        memory_width = memory_width or config.d_model
        queries, keys = (n * config.head_dim for n in (config.num_heads, config.num_kv_heads))

        def dense(fan_in: int, fan_out: int, biased: bool) -> Dense:
            return Dense(
                fan_in,
                fan_out,
                dtype=compute.dtype,
                rngs=rngs,
                kernel_init=NORMAL_FAN_IN,
                biased=biased,
            )

        biased = config.attention_bias != "none"
        self.query = dense(config.d_model, queries, biased)
        self.key = dense(memory_width, keys, biased)
        self.value = dense(memory_width, keys, biased)
        self.out = dense(queries, config.d_model, config.attention_bias == "all")
        if config.qk_norm:
            self.query_norm = Norm(config, "float32", config.head_dim)
            self.key_norm = Norm(config, "float32", config.head_dim)

    def _turned(self, x: jax.Array, rotation: Rotation | None, norm: str, scale: float):
        """Heads of x, normed, rotated and scaled in float32."""
        wide = x.astype(jnp.float32)
        if self.config.qk_norm:
            wide = getattr(self, norm)(wide)
        return (rotate(wide, rotation) * scale).astype(self.compute.dtype)

    def queries(self, x: jax.Array, rotation: Rotation | None) -> jax.Array:
        """Scaled queries [B, N, T, H] of x [B, T, D]."""
        scale = self.config.query_scale or self.config.head_dim**-0.5
        heads = split_heads(self.query(x), self.config.num_heads)
        return self._turned(heads, rotation, "query_norm", scale)

    def keys_values(self, x: jax.Array, rotation: Rotation | None) -> KeyValue:
        """Keys and values [B, K, T, H] of x [B, T, D]; whole lengths on every device."""
        key, value = (split_heads(y(x), self.config.num_kv_heads) for y in (self.key, self.value))
        key = self._turned(key, rotation, "key_norm", 1.0)
        return KeyValue(whole_lengths(key), whole_lengths(value))

    def __call__(
        self,
        x: jax.Array,
        memory: KeyValue,
        rotation: Rotation | None,
        mask: jax.Array | SegmentMask,
        kept: jax.Array | None,
    ) -> jax.Array:
        """[B, T, D] queries against `memory` -> [B, T, D]; arguments as in `attend`."""
        attended = attend(
            self.queries(x, rotation),
            memory,
            None,
            mask,
            kept,
            implementation=platform_implementation(self.compute.attention),
            float32_logits=self.compute.float32_attention_logits,
            cap=self.config.attention_cap,
        )
        return self.out(join_heads(attended))

    def decode_step(
        self, x: jax.Array, memory: KeyValue, prompt: KeyValue, place: StepPlace
    ) -> tuple[jax.Array, KeyValue]:
        """One new token [R, Q, D] attends to its prompt and its own columns, in one softmax.

        Returns [R, Q, D] and the updated cache (`write_column`). `prompt` has keys [B, K, H, S] and
        values [B, K, S, H], which all R * Q / B sequences of a prompt share.
        """
        cache, line = place.cache, place.cache.line
        memory = write_column(memory, self.keys_values(x, place.rotation), cache.column)
        query = self.queries(x, place.rotation)
        own, shared = memory.turned(), prompt.turned()
        own_key, shared_key = own.key, shared.key
        if self.compute.float32_attention_logits:
            query, own_key, shared_key = (
                a.astype(jnp.float32) for a in (query, own_key, shared_key)
            )
        rows, prompts = query.shape[0], shared.key.shape[0]

        def masked(logits: jax.Array, visible: jax.Array) -> jax.Array:
            return jnp.where(visible, soft_cap(logits, self.config.attention_cap), MASKED_LOGIT)

        logits = query_key_products(_rows_to_queries(query, prompts), shared_key)
        logits = _queries_to_rows(masked(logits, place.prompt_mask), rows)
        own_logits = masked(line_products(query, own_key, line), cache.visible)
        weights = masked_softmax(jnp.concatenate([logits, own_logits], axis=-1)).astype(x.dtype)
        of_prompt, of_own = jnp.split(weights, [shared.key.shape[2]], axis=-1)
        attended = weighted_values(_rows_to_queries(of_prompt, prompts), shared.value)
        attended = _queries_to_rows(attended, rows) + line_values(of_own, own.value, line)
        return self.out(join_heads(attended)), memory


def _rows_to_queries(x: jax.Array, prompts: int) -> jax.Array:
    """[R, N, Q, ...] -> [B, N, R * Q / B, ...]: all sequences of a prompt as its queries."""
    rows, heads, queries, width = x.shape
    x = x.reshape(prompts, rows // prompts, heads, queries, width)
    return x.swapaxes(1, 2).reshape(prompts, heads, rows // prompts * queries, width)


def _queries_to_rows(x: jax.Array, rows: int) -> jax.Array:
    """The inverse of `_rows_to_queries`."""
    prompts, heads, queries, width = x.shape
    each = queries * prompts // rows
    x = x.reshape(prompts, heads, rows // prompts, each, width)
    return x.swapaxes(1, 2).reshape(rows, heads, each, width)


class Block(nnx.Module):
    """Self-attention and MLP, one after the other or in parallel, added to their input."""

    def __init__(self, config: StackConfig, compute: ComputeConfig, *, rngs: nnx.Rngs):
        self.config, self.compute = config, compute
        self.pre_attention_norm = Norm(config, compute.dtype)
        self.attention = GroupedAttention(config, compute, rngs=rngs)
        if not config.parallel:
            self.pre_mlp_norm = Norm(config, compute.dtype)
        self.mlp = MLP(config, dtype=compute.dtype, rngs=rngs, biased=config.mlp_bias)
        if config.post_norms:
            self.post_attention_norm = Norm(config, compute.dtype)
            self.post_mlp_norm = Norm(config, compute.dtype)

    def __call__(
        self,
        x: jax.Array,
        rotation: Rotation | None,
        mask: jax.Array | SegmentMask,
        key: jax.Array | None,
    ) -> tuple[jax.Array, KeyValue]:
        """[B, T, D] -> [B, T, D] and its keys and values; mask as in `attend`."""
        rows, tokens, width = x.shape
        kept = draw_kept(
            key,
            self.compute.dropout_rate,
            [
                (rows, self.config.num_kv_heads, 1, tokens),
                (rows, 1, width),
                (rows, 1, self.config.d_ff),
                (rows, 1, width),
            ],
            self.compute.dtype,
        )
        y = self.pre_attention_norm(x)
        memory = self.attention.keys_values(y, rotation)
        attended = self.attention(y, memory, rotation, mask, kept[0])
        return self._add(x, y, attended, kept[1:]), memory

    def decode_step(
        self, x: jax.Array, memory: KeyValue, prompt: KeyValue, place: StepPlace
    ) -> tuple[jax.Array, KeyValue]:
        """One token of each sequence [R, Q, D] -> [R, Q, D] and this layer's updated cache."""
        y = self.pre_attention_norm(x)
        attended, memory = self.attention.decode_step(y, memory, prompt, place)
        return self._add(x, y, attended, [None] * 3), memory

    def _add(self, x, y, attended, kept) -> jax.Array:
        """x with attention's result and the MLP's; `y` is x normed."""
        if self.config.parallel:
            mlp = apply_kept(self.mlp(y, kept[1]), kept[2])
            return logical_constraint(x + apply_kept(attended, kept[0]) + mlp, RESIDUAL)
        return self.add_mlp(self.add_attention(x, attended, kept[0]), kept[1:])

    def add_attention(self, x: jax.Array, attended: jax.Array, kept: jax.Array | None) -> jax.Array:
        """x with attention's result."""
        if self.config.post_norms:
            attended = self.post_attention_norm(attended)
        return logical_constraint(x + apply_kept(attended, kept), RESIDUAL)

    def add_mlp(self, x: jax.Array, kept: Sequence[jax.Array | None]) -> jax.Array:
        """x with the MLP's result; dropout factors of its hidden layer and of its result."""
        y = self.mlp(self.pre_mlp_norm(x), kept[0])
        if self.config.post_norms:
            y = self.post_mlp_norm(y)
        return logical_constraint(x + apply_kept(y, kept[1]), RESIDUAL)


def layer_period(
    config: StackConfig,
    run_layer: Callable[..., Any],
    positions: jax.Array,
    mask: Callable[[int | None], Any],
) -> list[Any]:
    """The layers of one period: `run_layer` with its rotation and `mask(window)` given.

    `positions` [B, T] of the tokens that are rotated.
    """
    layers = {}
    for kind in dict.fromkeys(config.pattern):
        theta, scaling, turn = config.rope_theta, config.rope_scaling, None
        if kind == "local" and config.local_rope_theta is not None:
            theta, scaling = config.local_rope_theta, None
        if config.position == "rope":
            turn = rotation(positions, frequencies(config.head_dim, theta, scaling))
        visible = mask(config.window if kind == "local" else None)
        layers[kind] = functools.partial(run_layer, turn, visible)
    return [layers[kind] for kind in config.pattern]


def scaled(x: jax.Array, stack: StackConfig) -> jax.Array:
    """Embeddings [B, T, D] with `embedding_scale`."""
    return x * jnp.asarray(stack.d_model**0.5, x.dtype) if stack.embedding_scale else x
