"""Conversion between two layouts of parameters: separate layers, and layers stacked on axis 0.

    {"layers_0": {"k": [D, F]}, "layers_1": {"k": [D, F]}}   <->   {"layers": {"k": [2, D, F]}}

Checkpoints hold the first, with T5X's names; `scan_layers` computes with the second. Both functions
take any tree of such dictionaries (parameters, optimiser slots) of numpy arrays, jax arrays or
`ShapeDtypeStruct`s.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

_LAYER = re.compile(r"layers_(\d+)")
STACKED = "/layers/"


def stack_layers(tree: Any) -> Any:
    """Stacks every dictionary's `layers_0..n-1` into one `layers`, the layer axis first.

    Raises:
        ValueError: numbers are missing, or layers differ in structure.
    """

    def stack(node: Mapping[str, Any]) -> dict[str, Any]:
        numbers = sorted(int(match[1]) for name in node if (match := _LAYER.fullmatch(name)))
        if not numbers:
            return dict(node)
        if numbers != list(range(len(numbers))):
            raise ValueError(f"layers are numbered {numbers}, expected 0 to {len(numbers) - 1}")
        layers = [node[f"layers_{i}"] for i in numbers]
        rest = {name: value for name, value in node.items() if not _LAYER.fullmatch(name)}
        return rest | {"layers": jax.tree.map(lambda *leaves: _stack(leaves), *layers)}

    return _map_dictionaries(stack, tree)


def unstack_layers(tree: Any) -> Any:
    """The inverse of `stack_layers`."""

    def unstack(node: Mapping[str, Any]) -> dict[str, Any]:
        if "layers" not in node:
            return dict(node)
        stacked = node["layers"]
        count = jax.tree.leaves(stacked)[0].shape[0]
        rest = {name: value for name, value in node.items() if name != "layers"}
        return rest | {f"layers_{i}": layer_of(stacked, i) for i in range(count)}

    return _map_dictionaries(unstack, tree)


def layer_paths(path: str, shape: Sequence[int]) -> list[str]:
    """Names, layers separate, of what the leaf at a path of either layout holds.

    >>> layer_paths("decoder/layers/mlp/wo/kernel", (2, 8, 4))
    ['decoder/layers_0/mlp/wo/kernel', 'decoder/layers_1/mlp/wo/kernel']
    """
    if STACKED not in path:
        return [path]
    return [path.replace(STACKED, f"/layers_{number}/") for number in range(shape[0])]


def layer_of(stacked: Any, index: int) -> Any:
    """Layer `index` of a stacked tree; abstract arrays keep their share of a sharding."""

    def one_layer(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf[index]
        sharding = leaf.sharding
        if isinstance(sharding, NamedSharding):
            sharding = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, sharding=sharding)

    return jax.tree.map(one_layer, stacked)


def _stack(leaves: tuple[Any, ...]) -> Any:
    first = leaves[0]
    if isinstance(first, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((len(leaves), *first.shape), first.dtype)
    return np.stack(leaves) if isinstance(first, np.ndarray) else jnp.stack(leaves)


def _map_dictionaries(change: Callable[[Mapping[str, Any]], dict[str, Any]], tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return change({name: _map_dictionaries(change, value) for name, value in tree.items()})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_map_dictionaries(change, value) for value in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(_map_dictionaries(change, value) for value in tree)
    return tree
