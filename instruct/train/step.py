"""One update as a pure function: (state, batch) -> (state, metrics).

Gradients and weights of microbatches are summed, then divided once, so the number of microbatches
affects memory only. Dropout keys derive from (seed, step, microbatch): no random state is carried
from step to step, and a resumed run draws the same numbers as an uninterrupted one.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from instruct import batch as batch_keys
from instruct.checkpoints.train_state import TrainState
from instruct.errors import UserError
from instruct.mean import Mean
from instruct.mesh import optimizer_shardings, param_shardings, replicated_sharding, tree_paths
from instruct.train.loss import LossTotals
from instruct.train.optimizer import global_norm, logged_learning_rate
from instruct.train.trained import Trained, join_params, split_params

Batch = Mapping[str, jax.Array]


class StepMetrics(NamedTuple):
    """Metrics of one update; a pytree of float32."""

    losses: LossTotals  # of the batch, before the update
    gradient_norm: jax.Array  # of the divided gradient, before clipping
    learning_rate: jax.Array | None  # None if the optimiser's state does not hold it
    filled: Mean  # share of positions in encoder and decoder that are not padding


def init_state(
    params: Any, optimizer: optax.GradientTransformation, trained: Trained = None
) -> TrainState:
    """State before the first update, from fresh or loaded parameters."""
    opt_state = optimizer.init(split_params(params, trained)[0])
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def abstract_state(
    abstract_params: Any, optimizer: optax.GradientTransformation, trained: Trained = None
) -> TrainState:
    """Shapes and dtypes of `init_state`; raises UserError if a checkpoint cannot hold them."""
    abstract = jax.eval_shape(
        lambda params: init_state(params, optimizer, trained), abstract_params
    )
    for path, leaf in tree_paths(abstract.opt_state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise UserError(
                f"the optimiser's state holds a typed random key ({path}), which checkpoints do "
                "not hold. Keep jax.random.key_data(key) in it, and wrap that in `update`."
            )
    return abstract


def state_shardings(mesh: Any, abstract: TrainState) -> TrainState:
    """Shardings of an `abstract_state`."""
    return TrainState(
        replicated_sharding(mesh),
        param_shardings(mesh, abstract.params),
        optimizer_shardings(mesh, abstract.params, abstract.opt_state),
    )


def make_train_step(
    loss_fn: Callable[..., tuple[jax.Array, LossTotals]],
    optimizer: optax.GradientTransformation,
    num_microbatches: int,
    seed: int,
    loss_normalizing_factor: float | None = None,
    trained: Trained = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """The pure update function; jit it with the state donated.

    Args:
        loss_fn: see `make_loss_fn`.
        optimizer: see `make_optimizer`.
        num_microbatches: gradient accumulation steps; must divide the batch's rows.
        seed: of dropout.
        loss_normalizing_factor: see `LossConfig`.
        trained: paths of the parameters that have gradients and updates; None: all.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        params, frozen = split_params(state.params, trained)

        def loss_of(params, batch, key):
            return loss_fn(join_params(params, frozen), batch, key)

        def gradients_of(params, batch, key):
            return jax.grad(loss_of, has_aux=True)(params, batch, key)

        step_key = jax.random.fold_in(jax.random.key(seed), state.step)
        if num_microbatches == 1:
            key = jax.random.fold_in(step_key, 0)
            gradients, totals = gradients_of(params, batch, key)
        else:
            gradients, totals = _accumulate(gradients_of, params, batch, step_key, num_microbatches)
        weight = totals.loss.weight
        if loss_normalizing_factor is not None:
            weight = jnp.float32(loss_normalizing_factor)
        gradients = jax.tree.map(lambda gradient: Mean(gradient, weight).value, gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, params)
        params = join_params(optax.apply_updates(params, updates), frozen)
        metrics = StepMetrics(
            losses=totals,
            gradient_norm=global_norm(gradients),
            learning_rate=logged_learning_rate(opt_state),
            filled=count_filled(batch),
        )
        return TrainState(state.step + 1, params, opt_state), metrics

    return train_step


def _accumulate(gradients_of, params, batch, step_key, num_microbatches):
    """Summed gradients and totals; microbatch i of n has the rows i, i + n, i + 2n, ...

    Strided, so that rows stay on their device: 4 rows in 2 microbatches are rows 0, 2 and 1, 3.
    """

    def split(x):
        if x.shape[0] % num_microbatches:
            raise ValueError(f"{x.shape[0]} rows do not divide into {num_microbatches} parts")
        x = x.reshape(x.shape[0] // num_microbatches, num_microbatches, *x.shape[1:])
        return jnp.moveaxis(x, 1, 0)

    parts = {name: split(x) for name, x in batch.items()}
    first = {name: x[0] for name, x in parts.items()}
    shapes = jax.eval_shape(gradients_of, params, first, step_key)
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def body(sums, part):
        index, microbatch = part
        key = jax.random.fold_in(step_key, index)
        return jax.tree.map(jnp.add, sums, gradients_of(params, microbatch, key)), None

    return jax.lax.scan(body, start, (jnp.arange(num_microbatches), parts))[0]


def count_filled(batch: Batch) -> Mean:
    """Number of tokens that are not padding, over all positions of a batch.

    Padding has segment 0; without segment ids, token 0.
    """
    by_segment = (batch_keys.ENCODER_SEGMENT_IDS, batch_keys.DECODER_SEGMENT_IDS)
    by_token = (batch_keys.ENCODER_INPUT_TOKENS, batch_keys.DECODER_TARGET_TOKENS)
    names = by_segment if batch_keys.DECODER_SEGMENT_IDS in batch else by_token
    names = [name for name in names if name in batch]
    real = sum(jnp.sum((batch[name] != 0).astype(jnp.float32)) for name in names)
    return Mean(jnp.asarray(real), jnp.float32(sum(batch[name].size for name in names)))


def make_eval_step(
    loss_fn: Callable[..., tuple[jax.Array, LossTotals]],
) -> Callable[[Any, Batch], LossTotals]:
    """eval_step(params, batch) -> totals, teacher-forced and without dropout."""
    return lambda params, batch: loss_fn(params, batch, None)[1]
