"""T5's multi-head attention: no biases, no 1/sqrt(head_dim), relative positions as a logit bias.

A query whose mask is False everywhere gets zeros. T5X averages over other examples of the packed
row instead, so that an example with an empty source depends on its neighbours.
Heads come before tokens, [B, N, T, H], so that decoding reads a cache in place; [B, T, N, H] would
be transposed at every step.
B rows, T queries, S keys, N heads, H head dim, D model, K sequences of a row (while decoding).
"""

import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx

from instruct.mesh import logical_constraint
from instruct.models.config import ModelConfig
from instruct.models.layers import NORMAL_FAN_IN, Dense, apply_kept

# Far below any logit, far above float32's overflow; T5X's value.
MASKED_LOGIT = -1e10
# Softmax shifts by the largest logit but at least by this, so a row without keys sums to 0.
LOWEST_SHIFT = -1e9


class KeyValue(NamedTuple):
    """Keys and values [B, N, S, H] of one attention; a pytree."""

    key: jax.Array
    value: jax.Array

    def turned(self) -> "KeyValue":
        """With the last two axes of the keys swapped, as in a decoding cache; its own inverse."""
        return KeyValue(self.key.swapaxes(-1, -2), self.value)


def attend(
    query: jax.Array,
    memory: KeyValue,
    bias: jax.Array | None,
    mask: jax.Array,
    kept: jax.Array | None = None,
    *,
    implementation: str = "einsum",
    float32_logits: bool = False,
) -> jax.Array:
    """Weighted sums of `memory.value`, [B, N, T, H].

    Args:
        query: [B, N, T, H].
        memory: keys and values [B, N, S, H].
        bias: [1, N, T, S] added to the logits ([B, N, T, S] in inference), or None.
        mask: boolean, broadcastable to [B, 1, T, S], True where a query may attend to a key.
        kept: [B, N, 1, S] dropout factors of the probabilities, shared over queries (as in T5X,
            after mesh-tensorflow); 'einsum' only.
        implementation: one of `config.ATTENTION_IMPLEMENTATIONS`.
        float32_logits: products and softmax in float32 for any type of `query`.
    """
    dtype = query.dtype
    if implementation != "einsum":
        rows, _, queries, _ = query.shape
        attended = jax.nn.dot_product_attention(
            query.swapaxes(1, 2),
            memory.key.swapaxes(1, 2),
            memory.value.swapaxes(1, 2),
            None if bias is None else bias.astype(dtype),
            jnp.broadcast_to(mask, (rows, 1, queries, memory.key.shape[2])),
            scale=1.0,
            implementation=cast(Any, implementation),
        )
        return attended.swapaxes(1, 2) * jnp.any(mask, axis=-1, keepdims=True).astype(dtype)
    key = memory.key
    if float32_logits:
        query, key = query.astype(jnp.float32), key.astype(jnp.float32)
    logits = jnp.einsum("bnth,bnsh->bnts", query, key)
    if bias is not None:
        logits = add_bias(logits, bias.astype(logits.dtype))
    weights = masked_softmax(jnp.where(mask, logits, MASKED_LOGIT)).astype(dtype)
    return jnp.einsum("bnts,bnsh->bnth", apply_kept(weights, kept), memory.value)


def attend_lines(
    query: jax.Array,
    memory: KeyValue,
    bias: jax.Array,
    visible: jax.Array,
    line: jax.Array,
    *,
    float32_logits: bool = False,
) -> jax.Array:
    """Attention of one token of each of K beams to the keys of its own ancestors, [B, N, K, H].

    At each step a sequence reads the keys and values that its ancestor of that step wrote. All
    K * T products of a row are computed and those of other lines masked, because moving a cache
    costs more than K small products.

    Args:
        query: [B, N, K, H].
        memory: keys and values [B, N, T * K, H], the sequences of a step adjacent.
        bias: [1, N, 1, T] added to the logits.
        visible: [B, 1, 1, T] boolean, steps that a row may attend to.
        line: [B, 1, K, T, K] boolean: the ancestor whose keys a sequence reads at each step.
        float32_logits: products and softmax in float32 for any type of `query`.
    """
    dtype, key = query.dtype, memory.key
    if float32_logits:
        query, key = query.astype(jnp.float32), key.astype(jnp.float32)
    logits = jnp.einsum("bnqh,bnsh->bnqs", query, key)
    shape = (*query.shape[:3], line.shape[3], line.shape[4])
    logits = jnp.sum(jnp.where(line, logits.reshape(shape), 0), axis=-1)
    logits = jnp.where(visible, logits + bias.astype(logits.dtype), MASKED_LOGIT)
    weights = masked_softmax(logits).astype(dtype)
    weights = jnp.where(line, weights[..., None], 0).reshape(*query.shape[:3], -1)
    return jnp.einsum("bnqs,bnsh->bnqh", weights, memory.value)


@jax.custom_vjp
def add_bias(logits: jax.Array, bias: jax.Array) -> jax.Array:
    """logits [B, N, T, S] + bias [1, N, T, S].

    The bias's gradient, a sum over rows, is written as a product with ones: 0.5 ms a layer on two
    cores, where XLA's reduction takes 45 ms (16 rows, 4 heads, 256 x 256).
    """
    return logits + bias


