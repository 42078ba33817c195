"""`run.py check`: a dry run before a pod is booked. Allocates nothing.

Traces the model at its true size over a mesh that need not exist. Missing files and settings (a
vocabulary, a checkpoint, prepared records) are warnings here and errors in `train`.
"""

import argparse
import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from instruct import gin_config
from instruct import mesh as meshes
from instruct.batch import batch_shapes
from instruct.cli import settings, show
from instruct.cli.show_tables import mixture_table, number_table, wide_console
from instruct.data import registry
from instruct.data.config import AUTO_VOCABULARY, DataConfig
from instruct.data.feed.leaves import check_split
from instruct.data.mixture_shares import MixtureView
from instruct.data.stores.left_out import left_out_path, tasks_left_out
from instruct.data.vocab import check_embedding_rows, load_vocabulary
from instruct.errors import UserError
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.train.loss import LossConfig, make_loss_fn
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import abstract_state, make_train_step, state_shardings
from instruct.workspace import Workspace

_GIB = 1 << 30
# Flan's published setting (arXiv 2210.11416, E), for a model file alone.
_DEFAULT_SHAPE = (64, (2048, 512))
# Values for required macros that are not set, by kind.
_NOT_SET = "<{name} is not set>"
_STAND_INS = {
    "str": _NOT_SET,
    "mapping": dict(zip(("inputs", "targets"), _DEFAULT_SHAPE[1])),
    "int": 1,
}


def run(flags: argparse.Namespace) -> int:
    """Prints the check; warnings at the end. Returns 0 unless a UserError is raised."""
    workspace, entries, assumed = settings.load_with_stand_ins(flags, _STAND_INS)
    train, model_fields = entries[gin_config.TRAIN], entries[gin_config.MODEL]
    model = train.get("model") or (ModelConfig(**model_fields) if model_fields else None)
    if model is None:
        raise UserError("nothing to check: add --gin_file=gin/models/SIZE.gin or a recipe.")
    console = wide_console()
    warnings = []
    if assumed:
        gin_flags = " ".join(f"--gin.{name}=..." for name in assumed)
        warnings.append(f"not set, and needed to train: {', '.join(assumed)}. Add {gin_flags}")
    if "TASK_FEATURE_LENGTHS" in assumed:
        lengths = _STAND_INS["mapping"]
        warnings.append(f"TASK_FEATURE_LENGTHS is taken as {lengths}; FLOPs depend on it")
    started = time.perf_counter()
    console.rule("configuration")
    console.print(gin_config.operative_text().strip(), markup=False)
    console.rule("model")
    console.print(
        f"{model.num_params():,} parameters: {model.num_encoder_layers} + "
        f"{model.num_decoder_layers} layers, d_model {model.d_model}, {model.num_heads} heads x "
        f"{model.head_dim}, d_ff {model.d_ff}, vocabulary {model.vocab_size}, "
        f"{model.activations}, {'tied' if model.tied_output else 'untied'} output"
    )
    config = meshes.parse_mesh(flags.mesh) if flags.mesh else train.get("mesh", meshes.MeshConfig())
    mesh = meshes.abstract_mesh(config)
    _print_sharding(console, model, mesh)
    _print_step(console, model, mesh, train)
    data = train.get("data")
    if data is not None:
        data = registry.with_vocabulary(workspace, data) if _is_set(data.mixture) else data
        _print_mixture(workspace, console, data, model, flags.rows, warnings)
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {warning}")
    console.print(f"checked in {time.perf_counter() - started:.1f} s")
    return 0


def _is_set(value: str) -> bool:
    return not (value.startswith("<") and value.endswith(" is not set>"))


def _print_sharding(console: Console, model: ModelConfig, mesh: Any) -> None:
    sizes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    texts = ("parameter", "shape", "axes", "split over")
    table = number_table(f"mesh: {sizes}", texts, ("copies", "MiB a device"))
    rows = meshes.sharding_report(mesh, EncoderDecoder(model).abstract_params())
    for row in rows:
        shape = "x".join(str(size) for size in row.shape)
        times = f"{row.count} x " if row.count > 1 else ""
        table.add_row(
            times + row.path,
            shape,
            " ".join(row.axes),
            row.spec,
            str(row.copies),
            f"{row.bytes_per_device / (1 << 20):.2f}",
        )
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"{row.path}: {row.note}")


