"""`TrainState`: everything that training updates, one pytree, and its form in a checkpoint."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from instruct.mesh import parameter_in, tree_paths


class TrainState(NamedTuple):
    """Number of finished updates, parameters and optimiser state.

    `step` is an int32 scalar, 0 before the first update. The update that turns step n into n + 1
    draws its dropout from n, and is logged and saved as n + 1.
    """

    step: Any
    params: Any
    opt_state: Any


class SlotState(NamedTuple):
    """State of an optimiser that `OptimizerConfig` describes.

    `slots` is a tree like the parameters', each leaf a dict of float32 arrays with T5X's names:
    `v_row` and `v_col`, or `v`; for AdamW `m` and `v`.
    """

    count: Any  # int32 scalar, finished updates
    learning_rate: Any  # float32 scalar, of the last update; for logs only
    slots: Any


def training_tree(state: TrainState) -> dict[str, Any]:
    """Step and optimiser state as nested dictionaries, the item `training` of a checkpoint.

    A `SlotState` is stored as its slots, since the step is its count; any other optax state under
    the names of its fields, its keys and its positions.
    """
    leaves = {f"opt_state/{path}": leaf for path, leaf in _stored_leaves(state)}
    return unflatten_dict({"step": state.step} | leaves, sep="/")


def state_from_tree(tree: Mapping[str, Any], params: Any, abstract: TrainState) -> TrainState:
    """The state whose `training_tree` is `tree`; `abstract` has its structure and shardings."""
    stored = dict(tree_paths(tree))
    leaves = [stored[f"opt_state/{path}"] for path, _ in _stored_leaves(abstract)]
    opt_state = abstract.opt_state
    if not isinstance(opt_state, SlotState):
        restored = jax.tree.unflatten(jax.tree.structure(opt_state), leaves)
        return TrainState(tree["step"], params, restored)
    # Separate arrays, since a training step donates the whole state.
    shardings = (getattr(opt_state.count, "sharding", None),) * 2
    scalars = jax.jit(lambda step: (step + 0, jnp.zeros((), jnp.float32)), out_shardings=shardings)
    count, learning_rate = scalars(tree["step"])
    slots = jax.tree.unflatten(jax.tree.structure(opt_state.slots), leaves)
    return TrainState(tree["step"], params, SlotState(count, learning_rate, slots))


def _stored_leaves(state: TrainState) -> list[tuple[str, Any]]:
    """(path in a checkpoint, leaf) of the optimiser state, in jax's order.

    Stacked layers are stored one by one, except arrays without a leading layer axis, such as the
    placeholders of `optax.adafactor`: those are stored whole, under another name.
    """
    is_slots = isinstance(state.opt_state, SlotState)
    params = dict(tree_paths(state.params))

    def stored_path(path: str, leaf: Any) -> str:
        owner = parameter_in(path, params)
        if "layers" not in path.split("/"):
            return path
        if owner is not None and leaf.shape[:1] == params[owner].shape[:1]:
            return path
        return "/".join("whole_layers" if part == "layers" else part for part in path.split("/"))

    pairs = tree_paths(state.opt_state.slots if is_slots else state.opt_state)
    return [(stored_path(path, leaf), leaf) for path, leaf in pairs]