def _add_bias_forward(logits, bias):
    return logits + bias, None


def _add_bias_backward(_, gradient):
    ones = jnp.ones(gradient.shape[:1], gradient.dtype)
    # Highest: an accelerator's default would round the float32 gradient to bfloat16 first.
    over_rows = jax.lax.dot_general(
        ones, gradient, (((0,), (0,)), ((), ())), precision=jax.lax.Precision.HIGHEST
    )
    return gradient, over_rows[None]


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


@jax.custom_jvp
def masked_softmax(logits: jax.Array) -> jax.Array:
    """Softmax over the last axis; zeros where every logit is `MASKED_LOGIT`."""
    shift = jnp.maximum(jnp.max(logits, axis=-1, keepdims=True), LOWEST_SHIFT)
    unnormalised = jnp.exp(logits - shift)
    total = jnp.sum(unnormalised, axis=-1, keepdims=True)
    # A row with any key has a total of at least 1, whatever its logits.
    return unnormalised / jnp.maximum(total, 1.0)


@masked_softmax.defjvp
def _masked_softmax_jvp(primals, tangents):
    weights = masked_softmax(*primals)
    (tangent,) = tangents
    return weights, weights * (tangent - jnp.sum(weights * tangent, axis=-1, keepdims=True))


class CachePlace(NamedTuple):
    """Position of a decoding step in a cache of T columns; the same in every layer."""

    bias: jax.Array  # [1, N, 1, T], by each column's distance
    visible: jax.Array  # [R, 1, 1, T] boolean
    line: jax.Array | None  # [R, 1, K, T, K] boolean, see `attend_lines`
    column: jax.Array  # int32 scalar, the one to write


class Attention(nnx.Module):
    """Query, key, value and output projections, kernels [D, N * H] and [N * H, D]."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.num_heads = config.num_heads
        self.implementation = config.attention
        self.float32_logits = config.float32_attention_logits
        joined = config.num_heads * config.head_dim
        depth_scale = 1.0 / math.sqrt(config.head_dim)

        def scaled_init(key, shape):
            # The missing 1/sqrt(head_dim) of the logits, folded into the initialisation.
            return NORMAL_FAN_IN(key, shape) * depth_scale

        def dense(fan_in, fan_out, init):
            return Dense(fan_in, fan_out, dtype=config.dtype, rngs=rngs, kernel_init=init)

        self.query = dense(config.d_model, joined, scaled_init)
        self.key = dense(config.d_model, joined, NORMAL_FAN_IN)
        self.value = dense(config.d_model, joined, NORMAL_FAN_IN)
        self.out = dense(joined, config.d_model, NORMAL_FAN_IN)

    def _split_heads(self, x: jax.Array) -> jax.Array:
        heads = x.reshape(*x.shape[:-1], self.num_heads, x.shape[-1] // self.num_heads)
        return logical_constraint(heads.swapaxes(1, 2), ("batch", "heads", "length", "head_dim"))

    def keys_values(self, x: jax.Array) -> KeyValue:
        """Keys and values [B, N, S, H] of x [B, S, D]; whole lengths on every device."""
        split = (self._split_heads(self.key(x)), self._split_heads(self.value(x)))
        return KeyValue(
            *(logical_constraint(y, ("batch", "heads", None, "head_dim")) for y in split)
        )

    def __call__(
        self,
        x: jax.Array,
        memory: KeyValue,
        bias: jax.Array | None,
        mask: jax.Array,
        kept: jax.Array | None = None,
    ) -> jax.Array:
        """[B, T, D] queries against `memory` -> [B, T, D]; other arguments as in `attend`."""
        attended = attend(
            self._split_heads(self.query(x)),
            memory,
            bias,
            mask,
            kept,
            implementation=self.implementation,
            float32_logits=self.float32_logits,
        )
        return self.out(attended.swapaxes(1, 2).reshape(*x.shape[:-1], -1))

    def decode_step(
        self, x: jax.Array, memory: KeyValue, place: CachePlace
    ) -> tuple[jax.Array, KeyValue]:
        """Self-attention of one new token [R, Q, D], and the updated cache.

        `memory` has keys [R, N, H, C] and values [R, N, C, H]. Without lines every sequence is a
        row (Q = 1, C = T); with them the sequences of a prompt share one (Q = K, C = T * K). In
        this form XLA updates the cache in place; along another axis, or after reading it, its CPU
        compiler copies the whole cache.
        """
        new = self.keys_values(x).turned()
        first = place.column * x.shape[1]
        update = jax.lax.dynamic_update_slice_in_dim
        memory = KeyValue(
            update(memory.key, new.key, first, axis=3),
            update(memory.value, new.value, first, axis=2),
        )
        seen = memory.turned()
        query = self._split_heads(self.query(x))
        if place.line is None:
            attended = attend(
                query, seen, place.bias, place.visible, float32_logits=self.float32_logits
            )
        else:
            attended = attend_lines(
                query,
                seen,
                place.bias,
                place.visible,
                place.line,
                float32_logits=self.float32_logits,
            )
        return self.out(attended.swapaxes(1, 2).reshape(*x.shape[:-1], -1)), memory
