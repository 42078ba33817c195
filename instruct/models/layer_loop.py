"""Running a stack of layers, unrolled or as a loop over stacked parameters.

A stack repeats a *period* of P functions, one a layer: layer i runs function i mod P. The loop is
over whole periods, unrolled inside, so that what differs between layers is static; layers after
the last whole period follow unrolled.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from instruct.collectives import gather_params, gathers
from instruct.mesh import logical_constraint
from instruct.model_interface import Params
from instruct.models.adapters import bind_adapters, draw_dropout
from instruct.models.blocks import RESIDUAL
from instruct.models.layers import ShapesOnly, apply_kept, draw_kept
from instruct.models.layout import layer_of

# (parameters of the layer, x, dropout key or None) -> x
LayerFn = Callable[[Params, jax.Array, jax.Array | None], jax.Array]
# (parameters of the layer, x, what the layer writes, what it reads) -> (x, what it has written)
StepFn = Callable[[Params, jax.Array, Any, Any], tuple[jax.Array, Any]]


class Part:
    """A module, split once into its static graph and its parameters' names."""

    def __init__(self, build: Callable[[nnx.Rngs], Any]):
        self._build = lambda key: build(nnx.Rngs(params=key))
        module = nnx.eval_shape(lambda: build(ShapesOnly()))
        self.graph, state = nnx.split(module)
        self.names = frozenset(nnx.to_pure_dict(state))

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        return nnx.to_pure_dict(nnx.state(self._build(key)))

    def bind(self, params: Params) -> Any:
        """The module with these parameters, adapters included; ignores other entries."""
        return nnx.merge(self.graph, bind_adapters({name: params[name] for name in self.names}))


def init_layers(part: Part, key: jax.Array, num_layers: int, scan_layers: bool) -> Params:
    """Fresh parameters of equal layers, stacked or apart; both agree up to rounding."""
    # vmap in both layouts, so that the program does not grow with depth.
    stacked = jax.vmap(part.init)(jax.random.split(key, num_layers))
    if scan_layers:
        return {"layers": stacked}
    return {f"layers_{i}": layer_of(stacked, i) for i in range(num_layers)}


def run_stack(
    period: Sequence[LayerFn],
    params: Params,
    num_layers: int,
    x: jax.Array,
    norm: Callable[[jax.Array], jax.Array],
    key: jax.Array | None,
    config: Any,
    by_token: bool = False,
) -> jax.Array:
    """Embeddings [B, T, D] through layers and final norm, with dropout before and after.

    Arguments as in `run_layers`; `by_token`: the last dropout differs over the length.
    """
    rows, length, width = x.shape
    shapes = [(rows, 1, width), (rows, length if by_token else 1, width)]
    ends = draw_kept(fold(key, num_layers), config.dropout_rate, shapes, config.dtype)
    x = logical_constraint(apply_kept(x, ends[0]), RESIDUAL)
    x = run_layers(period, params, num_layers, x, key, config)
    return apply_kept(norm(x), ends[1])


def run_layers(
    period: Sequence[LayerFn],
    params: Params,
    num_layers: int,
    x: jax.Array,
    key: jax.Array | None,
    config: Any,
) -> jax.Array:
    """Applies the layers of `params` to x, with gathered weights and `config.remat`.

    Args:
        period: the functions of one period.
        params: `layers_{i}`, or `layers` stacked; other entries are ignored.
        num_layers: L.
        x: the input of the first layer.
        key: dropout key, folded with the layer's number.
        config: `dtype`, `remat` and `scan_layers` of a configuration.
    """
    layers, size = [_computed(layer, config) for layer in period], len(period)
    if not config.scan_layers:
        for i in range(num_layers):
            x = layers[i % size](params[f"layers_{i}"], x, fold(key, i))
        return x
    count, rest = divmod(num_layers, size)
    stacked = params["layers"]
    periods = stacked
    if size > 1:
        periods = jax.tree.map(
            lambda leaf: leaf[: count * size].reshape(count, size, *leaf.shape[1:]), stacked
        )

    def body(x, indexed):
        index, layer_params = indexed
        if size == 1:
            return layers[0](layer_params, x, fold(key, index)), None
        for j, layer in enumerate(layers):
            x = layer(layer_of(layer_params, j), x, fold(key, index * size + j))
        return x, None

    x = jax.lax.scan(body, x, (jnp.arange(count), periods))[0]
    for i in range(num_layers - rest, num_layers):
        x = layers[i % size](layer_of(stacked, i), x, fold(key, i))
    return x


