"""The training step as a program: lowered for a mesh of devices, which need not be present."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from instruct import mesh as meshes
from instruct.batch import batch_shapes
from instruct.checkpoints.train_state import TrainState


def lower_train_step(
    step_fn: Callable[..., Any],
    abstract: TrainState,
    mesh: jax.sharding.Mesh,
    batch_size: int,
    lengths: tuple[int, int],
) -> jax.stages.Lowered:
    """Lowers (state, batch) -> (state, metrics); the state's memory is reused.

    Args:
        step_fn: from `make_train_step`.
        abstract: the state with its shardings.
        mesh: of real devices, or of a topology that a compiler knows.
        batch_size: rows of the global batch.
        lengths: source and target tokens of a row.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    rows, replicated = meshes.batch_sharding(mesh), meshes.replicated_sharding(mesh)
    shapes = batch_shapes(batch_size, *lengths)
    batch = {k: jax.ShapeDtypeStruct(s, jnp.int32, sharding=rows) for k, s in shapes.items()}
    with jax.set_mesh(mesh):
        jitted = jax.jit(step_fn, donate_argnums=0, out_shardings=(shardings, replicated))
        return jitted.lower(abstract, batch)
