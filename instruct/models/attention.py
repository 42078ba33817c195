"""Attention of queries to keys, and T5's multi-head form: no biases, no 1/sqrt(head_dim), relative
positions as a logit bias. `stack_blocks.py` has the form of the other models.

A query whose mask is False everywhere gets zeros. T5X averages over other examples of the packed
row instead, so that an example with an empty source depends on its neighbours.
Heads come before tokens, [B, N, T, H], so that decoding reads a cache in place; [B, T, N, H] would
be transposed at every step.
B rows, T queries, S keys, N heads, G heads of keys and values (N, or a divisor), H head dim,
D model, K sequences of a row (while decoding).
"""

import concurrent.futures
import functools
import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx

from instruct.errors import UserError
from instruct.head import soft_cap
from instruct.mesh import logical_constraint, logical_spec, platform
from instruct.models.config import ModelConfig
from instruct.models.flash import flash_attention
from instruct.models.layers import NORMAL_FAN_IN, Dense, apply_kept
from instruct.models.masks import LOWEST_SHIFT, MASKED_LOGIT, SegmentMask
from instruct.models.splash import splash_attention

# Of queries in `_attend_in_blocks`: tokens of a block, and blocks of a row.
_SMALLEST_BLOCK, _MOST_BLOCKS = 256, 8
# Largest share by which a bias's gradient in bfloat16 may differ; a wrong one differs by about 1.
_BIAS_GRADIENT_TOLERANCE = 0.05


class KeyValue(NamedTuple):
    """Keys and values [B, G, S, H] of one attention; a pytree."""

    key: jax.Array
    value: jax.Array

    def turned(self) -> "KeyValue":
        """With the last two axes of the keys swapped, as in a decoding cache; its own inverse."""
        return KeyValue(self.key.swapaxes(-1, -2), self.value)


def attend(
    query: jax.Array,
    memory: KeyValue,
    bias: jax.Array | None,
    mask: jax.Array | SegmentMask,
    kept: jax.Array | None = None,
    *,
    implementation: str = "einsum",
    float32_logits: bool = False,
    cap: float | None = None,
) -> jax.Array:
    """Weighted sums of `memory.value`, [B, N, T, H].

    Args:
        query: [B, N, T, H].
        memory: keys and values [B, G, S, H]; N / G consecutive heads read the same.
        bias: [1, N, T, S] added to the logits ([B, N, T, S] in inference), or None. With a
            `SegmentMask`, by distance as in `flash.flash_attention`.
        mask: boolean, broadcastable to [B, 1, T, S], True where a query may attend to a key; or a
            `SegmentMask`, for the flash kernel and, with 'einsum', for `_attend_in_blocks`.
        kept: [B, G, 1, S] dropout factors of the probabilities, shared over queries (as in T5X,
            after mesh-tensorflow). A probability's factor depends on its key alone, so it scales
            that key's value, which every implementation can do.
        implementation: as `platform_implementation` returns; 'flash' with a boolean mask is
            'einsum'.
        float32_logits: products and softmax in float32 for any type of `query`; the flash kernel,
            'xla' and 'cudnn' always do that.
        cap: soft cap of the logits, see `instruct.head.soft_cap`; not of 'xla' and 'cudnn'.

    Raises:
        UserError: 'cudnn' cannot run here or its bias gradient is wrong, the mesh shards the
            length, or the implementation has no soft cap or prefix.
    """
    dtype, value = query.dtype, memory.value
    if kept is not None:
        value = apply_kept(value, kept.swapaxes(-1, -2))
    if isinstance(mask, SegmentMask):
        if implementation == "flash":
            return _sharded_flash(query, memory.key, value, bias, mask, cap)
        assert bias is None and implementation == "einsum"
        memory = KeyValue(memory.key, value)
        return _attend_in_blocks(query, memory, mask, float32_logits=float32_logits, cap=cap)
    if implementation in ("xla", "cudnn"):
        if cap is not None:
            raise UserError(
                f"attention = {implementation!r} has no soft cap of logits, but attention_cap is "
                f"{cap}. Set attention = 'einsum'."
            )
        if implementation == "cudnn":
            _check_cudnn(dtype, bias is not None)
        return _dot_product_attention(query, memory.key, value, bias, mask, implementation)
    key = memory.key
    if float32_logits:
        query, key = query.astype(jnp.float32), key.astype(jnp.float32)
    logits = soft_cap(query_key_products(query, key), cap)
    if bias is not None:
        logits = add_bias(logits, bias.astype(logits.dtype))
    weights = masked_softmax(mask_logits(logits, mask)).astype(dtype)
    return weighted_values(weights, value)


