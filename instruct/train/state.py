"""The training state before the first update, its shapes and its shardings."""

from typing import Any

import jax
import jax.numpy as jnp

from instruct.checkpoints.train_state import TrainState
from instruct.mesh import param_shardings, replicated_sharding
from instruct.train.optimizer import Optimizer, OptimizerConfig, optimizer_shardings


def init_state(params: Any, optimizer: Optimizer) -> TrainState:
    """State before the first update, from fresh or loaded parameters."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def abstract_state(abstract_params: Any, optimizer: Optimizer) -> TrainState:
    """Shapes and dtypes of `init_state`; allocates nothing."""
    return jax.eval_shape(lambda params: init_state(params, optimizer), abstract_params)


def state_shardings(mesh: Any, config: OptimizerConfig, abstract_params: Any) -> TrainState:
    """Tree of shardings like the state's: slots as their parameters, the step everywhere."""
    return TrainState(
        replicated_sharding(mesh),
        param_shardings(mesh, abstract_params),
        optimizer_shardings(mesh, config, abstract_params),
    )
