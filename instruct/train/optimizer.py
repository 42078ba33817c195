"""Adafactor as T5X computes it, and AdamW, as `optax.GradientTransformation`s.

Any other optax optimiser can replace them. The named axes of a parameter
(`instruct.mesh.parameter_axes`) decide whether Adafactor factors it, as in T5X's gin files. Each
layer of a stacked parameter has its own update clip and scale, so stacked and separate layers learn
alike.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from instruct.checkpoints.train_state import SlotState
from instruct.errors import UserError
from instruct.fields import bounded, check_fields, one_of
from instruct.mesh import parameter_axes, platform, tree_paths

Slots = dict[str, jax.Array]

# T5X's logical factor rules: a parameter with one axis of each kind is factored into row moments
# (along `embed`) and column moments (along the other axis).
_ROW_AXES = frozenset({"embed"})
_COLUMN_AXES = frozenset({"vocab", "mlp", "joined_heads", "joined_kv_heads", "heads"})
# T5X's epsilon1 (added to squared gradients) and epsilon2 (least parameter scale).
_SQUARE_FLOOR = 1e-30
_SCALE_FLOOR = 1e-3


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Settings of Adafactor and AdamW.

    Attributes:
        name: 'adafactor' or 'adamw'.
        learning_rate: peak rate; Adafactor's is relative to a parameter's own size.
        schedule: by the number n of finished updates: 'constant'; 'linear_warmup', times
            min(1, n / warmup_steps), so that the first update is 0 as in T5X; 'rsqrt', divided
            by sqrt(max(n, warmup_steps)).
        warmup_steps: see `schedule`.
        decay_rate: Adafactor's second moments decay by 1 - (n + 1 - step_offset)^-decay_rate.
        step_offset: see `decay_rate`; the step of an earlier run from which this run continues
            counting; at most the step that the run starts from.
        clipping_threshold: largest root mean square of Adafactor's update before scaling.
        multiply_by_parameter_scale: Adafactor's updates are relative to each parameter's size.
        min_factored_size: Adafactor factors no parameter with a shorter axis.
        weight_decay: parameters shrink by weight_decay * rate ** weight_decay_rate_exponent
            at each update (exponent 1: AdamW; 0: T5X's default; 2: PaLM).
        weight_decay_rate_exponent: see `weight_decay`.
        global_norm_clip: gradients are scaled down to at most this norm; None: never.
        beta1, beta2, epsilon: AdamW's.
    """

    name: str = one_of("adafactor", ("adafactor", "adamw"))
    learning_rate: float = bounded(1e-3, above=0)
    schedule: str = one_of("constant", ("constant", "linear_warmup", "rsqrt"))
    warmup_steps: int = bounded(0, least=0)
    decay_rate: float = bounded(0.8, above=0)
    step_offset: int = bounded(0, least=0)
    clipping_threshold: float = bounded(1.0, above=0)
    multiply_by_parameter_scale: bool = True
    min_factored_size: int = bounded(128, least=0)
    weight_decay: float = bounded(0.0, least=0)
    weight_decay_rate_exponent: float = bounded(1.0, least=0)
    global_norm_clip: float | None = bounded(None, above=0, note=" or None")
    beta1: float = bounded(0.9, least=0, below=1)
    beta2: float = bounded(0.999, least=0, below=1)
    epsilon: float = bounded(1e-8, above=0)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.schedule != "constant" and self.warmup_steps < 1:
            raise UserError(
                f"OptimizerConfig.schedule = {self.schedule!r} needs warmup_steps of at least 1, "
                f"got {self.warmup_steps}. Set OptimizerConfig.warmup_steps, for example to 1000."
            )

    def check_start(self, step: int) -> None:
        """Raises UserError if `step` is below `step_offset`: the decay would be NaN."""
        if step < self.step_offset:
            raise UserError(
                f"OptimizerConfig.step_offset is {self.step_offset}, but the run is at step {step}."
                " A run counts from 0 whatever INITIAL_CHECKPOINT_PATH it starts from: leave "
                "step_offset at 0."
            )

    def learning_rate_at(self, step: jax.Array | int) -> jax.Array:
        """float32 learning rate after `step` finished updates."""
        rate = jnp.float32(self.learning_rate)
        step = jnp.asarray(step, jnp.float32)
        if self.schedule == "linear_warmup":
            rate = rate * jnp.minimum(1.0, step / self.warmup_steps)
        elif self.schedule == "rsqrt":
            rate = rate / jnp.sqrt(jnp.maximum(step, self.warmup_steps))
        return rate