def _computed(run_layer: LayerFn, config: Any) -> LayerFn:
    """A layer that gathers its weights, and recomputes in the backward pass what `remat` says."""

    @functools.wraps(run_layer)
    def layer(layer_params, x, layer_key):
        layer_params = gather_params(layer_params, config.dtype)

        def draw(rate: float, widths: Sequence[int]) -> list[jax.Array | None]:
            shapes = [(x.shape[0], 1, width) for width in widths]
            return draw_kept(fold(layer_key, 1), rate, shapes, config.dtype)

        return run_layer(draw_dropout(layer_params, draw), x, layer_key)

    if config.remat == "none" and not gathers(jax.sharding.get_abstract_mesh()):
        return layer
    policy = {
        "none": _all_but_gathered,
        "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        "full": jax.checkpoint_policies.nothing_saveable,
    }[config.remat]
    # Inside a scan the loop keeps the compiler from eliminating the recomputation.
    return jax.checkpoint(layer, policy=policy, prevent_cse=not config.scan_layers)


def _all_but_gathered(_primitive: Any, *_: Any, **params: Any) -> bool:
    """Policy of `jax.checkpoint`: whole weights are gathered again, everything else is saved."""
    inner = params.get("call_jaxpr")  # of a `custom_vjp`, as `gather_params` is
    equations = () if inner is None else inner.eqns
    return not any(equation.primitive.name == "sharding_constraint" for equation in equations)


def update_layers(
    period: Sequence[StepFn],
    params: Params,
    num_layers: int,
    x: jax.Array,
    written: tuple[Any, ...],
    read: tuple[Any, ...],
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Applies layers that each update their part of `written`, such as a cache, in place.

    Unrolled, `written` and `read` have an entry a layer. Stacked, entry j is of layers j, j + P,
    j + 2 P, ..., with their axis first.
    """
    size = len(period)
    if "layers" not in params:
        parts = list(written)
        for i in range(num_layers):
            x, parts[i] = period[i % size](params[f"layers_{i}"], x, parts[i], read[i])
        return x, tuple(parts)

    def layer(index, j, x, written):
        def at(tree, i):
            return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False), tree)

        layer_params = at(params["layers"], index * size + j)
        x, new = period[j](layer_params, x, at(written[j], index), at(read[j], index))
        part = jax.tree.map(
            lambda whole, one: jax.lax.dynamic_update_index_in_dim(whole, one, index, 0),
            written[j],
            new,
        )
        return x, (*written[:j], part, *written[j + 1 :])

    def body(index, carry):
        for j in range(size):
            carry = layer(index, j, *carry)
        return carry

    count, rest = divmod(num_layers, size)
    carry = jax.lax.fori_loop(0, count, body, (x, written))
    for j in range(rest):
        carry = layer(count, j, *carry)
    return carry


def map_layers(
    compute: Callable[[Params], Any], params: Params, num_layers: int, period: int = 1
) -> tuple[Any, ...]:
    """`compute` of each layer's parameters, arranged for `update_layers` to read."""
    if "layers" not in params:
        return tuple(compute(params[f"layers_{i}"]) for i in range(num_layers))
    parts = [jax.tree.map(lambda a, j=j: a[j::period], params["layers"]) for j in range(period)]
    return tuple(jax.lax.map(compute, part) for part in parts)


def layer_zeros(values: Sequence[Any], num_layers: int, stacked: bool) -> tuple[Any, ...]:
    """Zeros for `update_layers` to write, from one layer's shapes for each layer of a period."""
    size = len(values)

    def zeros(value: Any, *leading: int) -> Any:
        return jax.tree.map(lambda leaf: jnp.zeros((*leading, *leaf.shape), leaf.dtype), value)

    if not stacked:
        return tuple(zeros(values[i % size]) for i in range(num_layers))
    return tuple(zeros(value, len(range(j, num_layers, size))) for j, value in enumerate(values))


def fold(key: jax.Array | None, number: int | jax.Array) -> jax.Array | None:
    """`jax.random.fold_in`, or None without a key."""
    return None if key is None else jax.random.fold_in(key, number)
