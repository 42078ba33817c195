"""LoRA: low-rank adapters of kernels, as further entries of the parameter tree.

An adapted kernel W [in, out] has three entries beside it, and y = x W + scale * (x A) B:

    kernel      [in, out]
    lora_a      [in, r]     A, uniform in +-1 / sqrt(in), as in PEFT
    lora_b      [r, out]    B, zeros at the start, so that the model computes what its base does
    lora_scale  []          alpha / r; never trained

All are float32, and stacked layers have the layer axis first, as every parameter does. The entries
of a tree show which of its kernels are adapted: checkpoints, meshes and optimisers treat them as
parameters, and every function of a model takes a tree with them. Hu et al. 2021, arXiv 2106.09685.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from instruct.models.layout import layer_paths

A, B, SCALE = "lora_a", "lora_b", "lora_scale"
ENTRIES = (A, B, SCALE)
_DROPOUT, _KEPT = "lora_dropout", "lora_kept"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AdaptedKernel:
    """A kernel [in, out] with its adapter, in place of the kernel's array in a bound module."""

    kernel: jax.Array
    a: jax.Array
    b: jax.Array
    scale: jax.Array
    kept: jax.Array | None  # [B, 1, in] dropout factors of the adapter's input


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Dropout:
    """Marks an adapter whose input has dropout; no array."""

    rate: float = dataclasses.field(metadata={"static": True})


def add_adapters(
    params: Any, targets: Collection[str], rank: int, scale: float, key: jax.Array
) -> Any:
    """The tree with fresh adapters of the kernels at the paths `targets`.

    Each layer's A is drawn from its name with separate layers, so both layouts agree.
    """

    def draw(key: jax.Array, fan_in: int) -> jax.Array:
        bound = 1.0 / math.sqrt(fan_in)
        return jax.random.uniform(key, (fan_in, rank), jnp.float32, -bound, bound)

    def adapter(path: str, kernel: Any) -> dict[str, jax.Array]:
        *layers, fan_in, fan_out = kernel.shape
        names = layer_paths(path, kernel.shape)
        keys = jnp.stack([jax.random.fold_in(key, zlib.crc32(name.encode())) for name in names])
        a = jax.vmap(lambda one: draw(one, fan_in))(keys)
        return {
            A: a if layers else a[0],
            B: jnp.zeros((*layers, rank, fan_out), jnp.float32),
            SCALE: jnp.full(tuple(layers), scale, jnp.float32),
        }

    def add(node: Any, path: str) -> Any:
        if not isinstance(node, Mapping):
            return node
        added = {name: add(child, f"{path}{name}/") for name, child in node.items()}
        if f"{path}kernel" in targets:
            added |= adapter(f"{path}kernel", node["kernel"])
        return added

    return add(params, "")


def is_adapter(path: str) -> bool:
    """Whether a path ends with one of `ENTRIES`."""
    return path.rpartition("/")[2] in ENTRIES


def merge_adapters(params: Any) -> Any:
    """The plain tree: W + scale * A B instead of every adapted kernel.

    The other arrays are those of `params`, not copies: call it outside of jit.
    """

    def merge(node: Mapping[str, Any]) -> dict[str, Any]:
        rest = {name: entry for name, entry in node.items() if name not in ENTRIES}
        return rest | {"kernel": _merged_kernel(node["kernel"], node[A], node[B], node[SCALE])}

    return _map_adapted(merge, params)


@jax.jit
def _merged_kernel(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: jax.Array) -> jax.Array:
    return kernel + scale[..., None, None] * jnp.matmul(a, b, precision="highest")


def without_adapters(params: Any) -> Any:
    """The tree of the base model."""
    return _map_adapted(lambda node: {n: x for n, x in node.items() if n not in ENTRIES}, params)


def with_dropout(params: Any, rate: float) -> Any:
    """Marks every adapter of a tree, so that a model with a dropout key drops of its input."""
    if rate == 0.0:
        return params
    return _map_adapted(lambda node: {**node, _DROPOUT: _Dropout(rate)}, params)


def has_dropout(params: Any) -> bool:
    """Whether a tree has adapters that `with_dropout` marked."""
    leaves = jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, _Dropout))
    return any(isinstance(leaf, _Dropout) for leaf in leaves)


def draw_dropout(params: Any, draw: Callable[[float, list[int]], list[Any]]) -> Any:
    """A layer's tree with dropout factors in place of marks.

    `draw(rate, widths)` draws all factors of the layer at once, [B, 1, width] of each adapter's
    input: the tokens of a row share them, as all dropout here.
    """
    marked: list[Mapping[str, Any]] = []
    _map_adapted(lambda node: marked.append(node) or dict(node), params)
    marked = [node for node in marked if _DROPOUT in node]
    if not marked:
        return params
    kept = iter(draw(marked[0][_DROPOUT].rate, [node[A].shape[0] for node in marked]))

    def place(node: Mapping[str, Any]) -> dict[str, Any]:
        rest = {name: entry for name, entry in node.items() if name != _DROPOUT}
        return rest | {_KEPT: next(kept)} if _DROPOUT in node else rest

    return _map_adapted(place, params)


def bind_adapters(params: Any) -> Any:
    """A layer's tree with an `AdaptedKernel` in place of every adapted kernel and its entries."""

    def bind(node: Mapping[str, Any]) -> dict[str, Any]:
        rest = {n: x for n, x in node.items() if n not in (*ENTRIES, _DROPOUT, _KEPT)}
        kernel = AdaptedKernel(node["kernel"], node[A], node[B], node[SCALE], node.get(_KEPT))
        return rest | {"kernel": kernel}

    return _map_adapted(bind, params)


def _map_adapted(change: Callable[[Mapping[str, Any]], dict[str, Any]], node: Any) -> Any:
    """A copy of nested dictionaries with `change` applied to each that has an adapter."""
    if not isinstance(node, Mapping):
        return node
    if A in node:
        return change(node)
    return {name: _map_adapted(change, child) for name, child in node.items()}