def _attend_in_blocks(
    query: jax.Array, memory: KeyValue, mask: SegmentMask, **options: Any
) -> jax.Array:
    """Self-attention of one block of queries after another, to the keys that its mask allows.

    Faster than all at once where logits exceed a processor's caches (1.5 times for 4 rows of 1,536
    tokens on two cores); without gradients, of which each block would be kept.
    """
    length, dense = query.shape[2], mask.dense()
    size = max(_SMALLEST_BLOCK, -(-length // _MOST_BLOCKS))
    attended = []
    for start in range(0, length, size):
        queries, keys = slice(start, start + size), slice(None)
        if mask.causal and mask.prefix is None:
            keys = slice(max(0, start + 1 - (mask.window or length)), start + size)
        block = KeyValue(*(a[:, :, keys] for a in memory))
        visible = dense[:, :, queries, keys]
        attended.append(attend(query[:, :, queries], block, None, visible, **options))
    return jnp.concatenate(attended, axis=2)


def query_key_products(query: jax.Array, key: jax.Array) -> jax.Array:
    """query [B, N, T, H] and key [B, G, S, H] -> [B, N, T, S]."""
    shape = (*query.shape[:3], key.shape[2])
    # The queries of all heads that share keys are as many queries of one head.
    query = query.reshape(query.shape[0], key.shape[1], -1, query.shape[3])
    return _products(query, key).reshape(shape)


def weighted_values(weights: jax.Array, value: jax.Array) -> jax.Array:
    """weights [B, N, T, S] and value [B, G, S, H] -> [B, N, T, H]."""
    shape = (*weights.shape[:3], value.shape[3])
    rows, heads, queries, keys = weights.shape
    groups = value.shape[1]
    weights = weights.reshape(rows, groups, heads // groups * queries, keys)  # may be without keys
    return _weighted_sums(weights, value).reshape(shape)


@jax.custom_vjp
def _products(query: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.einsum("bnth,bnsh->bnts", query, key)


@jax.custom_vjp
def _weighted_sums(weights: jax.Array, value: jax.Array) -> jax.Array:
    return jnp.einsum("bnts,bnsh->bnth", weights, value)


def _sums_over_queries(narrow: jax.Array, wide: jax.Array) -> jax.Array:
    """[.., T, H] and [.., T, S] -> [.., S, H]: the gradient by keys or values.

    A contraction over queries transposes one operand. As in `layers.project` that is the narrow
    one; for keys JAX's own rule transposes the wide one, which takes several times as long.
    """
    over_queries = (((2,), (2,)), ((0, 1), (0, 1)))
    return jax.lax.dot_general(narrow, wide, over_queries).swapaxes(-1, -2)


def _products_backward(saved, gradient):
    query, key = saved
    return _weighted_sums(gradient, key), _sums_over_queries(query, gradient)


def _weighted_sums_backward(saved, gradient):
    weights, value = saved
    return _products(gradient, value), _sums_over_queries(gradient, weights)


_products.defvjp(lambda *given: (_products(*given), given), _products_backward)
_weighted_sums.defvjp(lambda *given: (_weighted_sums(*given), given), _weighted_sums_backward)


def platform_implementation(attention: str) -> str:
    """Resolves a configuration's `attention`: 'flash' is cuDNN's on a GPU, 'einsum' on a CPU."""
    if attention != "flash":
        return attention
    return {"tpu": "flash", "gpu": "cudnn"}.get(platform(), "einsum")


def _dot_product_attention(query, key, value, bias, mask, implementation: str) -> jax.Array:
    """`jax.nn.dot_product_attention` with zeros for a query without keys."""
    rows, _, queries, _ = query.shape
    attended = jax.nn.dot_product_attention(
        query.swapaxes(1, 2),
        key.swapaxes(1, 2),
        value.swapaxes(1, 2),
        None if bias is None else bias.astype(query.dtype),
        jnp.broadcast_to(mask, (rows, 1, queries, key.shape[2])),
        scale=1.0,
        implementation=cast(Any, implementation),
    )
    return attended.swapaxes(1, 2) * jnp.any(mask, axis=-1, keepdims=True).astype(query.dtype)


def _flash(query, key, value, bias, mask: SegmentMask, cap: float | None) -> jax.Array:
    """The kernel for causal stacks without a bias, else T5's."""
    if mask.causal and bias is None:
        return splash_attention(query, key, value, mask, cap)
    return flash_attention(query, key, value, bias, mask)


def _sharded_flash(query, key, value, bias, mask: SegmentMask, cap: float | None) -> jax.Array:
    """`_flash` of each device's rows and heads; XLA cannot partition a Pallas call."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _flash(query, key, value, bias, mask, cap)
    if mesh.shape.get("sequence", 1) > 1:
        raise UserError(
            f"the model's attention = 'flash' needs all keys of a row on one device, but the mesh "
            f"has sequence = {mesh.shape['sequence']}. Set MeshConfig.sequence = 1, or "
            "the model's attention = 'einsum'."
        )
    query_segments, key_segments = mask.segments(query.shape[0], query.shape[2])
    heads = ("batch", "heads", "length", "head_dim")
    if key.shape[1] > 1 and logical_spec(key.shape, heads) != logical_spec(query.shape, heads):
        # Devices share heads of keys: each gets its own queries' copy.
        key, value = (jnp.repeat(a, query.shape[1] // a.shape[1], axis=1) for a in (key, value))

    def shard(query, key, value, bias, query_segments, key_segments):
        segments = mask._replace(queries=query_segments, keys=key_segments)
        return _flash(query, key, value, bias, segments, cap)

    return jax.shard_map(
        shard,
        in_specs=(
            *(logical_spec(x.shape, heads) for x in (query, key, value)),
            None if bias is None else logical_spec(bias.shape, ("heads", None)),
            *(logical_spec(x.shape, ("batch", "length")) for x in (query_segments, key_segments)),
        ),
        out_specs=logical_spec(query.shape, heads),
        check_vma=False,  # a Pallas call does not say how its results vary over the mesh
    )(query, key, value, bias, query_segments, key_segments)


def _check_cudnn(dtype: jnp.dtype, biased: bool) -> None:
    """Raises UserError if cuDNN's attention cannot run here or has a wrong bias gradient."""
    if platform() != "gpu" or dtype == jnp.float32:
        raise UserError(
            f"cuDNN's attention needs a GPU and dtype = 'bfloat16', but the platform is "
            f"{platform()!r} and the model's dtype is {dtype.name!r}. Set its attention = "
            "'einsum', or its dtype = 'bfloat16' on a GPU."
        )
    # Several versions returned zeros, one row's gradient or NaN (jax issues 27184, 30593, 32242).
    if biased and not bias_gradient_error("cudnn") < _BIAS_GRADIENT_TOLERANCE:
        raise UserError(
            f"cuDNN's attention returns a wrong gradient of the relative position bias with jax "
            f"{jax.__version__} on this GPU (relative error {bias_gradient_error('cudnn'):.2g}). "
            "Set the model's attention = 'einsum', or install another nvidia-cudnn."
        )


@functools.lru_cache(maxsize=8)
def bias_gradient_error(implementation: str) -> float:
    """Relative error of a bias's gradient over two rows in bfloat16, against 'einsum'.

    Computed once a process, on its default device.
    """

    def error() -> float:
        keys = jax.random.split(jax.random.key(0), 5)
        query, key, value, toward = jax.random.normal(keys[0], (4, 2, 2, 64, 64), jnp.bfloat16)
        bias = jax.random.normal(keys[1], (1, 2, 64, 64), jnp.bfloat16)
        mask = jax.random.bernoulli(keys[2], 0.7, (2, 1, 64, 64)).at[:, :, :, 0].set(True)

        def total(bias, attention):
            attended = attention(query, key, value, bias, mask)
            return jnp.sum((attended * toward).astype(jnp.float32))

        def einsum(query, key, value, bias, mask):
            return attend(query, KeyValue(key, value), bias, mask, float32_logits=True)

        def other(query, key, value, bias, mask):
            return _dot_product_attention(query, key, value, bias, mask, implementation)

        expected, gradient = (
            jax.jit(jax.grad(functools.partial(total, attention=attention)))(bias)
            for attention in (einsum, other)
        )
        return float(jnp.max(jnp.abs(gradient - expected)) / jnp.max(jnp.abs(expected)))

    # In a thread of its own: the caller is being traced, under a mesh.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(error).result()


def attend_lines(
    query: jax.Array,
    memory: KeyValue,
    bias: jax.Array | None,
    visible: jax.Array,
    line: jax.Array,
    *,
    float32_logits: bool = False,
) -> jax.Array:
    """Attention of one token of each of K beams to the keys of its own ancestors, [B, N, K, H].

    At each step a sequence reads the keys and values that its ancestor of that step wrote.

    Args:
        query: [B, N, K, H].
        memory: keys and values [B, N, T * K, H], the sequences of a step adjacent.
        bias: [1, N, 1, T] added to the logits, or None.
        visible: [B, 1, 1, T] boolean, steps that a row may attend to.
        line: [B, 1, K, T, K] boolean: the ancestor whose keys a sequence reads at each step.
        float32_logits: products and softmax in float32 for any type of `query`.
    """
    dtype, key = query.dtype, memory.key
    if float32_logits:
        query, key = query.astype(jnp.float32), key.astype(jnp.float32)
    logits = line_products(query, key, line)
    if bias is not None:
        logits += bias.astype(logits.dtype)
    logits = jnp.where(visible, logits, MASKED_LOGIT)
    return line_values(masked_softmax(logits).astype(dtype), memory.value, line)


def line_products(query: jax.Array, key: jax.Array, line: jax.Array | None) -> jax.Array:
    """query [B, N, K, H] and key [B, G, T * K, H] -> [B, N, K, T], see `attend_lines`.

    All K * T products of a row are computed and those of other lines masked, because moving a cache
    costs more than K small products. Without lines every sequence has a row of its own.
    """
    logits = query_key_products(query, key)
    if line is None:
        return logits
    shape = (*query.shape[:3], line.shape[3], line.shape[4])
    return jnp.sum(jnp.where(line, logits.reshape(shape), 0), axis=-1)


def line_values(weights: jax.Array, value: jax.Array, line: jax.Array | None) -> jax.Array:
    """weights [B, N, K, T] and value [B, G, T * K, H] -> [B, N, K, H], see `attend_lines`."""
    if line is not None:
        weights = jnp.where(line, weights[..., None], 0).reshape(*weights.shape[:3], -1)
    return weighted_values(weights, value)


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
def mask_logits(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """`logits` where `mask`, else `MASKED_LOGIT`; for `masked_softmax` alone.

    The gradient is not masked, since that of the softmax is 0 where its weight is, and XLA would
    compute the mask again for each element (docs/performance.md).
    """
    return jnp.where(mask, logits, MASKED_LOGIT)


@mask_logits.defjvp
def _mask_logits_jvp(primals, tangents):
    return mask_logits(*primals), tangents[0]


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
    """Position of a decoding step in a cache of T columns; the same in every layer.

    A cache by position takes M tokens of a row in one step, and each row has columns of its own.
    """

    bias: jax.Array | None  # [1, N, 1, T] or [R, N, M, T], by each column's distance
    visible: jax.Array  # [R, 1, 1, T] or [R, 1, M, T] boolean
    line: jax.Array | None  # [R, 1, K, T, K] boolean, see `attend_lines`
    column: jax.Array  # int32 scalar, the one to write; by position [R], the first of M
    ages: jax.Array  # [1, 1, T] or [R, M, T] int32, how far back each column is


def write_column(memory: KeyValue, new: KeyValue, column: jax.Array) -> KeyValue:
    """A decoding cache with the keys and values [R, G, Q, H] of one step.

    `memory` has keys [R, G, H, C] and values [R, G, C, H]. Without lines every sequence is a row
    (Q = 1, C = T); with them the sequences of a prompt share one (Q = K, C = T * K). In this form
    XLA updates the cache in place; along another axis, or after reading it, its CPU compiler copies
    the whole cache. `column` [R]: the first of Q columns that a row writes.
    """
    update = jax.lax.dynamic_update_slice_in_dim

    def write(memory: KeyValue, new: KeyValue, first: jax.Array) -> KeyValue:
        return KeyValue(
            update(memory.key, new.key, first, axis=-1),
            update(memory.value, new.value, first, axis=-2),
        )

    if column.ndim:
        return jax.vmap(write)(memory, new.turned(), column)
    return write(memory, new.turned(), column * new.value.shape[2])


def split_heads(x: jax.Array, num_heads: int) -> jax.Array:
    """[B, T, N * H] -> [B, N, T, H]."""
    heads = x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)
    return logical_constraint(heads.swapaxes(1, 2), ("batch", "heads", "length", "head_dim"))


def join_heads(x: jax.Array) -> jax.Array:
    """[B, N, T, H] -> [B, T, N * H]."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def whole_lengths(x: jax.Array) -> jax.Array:
    """Keys or values [B, G, S, H], of all positions on every device."""
    return logical_constraint(x, ("batch", "heads", None, "head_dim"))


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

    def keys_values(self, x: jax.Array) -> KeyValue:
        """Keys and values [B, N, S, H] of x [B, S, D]; whole lengths on every device."""
        split = (split_heads(y(x), self.num_heads) for y in (self.key, self.value))
        return KeyValue(*map(whole_lengths, split))

    def __call__(
        self,
        x: jax.Array,
        memory: KeyValue,
        bias: jax.Array | None,
        mask: jax.Array | SegmentMask,
        kept: jax.Array | None = None,
        *,
        implementation: str | None = None,
    ) -> jax.Array:
        """[B, T, D] queries against `memory` -> [B, T, D]; other arguments as in `attend`.

        `implementation`: None: as configured.
        """
        attended = attend(
            split_heads(self.query(x), self.num_heads),
            memory,
            bias,
            mask,
            kept,
            implementation=implementation or platform_implementation(self.implementation),
            float32_logits=self.float32_logits,
        )
        return self.out(join_heads(attended))

    def decode_step(
        self, x: jax.Array, memory: KeyValue, place: CachePlace
    ) -> tuple[jax.Array, KeyValue]:
        """Self-attention of a step's tokens [R, Q, D], and the updated cache (`write_column`)."""
        memory = write_column(memory, self.keys_values(x), place.column)
        seen = memory.turned()
        query = split_heads(self.query(x), self.num_heads)
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
        return self.out(join_heads(attended)), memory
