"""Parts of a layer: norm, dense, MLP, embedding, relative position bias, dropout.

NNX modules that hold only float32 parameters and static numbers. Parameter names and initialisers
are T5X's (`t5x/examples/t5/layers.py`), so that checkpoints fit; a parameter's path determines its
sharding (`mesh.py`).
B rows, T tokens, D model, F feed-forward, N heads, V vocabulary.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from instruct.collectives import look_up
from instruct.mesh import logical_constraint, platform
from instruct.models.adapters import AdaptedKernel
from instruct.models.config import ModelConfig
from instruct.models.stack_config import StackConfig
from instruct.quantized import Int8Kernel, int8_product

Initializer = Callable[..., jax.Array]

# Adafactor's steps are relative to a parameter's own scale, so these are part of the recipe.
TRUNCATED_FAN_IN: Initializer = jax.nn.initializers.variance_scaling(
    1.0, "fan_in", "truncated_normal"
)
NORMAL_FAN_IN: Initializer = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")
UNIFORM_FAN_AVG: Initializer = jax.nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")


class ShapesOnly(nnx.Rngs):
    """Makes parameters zeros, where only their shapes count.

    To trace the initialisers takes most of the time of making a module.
    """


def fresh(init: Initializer, rngs: nnx.Rngs, shape: tuple[int, ...]) -> nnx.Param:
    """A new float32 parameter."""
    if isinstance(rngs, ShapesOnly):
        return nnx.Param(jnp.zeros(shape, jnp.float32))
    return nnx.Param(init(rngs.params(), shape))


class Dense(nnx.Module):
    """x @ kernel [+ bias]; kernel [in, out] and bias [out] float32, product in `dtype`.

    A kernel may be bound with an adapter (`adapters.py`).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dtype: str,
        rngs: nnx.Rngs,
        kernel_init: Initializer = TRUNCATED_FAN_IN,
        biased: bool = False,
    ):
        self.dtype = dtype
        self.kernel = fresh(kernel_init, rngs, (in_features, out_features))
        if biased:
            self.bias = nnx.Param(jnp.zeros((out_features,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        x, kernel = x.astype(self.dtype), self.kernel.get_value()
        if isinstance(kernel, AdaptedKernel):
            y = project(x, kernel.kernel.astype(self.dtype)) + low_rank_product(x, kernel)
        elif isinstance(kernel, Int8Kernel):
            y = int8_product(x, kernel).astype(self.dtype)
        else:
            y = project(x, kernel.astype(self.dtype))
        return y + self.bias.get_value().astype(self.dtype) if hasattr(self, "bias") else y


def low_rank_product(x: jax.Array, adapted: AdaptedKernel) -> jax.Array:
    """scale * (x A) B of an adapter, x [..., in] -> [..., out], products in the type of x."""
    hidden = project(apply_kept(x, adapted.kept), adapted.a.astype(x.dtype))
    return project((hidden * adapted.scale).astype(x.dtype), adapted.b.astype(x.dtype))


@jax.custom_vjp
def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [..., in] @ kernel [in, out], with a backward pass that is fast with XLA's CPU compiler.

    The kernel's gradient needs one operand transposed, and the compiler fuses that with the
    operand's producer. JAX's own rule always transposes the incoming gradient; for an MLP's input
    kernels that is the GELU's derivative, evaluated column by column, a fifth of a training step.
    This one transposes the narrower operand.
    """
    return x @ kernel


def _project_forward(x, kernel):
    return x @ kernel, (x, kernel)


def _project_backward(saved, gradient):
    x, kernel = saved
    rows = tuple(range(x.ndim - 1))
    if x.shape[-1] <= gradient.shape[-1]:
        kernel_gradient = jax.lax.dot_general(x, gradient, ((rows, rows), ((), ())))
    else:
        kernel_gradient = jax.lax.dot_general(gradient, x, ((rows, rows), ((), ())))
        # Else the compiler moves the transposition to both operands, which takes twice as long.
        kernel_gradient = jax.lax.optimization_barrier(kernel_gradient).T
    return gradient @ kernel.T, kernel_gradient


project.defvjp(_project_forward, _project_backward)


class Norm(nnx.Module):
    """The `norm` of a configuration over the last axis, its statistics in float32.

    `width`: of the last axis, if it is a head's, whose norm has no bias; None: D.
    """

    def __init__(self, config: ModelConfig | StackConfig, dtype: str, width: int | None = None):
        self.dtype, self.kind, self.epsilon = dtype, config.norm, config.norm_epsilon
        init, shape = (jnp.zeros if self.kind == "rms_plus_one" else jnp.ones), (config.d_model,)
        self.scale = nnx.Param(init(shape if width is None else (width,), jnp.float32))
        if config.norm_bias and width is None:
            self.bias = nnx.Param(jnp.zeros(shape, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        wide, scale = x.astype(jnp.float32), self.scale.get_value()
        if self.kind == "layer":
            wide -= jnp.mean(wide, axis=-1, keepdims=True)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(mean_square + self.epsilon)
        if self.kind == "rms":  # rounded before it is scaled, as in T5 and Llama
            return normed.astype(self.dtype) * scale.astype(self.dtype)
        normed *= scale + 1.0 if self.kind == "rms_plus_one" else scale
        if hasattr(self, "bias"):
            normed += self.bias.get_value()
        return normed.astype(self.dtype)


class Embedder(nnx.Module):
    """Token embedding [V, D], shared by encoder, decoder and, when tied, the output."""

    def __init__(
        self, vocab_size: int, d_model: int, *, dtype: str, rngs: nnx.Rngs, scale: float = 1.0
    ):
        self.dtype = dtype
        init = jax.nn.initializers.normal(scale)
        self.embedding = fresh(init, rngs, (vocab_size, d_model))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, T] ids -> [B, T, D], a gather; a one-hot product would double a CPU step's FLOPs."""
        return look_up(self.embedding.get_value(), tokens, self.dtype)


_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
    "gelu-exact": functools.partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
}


class MLP(nnx.Module):
    """An activation between two products; gated, a second input kernel multiplies it."""

    def __init__(
        self,
        config: ModelConfig | StackConfig,
        *,
        dtype: str,
        rngs: nnx.Rngs,
        biased: bool = False,
    ):
        self.activation = config.activations.removeprefix("gated-")
        sizes = {"dtype": dtype, "rngs": rngs, "biased": biased}
        wide = (config.d_model, config.d_ff)
        if config.gated:
            self.wi_0 = Dense(*wide, **sizes)
            self.wi_1 = Dense(*wide, **sizes)
        else:
            self.wi = Dense(*wide, **sizes)
        self.wo = Dense(config.d_ff, config.d_model, **sizes)

    def __call__(self, x: jax.Array, kept: jax.Array | None = None) -> jax.Array:
        """[..., D] -> [..., D]; `kept` [B, 1, F] scales the hidden layer (see `draw_kept`)."""
        activate = _ACTIVATIONS[self.activation]
        if hasattr(self, "wi"):
            hidden = activate(self.wi(x))
        else:
            hidden = activate(self.wi_0(x)) * self.wi_1(x)
        return self.wo(apply_kept(hidden, kept))


class RelativePositionBias(nnx.Module):
    """One table [N, buckets] a stack: attention bias by bucketed key-query distance."""

    def __init__(self, config: ModelConfig, *, bidirectional: bool, rngs: nnx.Rngs):
        self.dtype = config.dtype
        self.bidirectional = bidirectional
        self.max_distance = config.relpos_max_distance
        shape = (config.num_heads, config.relpos_buckets)
        self.rel_embedding = fresh(UNIFORM_FAN_AVG, rngs, shape)

    def of_distance(self, distance: jax.Array) -> jax.Array:
        """[...] int32 key minus query position -> [N, ...] bias."""
        table = self.rel_embedding.get_value()
        bucket = relative_position_bucket(
            distance, self.bidirectional, table.shape[1], self.max_distance
        )
        return table.astype(self.dtype)[:, bucket]

    def __call__(self, num_tokens: int) -> jax.Array:
        """[1, N, T, T] bias of a whole row; looks up each of the 2T distances once."""
        period = 2 * num_tokens
        steps = jnp.arange(period)
        distance = jnp.where(steps < num_tokens, steps, steps - period)
        return skew(self.of_distance(distance))[None]


@jax.custom_vjp
def skew(by_distance: jax.Array) -> jax.Array:
    """Values [N, 2T] of the distances 0 to T - 1, any, 1 - T to -1 -> [N, T, T] by row and column.

    On CPUs a gather of T windows, which XLA computes once. It would fuse `_skew_by_reshaping` with
    the mask of every attention, and divide twice for each element.
    """
    if platform() != "cpu":
        return _skew_by_reshaping(by_distance)
    num_tokens = by_distance.shape[1] // 2
    ascending = jnp.roll(by_distance, num_tokens - 1, axis=1)
    starts = jnp.arange(num_tokens - 1, -1, -1)
    return jax.vmap(
        lambda start: jax.lax.dynamic_slice_in_dim(ascending, start, num_tokens, axis=1), out_axes=1
    )(starts)


def _skew_by_reshaping(by_distance: jax.Array) -> jax.Array:
    """`skew` in a form of which the gradient is a sum, not a scatter over T * T entries.

    With w(d) the value at distance d and T = 2, the rows of [w0 w1 w_ w-1] repeated and cut to 3
    columns give

        w0  w1  w_             w0  w1
        w-1 w0  w1      ->     w-1 w0
    """
    heads, period = by_distance.shape
    num_tokens = period // 2
    repeated = jnp.broadcast_to(by_distance[:, None], (heads, num_tokens, period))
    flat = repeated.reshape(heads, -1)[:, : num_tokens * (period - 1)]
    return flat.reshape(heads, num_tokens, period - 1)[:, :, :num_tokens]


def _skew_backward(by_distance, gradient):
    return jax.vjp(_skew_by_reshaping, by_distance)[1](gradient)


skew.defvjp(lambda by_distance: (skew(by_distance), by_distance), _skew_backward)


def relative_position_bucket(
    distance: jax.Array, bidirectional: bool, num_buckets: int, max_distance: int
) -> jax.Array:
    """Bucket of a distance (key position minus query position), T5's scheme.

    Half of the buckets are exact small distances, half grow logarithmically up to `max_distance`,
    beyond which all share the last. Bidirectional uses half of the buckets for each sign; causal
    puts every later key into bucket 0 (T5 paper, section 2.1; mesh-tensorflow's formula).

        distance        -200  -9  -1   0   1   9  200     (32 buckets, max distance 128)
        bidirectional     15   8   1   0  17  24   31
        causal            31   9   1   0   0   0    0
    """
    behind = -distance
    first = jnp.zeros_like(behind)
    if bidirectional:
        num_buckets //= 2
        first = jnp.where(behind < 0, num_buckets, 0)
        behind = jnp.abs(behind)
    else:
        behind = jnp.maximum(behind, 0)
    num_exact = num_buckets // 2
    # The epsilon avoids log(0) in the branch that is not taken, as in mesh-tensorflow.
    ratio = behind.astype(jnp.float32) / num_exact + jnp.finfo(jnp.float32).eps
    scale = (num_buckets - num_exact) / math.log(max_distance / num_exact)
    logarithmic = num_exact + (jnp.log(ratio) * scale).astype(jnp.int32)
    logarithmic = jnp.minimum(logarithmic, num_buckets - 1)
    return first + jnp.where(behind < num_exact, behind, logarithmic)


def draw_kept(
    key: jax.Array | None, rate: float, shapes: Sequence[tuple[int, ...]], dtype: str
) -> list[jax.Array | None]:
    """Dropout factors of several shapes [B, ...]: 0 with probability `rate`, else 1 / (1 - rate).

    One random draw serves a whole layer: on a CPU the number of draws costs time, not their size.
    All shapes share B, so that the draw shards over rows. Without a key, or at rate 0, every factor
    is None and `apply_kept` returns x.
    """
    if key is None or rate == 0.0:
        return [None] * len(shapes)
    widths = [math.prod(shape[1:]) for shape in shapes]
    bits = jax.random.bits(key, (shapes[0][0], sum(widths)), jnp.uint32)
    # P(bits < threshold) = 1 - rate to within 2^-32.
    threshold = jnp.uint32(min(round((1.0 - rate) * 2**32), 2**32 - 1))
    kept = jnp.where(bits < threshold, 1.0 / (1.0 - rate), 0.0).astype(dtype)
    kept = logical_constraint(kept, ("batch", None))
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    return [
        kept[:, end - width : end].reshape(shape) for shape, width, end in zip(shapes, widths, ends)
    ]


def apply_kept(x: jax.Array, kept: jax.Array | None) -> jax.Array:
    """x times its dropout factors, broadcast over axes of length 1."""
    return x if kept is None else x * kept