def _device_bytes(abstract: Any, shardings: Any) -> int:
    """Bytes per device of a tree of `ShapeDtypeStruct`s with a tree of shardings."""
    return sum(
        leaf.dtype.itemsize * math.prod(sharding.shard_shape(leaf.shape))
        for leaf, sharding in zip(jax.tree.leaves(abstract), jax.tree.leaves(shardings))
    )


def _print_step(console: Console, model: ModelConfig, mesh: Any, train: dict[str, Any]) -> None:
    """Traces one update at its true size; prints FLOPs and bytes per device."""
    console.rule("one training step")
    data = train.get("data")
    rows, (inputs, targets) = (data.batch_size, data.lengths) if data else _DEFAULT_SHAPE
    microbatches = train.get("num_microbatches", 1)
    meshes.check_batch_size(mesh, rows, microbatches, (inputs, targets))
    flops = model.train_flops(rows, inputs, targets)
    console.print(
        f"batch of {rows} rows of {inputs} + {targets} tokens: {flops:.3e} FLOPs, "
        f"{flops / mesh.size:.3e} a device (matrix products, forward and backward, no remat)"
    )
    network = EncoderDecoder(model)
    optimizer = make_optimizer(train.get("optimizer", OptimizerConfig()))
    abstract = abstract_state(network.abstract_params(), optimizer)
    shardings = state_shardings(mesh, abstract)
    parts = {
        "parameters": _device_bytes(abstract.params, shardings.params),
        "gradients": _device_bytes(abstract.params, shardings.params),
        "optimiser": _device_bytes(abstract.opt_state, shardings.opt_state),
    }
    shapes = batch_shapes(rows, inputs, targets)
    batch = {key: jax.ShapeDtypeStruct(shape, jnp.int32) for key, shape in shapes.items()}
    parts["batch"] = sum(4 * math.prod(shape) for shape in shapes.values()) // math.prod(
        mesh.shape[axis] for axis in meshes.MESH_AXES["batch"]
    )
    listed = ", ".join(f"{name} {size / _GIB:.3f}" for name, size in parts.items())
    console.print(
        f"GiB a device: {listed}; in all {sum(parts.values()) / _GIB:.3f}, plus activations"
    )
    losses = train.get("loss", LossConfig())
    loss_fn = make_loss_fn(network.decoder_hidden, network.head_kernel, losses)
    train_step = make_train_step(
        loss_fn, optimizer, microbatches, 0, losses.loss_normalizing_factor
    )
    started = time.perf_counter()
    with jax.sharding.use_abstract_mesh(mesh):
        jax.eval_shape(train_step, abstract, batch)
    console.print(f"one abstract update traced in {time.perf_counter() - started:.1f} s")


def _print_mixture(
    workspace: Workspace,
    console: Console,
    data: DataConfig,
    model: ModelConfig,
    rows: int,
    warnings: list[str],
) -> None:
    """Prints rates, and the first packed rows as text if the records are prepared."""
    console.rule("data")
    readable = False
    if not _is_set(data.vocabulary) or data.vocabulary == AUTO_VOCABULARY:
        console.print(
            f"vocabulary: not known; the model has rows for {model.vocab_size:,} ids, sentinels "
            "included"
        )
    else:
        console.print(f"vocabulary: {data.vocabulary}", markup=False, soft_wrap=True)
        try:
            check_embedding_rows(load_vocabulary(data.vocabulary), model.vocab_size)
            readable = True
        except UserError as error:
            warnings.append(str(error))
    if not _is_set(data.mixture):
        return
    resolved = registry.resolve(
        workspace, data.mixture, data.split, tasks_left_out(workspace, data)
    )
    if resolved.left_out:
        warnings.append(
            f"{len(resolved.left_out)} tasks are left out, as "
            f"{left_out_path(workspace, data.mixture)} says"
        )
    check_split(resolved, data.split)
    console.print(mixture_table(MixtureView(workspace, resolved)))
    plain = [leaf for leaf in resolved.leaves if leaf.spec is None]
    if plain and not readable:  # their stores are named after the vocabulary
        return
    missing = registry.unprepared(workspace, resolved, data)
    if missing:
        warnings.append(
            f"{len(missing)} of {len(resolved.leaves)} leaves have no prepared records yet, such "
            f"as {missing[0]}; `train` prepares them, or `run.py prepare --mixture={data.mixture}`."
        )
    if readable and not missing and rows:
        few = dataclasses.replace(data, batch_size=rows, workers=0)
        show.print_packed_rows(workspace, console, few, resolved)