def make_optimizer(optimizer: "OptimizerConfig | optax.GradientTransformation") -> Any:
    """The `optax.GradientTransformation` of a config; an optax optimiser is returned as it is."""
    if isinstance(optimizer, OptimizerConfig):
        return _slot_optimizer(optimizer)
    if isinstance(optimizer, optax.MultiSteps):
        return optimizer.gradient_transformation()
    if not isinstance(optimizer, optax.GradientTransformation):
        raise UserError(
            f"train.optimizer is {optimizer!r}; bind OptimizerConfig's fields and train.optimizer "
            "= @OptimizerConfig(), or bind a function that returns an "
            "optax.GradientTransformation: train.optimizer = @my_module.my_optimizer()."
        )
    return optimizer


def _slot_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adafactor or AdamW; its state is a `SlotState`, and `update` needs the parameters."""
    init_slots, update_leaf = _RULES[config.name]

    def init(params: Any) -> SlotState:
        slots = [init_slots(config, path, leaf) for path, leaf in tree_paths(params)]
        slots = jax.tree.unflatten(jax.tree.structure(params), slots)
        return SlotState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32), slots)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, SlotState]:
        if params is None:
            raise ValueError("this optimiser needs params: update(gradients, state, params)")
        if config.global_norm_clip is not None:
            norm = global_norm(updates)
            scale = jnp.minimum(1.0, config.global_norm_clip / jnp.maximum(norm, 1e-30))
            updates = jax.tree.map(lambda gradient: gradient * scale, updates)
        step, rate = state.count, config.learning_rate_at(state.count)
        shrink = config.weight_decay * rate**config.weight_decay_rate_exponent
        structure = jax.tree.structure(params)
        changes, new_slots = [], []
        for (path, param), gradient, slots in zip(
            tree_paths(params), jax.tree.leaves(updates), structure.flatten_up_to(state.slots)
        ):
            axes = parameter_axes(path)
            change, slots = update_leaf(config, axes, gradient, slots, param, rate, step)
            if config.weight_decay:  # the difference, so that almost all sums round as in T5X
                changes.append((param * (1.0 - shrink) - change) - param)
            else:
                changes.append(-change)
            new_slots.append(slots)
        new_state = SlotState(step + 1, rate, jax.tree.unflatten(structure, new_slots))
        return jax.tree.unflatten(structure, changes), new_state

    return optax.GradientTransformation(init, update)


def logged_learning_rate(opt_state: Any) -> jax.Array | None:
    """The (first) `learning_rate` in the state of any optax optimiser; None if it has none.

    `SlotState` and `optax.inject_hyperparams` have one.
    """
    rates = optax.tree_utils.tree_get_all_with_path(opt_state, "learning_rate")
    return jnp.asarray(rates[0][1], jnp.float32) if rates else None


def global_norm(tree: Any) -> jax.Array:
    """float32 L2 norm of all leaves together."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))


def _is_stacked(path: str) -> bool:
    return parameter_axes(path)[0] == "layers"


def _factored_axes(
    config: OptimizerConfig, path: str, shape: tuple[int, ...]
) -> tuple[int, int] | None:
    """(row axis, column axis) within one layer's parameter, or None if it is not factored.

    `shape` is the parameter's, with the layer axis if it is stacked.
    """
    axes = parameter_axes(path)
    if axes[0] == "layers":
        axes, shape = axes[1:], shape[1:]
    rows = [i for i, axis in enumerate(axes) if axis in _ROW_AXES]
    columns = [i for i, axis in enumerate(axes) if axis in _COLUMN_AXES]
    if len(rows) != 1 or len(columns) != 1:
        return None
    if min(shape[rows[0]], shape[columns[0]]) < config.min_factored_size:
        return None
    return rows[0], columns[0]


def _adafactor_slots(config: OptimizerConfig, path: str, param: Any) -> Slots:
    factored = _factored_axes(config, path, param.shape)
    if factored is None:
        return {"v": jnp.zeros(param.shape, jnp.float32)}
    row, column = factored
    num_leading = int(_is_stacked(path))
    layers, shape = param.shape[:num_leading], param.shape[num_leading:]
    return {
        "v_row": jnp.zeros((*layers, shape[row]), jnp.float32),
        "v_col": jnp.zeros((*layers, shape[column]), jnp.float32),
    }


