"""`TrainState`: all that training changes, one pytree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from instruct.mesh import param_shardings, replicated_sharding
from instruct.train.optimizer import Optimizer, OptimizerConfig, optimizer_shardings


class TrainState(NamedTuple):
    """Parameters, optimiser state, and how many updates they have behind them.

    `step` is an int32 scalar and counts finished updates: 0 before the first. The update that turns
    step n into n + 1 draws its dropout from n, and is logged and saved as n + 1.
    """

    step: Any
    params: Any
    opt_state: Any


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
