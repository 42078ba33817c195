"""Collectives of a step whose parameters are split over `fsdp` and `sequence`.

Written out where the compiler's own choice is bad: weights are gathered whole once a pass in the
type that computes, gradients go back as reduce-scatters, the table of embeddings never moves.
Without such a split every function is the plain operation. The mesh is that of `jax.set_mesh`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from instruct.mesh import (
    MESH_AXES,
    dividing_axes,
    parameter_axes,
    partition_spec,
    tree_paths,
    wanted_axes,
)


def gather_params(params: Any, dtype: Any) -> Any:
    """A layer's parameters as its rows need them: whole over `fsdp` and `sequence`, in `dtype`.

    Each device casts its share, then all shares are gathered (all-gather). The gradient goes the
    other way: a share of the sum over devices (reduce-scatter), then the cast. Without these two
    constraints the compiler is free to move either across the cast, or to sum whole gradients.
    Parameters that no axis of those two splits are returned as they are, in their own type.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not gathers(mesh):
        return params
    gathered = [_gather_param(mesh, path, leaf, dtype) for path, leaf in tree_paths(params)]
    return jax.tree.unflatten(jax.tree.structure(params), gathered)


def _gather_param(mesh, path: str, param: jax.Array, dtype: Any) -> jax.Array:
    split = partition_spec(mesh, path, param.shape)
    named = zip(parameter_axes(path), split)
    whole = PartitionSpec(*(None if name == "embed" else axes for name, axes in named))
    if split == whole:
        return param

    @jax.custom_vjp
    def gather(param):
        return jax.lax.with_sharding_constraint(param.astype(dtype), whole)

    def backward(_, gradient):
        share = jax.lax.with_sharding_constraint(gradient, split)
        return (share.astype(param.dtype),)

    gather.defvjp(lambda param: (gather(param), None), backward)
    return gather(param)


def gathers(mesh: Mesh | AbstractMesh) -> bool:
    """Whether parameters are split over axes that also split rows or lengths."""
    return any(mesh.shape.get(axis, 1) > 1 for axis in MESH_AXES["embed"])


def look_up(table: jax.Array, tokens: jax.Array, dtype: Any) -> jax.Array:
    """Rows of an embedding [V, D] for tokens [B, T]: [B, T, D] in `dtype`.

    A table split over `fsdp` and `sequence` is never gathered. Each device looks up its columns of
    D for the tokens of all devices that share the table, then sends each of them its own tokens'
    (all-to-all): B * T * D numbers instead of V * D. Gradients go back the same way.
    """
    mesh = jax.sharding.get_abstract_mesh()
    rows, length = tokens.shape
    split = {
        name: dividing_axes(mesh, name, size)
        for name, size in zip(("batch", "length", "vocab", "embed"), (rows, length, *table.shape))
    }
    uneven = any(split[name] != wanted_axes(mesh, name) for name in ("batch", "length", "embed"))
    if not split["embed"] or uneven:
        return jnp.take(table, tokens, axis=0).astype(dtype)

    def local(table, tokens):
        if split["vocab"]:
            tokens -= jax.lax.axis_index(split["vocab"]) * len(table)
            held = (tokens >= 0) & (tokens < len(table))
            x = jnp.take(table, jnp.clip(tokens, 0, len(table) - 1), axis=0).astype(dtype)
            x = jax.lax.psum(jnp.where(held[..., None], x, 0), split["vocab"])
        else:
            x = jnp.take(table, tokens, axis=0).astype(dtype)
        # The minor axis of D first, so that its parts come to lie in order.
        for axis in reversed(split["embed"]):
            of_rows = axis in split["batch"]
            x = jax.lax.all_to_all(x, axis, 0 if of_rows else 1, 2, tiled=True)
        return x

    return jax.shard_map(
        local,
        in_specs=(
            PartitionSpec(split["vocab"] or None, split["embed"]),
            PartitionSpec(dividing_axes(mesh, "copy", rows) or None, None),
        ),
        out_specs=PartitionSpec(split["batch"] or None, split["length"] or None, None),
    )(table, tokens)


def sum_shares(x: jax.Array, axes: Sequence[str]) -> jax.Array:
    """Sum of a parameter's gradients [shares, ...], one a device, to the parameter's sharding.

    `axes` names the axes of the sum. Devices that share a copy of the parameters reduce-scatter;
    then copies, which a slow network may join, all-reduce shares.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not gathers(mesh) or len(x) == 1:
        return x.sum(0)
    spec = [dividing_axes(mesh, name, size) for name, size in zip(axes, x.shape[1:], strict=True)]
    scattered = axes.index("embed")
    within = spec[scattered]
    shares = wanted_axes(mesh, "share")
    between = tuple(axis for axis in shares if axis not in within)
    spec = [split or None for split in spec]

    def local(share):
        total = share[0]
        if within:
            total = jax.lax.psum_scatter(total, within, scatter_dimension=scattered, tiled=True)
        return jax.lax.psum(total, between) if between else total

    held = [None if i == scattered else split for i, split in enumerate(spec)]
    return jax.shard_map(
        local, in_specs=PartitionSpec(shares, *held), out_specs=PartitionSpec(*spec)
    )(x)