def _adafactor_leaf(
    config: OptimizerConfig,
    axes: tuple[str, ...],
    gradient: jax.Array,
    slots: Mapping[str, jax.Array],
    param: jax.Array,
    rate: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, Slots]:
    """(what to subtract, new slots) of one layer's parameter (`t5x/adafactor.py`)."""
    count = jnp.asarray(step, jnp.float32) + 1.0 - config.step_offset
    decay = 1.0 - count**-config.decay_rate
    gradient = gradient.astype(jnp.float32)
    square = jnp.square(gradient) + _SQUARE_FLOOR
    if "v" in slots:
        second = decay * slots["v"] + (1.0 - decay) * square
        new_slots = {"v": second}
        update = gradient * jax.lax.rsqrt(second)
    else:
        column = next(i for i, name in enumerate(axes) if name in _COLUMN_AXES)
        row = 1 - column
        v_row = decay * slots["v_row"] + (1.0 - decay) * _mean(square, column)
        v_col = decay * slots["v_col"] + (1.0 - decay) * _mean(square, row)
        new_slots = {"v_row": v_row, "v_col": v_col}
        row_factor = jax.lax.rsqrt(v_row / v_row.mean())
        update = gradient * jnp.expand_dims(row_factor, column)
        update = update * jnp.expand_dims(jax.lax.rsqrt(v_col), row)
    update = update / jnp.maximum(1.0, _root_mean_square(update) / config.clipping_threshold)
    if config.multiply_by_parameter_scale:
        rate = rate * jnp.maximum(_root_mean_square(param), _SCALE_FLOOR)
    return rate * update, new_slots


def _mean(matrix: jax.Array, axis: int) -> jax.Array:
    """Mean over one axis of a matrix.

    On a CPU the one over the first axis is a product with ones: 2.6 CPU ms for [256, 32128], where
    XLA's reduction takes 21.5. Its sums round more: 9e-6 of a mean over 32,128 rows, not 2e-7.
    """
    if axis != 0 or platform() != "cpu":
        return matrix.mean(axis)
    ones = jnp.ones(matrix.shape[:1], matrix.dtype)
    return jax.lax.dot_general(ones, matrix, (((0,), (0,)), ((), ()))) / matrix.shape[0]


def _root_mean_square(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def _adamw_slots(config: OptimizerConfig, path: str, param: Any) -> Slots:
    return {name: jnp.zeros(param.shape, jnp.float32) for name in ("m", "v")}


def _adamw_leaf(
    config: OptimizerConfig,
    axes: tuple[str, ...],
    gradient: jax.Array,
    slots: Mapping[str, jax.Array],
    param: jax.Array,
    rate: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, Slots]:
    """(what to subtract, new slots); Adam with bias correction (Kingma and Ba, algorithm 1)."""
    count = jnp.asarray(step, jnp.float32) + 1.0
    first = config.beta1 * slots["m"] + (1.0 - config.beta1) * gradient
    second = config.beta2 * slots["v"] + (1.0 - config.beta2) * jnp.square(gradient)
    mean = first / (1.0 - config.beta1**count)
    spread = jnp.sqrt(second / (1.0 - config.beta2**count))
    return rate * mean / (spread + config.epsilon), {"m": first, "v": second}


def _traced_once(update_leaf: Callable[..., Any]) -> Callable[..., tuple[jax.Array, Slots]]:
    """The rule for stacked layers too; parameters of equal shape and axes share its trace."""

    @functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
    def update(config, axes, gradient, slots, param, rate, step):
        if axes[0] != "layers":
            return update_leaf(config, axes, gradient, slots, param, rate, step)
        of_layer = functools.partial(update_leaf, config, axes[1:])
        return jax.vmap(of_layer, (0, 0, 0, None, None))(gradient, slots, param, rate, step)

    return update


_RULES: dict[str, tuple[Callable[..., Slots], Callable[..., tuple[jax.Array, Slots]]]] = {
    "adafactor": (_adafactor_slots, _traced_once(_adafactor_leaf)),
    "adamw": (_adamw_slots, _traced_once(_adamw_leaf)),
}
