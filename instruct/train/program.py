"""The training step as a program: lowered for a mesh of devices, which need not be present."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from instruct import mesh as meshes
from instruct.batch import LAYOUTS
from instruct.checkpoints.train_state import TrainState
from instruct.data.config import DataConfig
from instruct.errors import UserError
from instruct.models.model import AnyConfig, make_model
from instruct.train.lora import LoraConfig
from instruct.train.loss import LossConfig, make_loss_fn
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import abstract_state, make_train_step, state_shardings
from instruct.train.trained import Trained, trained_paths


class TrainingStep(NamedTuple):
    """The function, and the shapes of what it takes."""

    function: Callable[..., Any]
    abstract: TrainState  # with shardings
    trained: Trained  # paths of the parameters that are trained
    batch_size: int
    lengths: tuple[int, int]  # of TASK_FEATURE_LENGTHS
    num_microbatches: int
    batch: dict[str, jax.ShapeDtypeStruct]  # with shardings


def training_step(
    model: AnyConfig,
    mesh: Any,
    settings: Mapping[str, Any],
    default_shape: tuple[int, tuple[int, int]],
) -> TrainingStep:
    """The step that `train` would run with these of its arguments; allocates nothing.

    `mesh` may be abstract; `default_shape` (rows, lengths) stands in where `settings` name no data.
    """
    data, losses = settings.get("data"), settings.get("loss", LossConfig())
    if data:
        check_layout(model, data)
    batch_size, lengths = (data.batch_size, data.lengths) if data else default_shape
    microbatches = settings.get("num_microbatches", 1)
    batch = abstract_batch(model, mesh, batch_size, lengths, microbatches)
    network = make_model(model)
    optimizer = make_optimizer(settings.get("optimizer", OptimizerConfig()))
    lora, seed = settings.get("lora", LoraConfig()), settings.get("seed", 0)
    params = lora.add(network.abstract_params(), seed)
    abstract, trained = placed_state(params, settings.get("freeze"), optimizer, mesh)
    loss_fn = lora.loss(make_loss_fn(network, losses))
    factor = losses.loss_normalizing_factor
    function = make_train_step(loss_fn, optimizer, microbatches, seed, factor, trained)
    return TrainingStep(function, abstract, trained, batch_size, lengths, microbatches, batch)


def placed_state(
    abstract_params: Any, freeze: str | None, optimizer: optax.GradientTransformation, mesh: Any
) -> tuple[TrainState, Trained]:
    """(shapes of a run's state with their shardings, paths of the parameters that it trains).

    Args:
        abstract_params: adapters included.
        freeze: see `trained_paths`.
    """
    trained = trained_paths(abstract_params, freeze)
    abstract = abstract_state(abstract_params, optimizer, trained)
    return meshes.with_shardings(abstract, state_shardings(mesh, abstract)), trained


def check_layout(model: AnyConfig, data: DataConfig) -> None:
    """Raises UserError unless batches of the data are what the model takes."""
    if data.layout != model.layout:
        raise UserError(
            f"DataConfig.layout is {data.layout!r}, but {type(model).__name__} takes batches of "
            f"the layout {model.layout!r}. Set config.DataConfig.layout = {model.layout!r}, as the "
            "files of gin/models do beside the model."
        )
    if data.loss_on == "all" and getattr(model, "prefix_lm", False):
        raise UserError(
            "DataConfig.loss_on is 'all', but a prefix-LM's prompt sees its own next tokens, so it "
            "cannot be trained on them. Use 'targets', or DecoderConfig.prefix_lm = False"
        )


def lower_train_step(
    step_fn: Callable[..., Any],
    abstract: TrainState,
    mesh: jax.sharding.Mesh,
    batch: Mapping[str, jax.ShapeDtypeStruct],
) -> jax.stages.Lowered:
    """Lowers (state, batch) -> (state, metrics); the state's memory is reused.

    Args:
        step_fn: from `make_train_step`.
        abstract: the state with its shardings.
        mesh: of real devices, or of a topology that a compiler knows.
        batch: see `abstract_batch`.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    out = (shardings, meshes.replicated_sharding(mesh))
    options = meshes.compiler_options(mesh)
    with jax.set_mesh(mesh):
        jitted = jax.jit(step_fn, donate_argnums=0, out_shardings=out, compiler_options=options)
        return jitted.lower(abstract, batch)


def abstract_batch(
    model: AnyConfig,
    mesh: Any,
    batch_size: int,
    lengths: tuple[int, int],
    num_microbatches: int = 1,
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and shardings of a global batch's arrays, for `lengths` of TASK_FEATURE_LENGTHS.

    Raises UserError if they do not divide over the mesh.
    """
    layout = LAYOUTS[model.layout]
    meshes.check_batch_size(mesh, batch_size, num_microbatches, layout.row_lengths(*lengths))
    rows, shapes = meshes.batch_sharding(mesh), layout.shapes(batch_size, *lengths)
    return {k: jax.ShapeDtypeStruct(s, jnp.int32, sharding=rows) for k, s in shapes.items()}
