"""`run.py check`: a dry run before a pod is booked. Allocates nothing.

Traces the model at its true size over a mesh that need not exist; with --topology compiles it for
one (`topology.py`). Missing files and settings (a vocabulary, a checkpoint, prepared records) are
warnings here and errors in `train`.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import jax
from rich.console import Console

from instruct import gin_config
from instruct import mesh as meshes
from instruct.checkpoints.train_state import TrainState
from instruct.cli import settings, show, topology
from instruct.cli.show_tables import mixture_table, number_table, wide_console
from instruct.data import registry
from instruct.data.config import AUTO_VOCABULARY, DataConfig
from instruct.data.feed.leaves import check_split
from instruct.data.feed.spelling import ALL, mixture_spelling, spelling_lines
from instruct.data.mixture_shares import MixtureView
from instruct.data.spec import Resolved
from instruct.data.stores.left_out import left_out_path, tasks_left_out
from instruct.data.vocab import check_embedding_rows, load_vocabulary
from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.eval_config import SuitesConfig
from instruct.eval.programs import cache_bytes
from instruct.fields import check_arguments
from instruct.models.model import AnyConfig, make_model
from instruct.train import loop
from instruct.train.profiling import check_profile_steps
from instruct.train.program import training_step
from instruct.train.trained import Trained, sizes_of, split_params, trained_line
from instruct.workspace import Workspace

_GIB = 1 << 30
# Flan's published setting (arXiv 2210.11416, E), for a model file alone.
DEFAULT_SHAPE = (64, (2048, 512))
# Values for required macros that are not set, by kind.
_NOT_SET = "<{name} is not set>"
STAND_INS = {
    "str": _NOT_SET,
    "mapping": dict(zip(("inputs", "targets"), DEFAULT_SHAPE[1])),
    "int": 1,
}


def run(flags: argparse.Namespace) -> int:
    """Prints the check; warnings at the end. Returns 1 if a program does not fit, else 0."""
    machine = topology.checked_flags(flags)
    own = settings.own_task(flags)
    workspace, entries, assumed = settings.load_with_stand_ins(flags, STAND_INS, own)
    train, model = entries[gin_config.TRAIN], model_of(entries)
    if train.get("data") is not None:  # what `train` would refuse on the machines that are booked
        check_arguments(loop.train, train, except_for=("model_dir",))
        check_profile_steps(train.get("profile_steps"))
    console = wide_console()
    warnings = []
    if assumed:
        gin_flags = " ".join(f"--gin.{name}=..." for name in assumed)
        warnings.append(f"not set, and needed to train: {', '.join(assumed)}. Add {gin_flags}")
    if "TASK_FEATURE_LENGTHS" in assumed:
        lengths = STAND_INS["mapping"]
        warnings.append(f"TASK_FEATURE_LENGTHS is taken as {lengths}; FLOPs depend on it")
    suites = SuitesConfig(**entries[gin_config.SUITES])
    for suite in suites.evaluation().suites if suites.every_steps else ():
        registry.check_name(workspace, suite)
    started = time.perf_counter()
    console.rule("configuration")
    console.print(gin_config.operative_text().strip(), markup=False)
    console.rule("model")
    console.print(f"{model.num_params():,} parameters: {model.describe()}")
    num_devices = machine.num_chips if machine else None
    mesh = meshes.abstract_mesh(mesh_config(flags, train), num_devices)
    _print_sharding(console, model, mesh)
    _print_step(console, model, mesh, train)
    _print_cache(console, model, train, entries[gin_config.EVALUATE])
    data = train.get("data")
    if data is not None:
        data = registry.with_vocabulary(workspace, data) if is_set(data.mixture) else data
        _print_mixture(workspace, console, data, model, flags.rows, warnings)
    fits = topology.print_compiled(console, flags) if machine else True
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {warning}")
    console.print(f"checked in {time.perf_counter() - started:.1f} s")
    return 0 if fits else 1


def model_of(entries: Mapping[str, Any]) -> AnyConfig:
    """The model of gin's entries, bound alone or by `train`."""
    model = settings.bound_model(entries)
    if model is None:
        raise UserError("nothing to check: add --gin_file=gin/models/SIZE.gin or a recipe.")
    return model


def mesh_config(flags: argparse.Namespace, train: Mapping[str, Any]) -> meshes.MeshConfig:
    """--mesh, else gin's."""
    if flags.mesh:
        return meshes.parse_mesh(flags.mesh)
    return train.get("mesh", meshes.MeshConfig())


def is_set(value: str) -> bool:
    """Whether a text is not the stand-in of a macro that must be set."""
    return not (value.startswith("<") and value.endswith(" is not set>"))


def _print_sharding(console: Console, model: AnyConfig, mesh: Any) -> None:
    sizes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    texts = ("parameter", "shape", "axes", "split over")
    table = number_table(f"mesh: {sizes}", texts, ("copies", "MiB a device"))
    rows = meshes.sharding_report(mesh, make_model(model).abstract_params())
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


def state_bytes(state: TrainState, trained: Trained = None) -> dict[str, int]:
    """Bytes of one device by the shardings of an abstract state; gradients as what is trained."""

    def device_bytes(tree: Any) -> int:
        return sum(
            leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
            for leaf in jax.tree.leaves(tree)
        )

    return {
        "parameters": device_bytes(state.params),
        "gradients": device_bytes(split_params(state.params, trained)[0]),
        "optimiser": device_bytes(state.opt_state),
    }


def _print_step(console: Console, model: AnyConfig, mesh: Any, train: dict[str, Any]) -> None:
    """Traces one update at its true size; prints FLOPs and bytes per device."""
    console.rule("one training step")
    step = training_step(model, mesh, train, DEFAULT_SHAPE)
    rows, (inputs, targets) = step.batch_size, step.lengths
    flops = model.train_flops(rows, inputs, targets)
    console.print(
        f"batch of {rows} rows of {inputs} + {targets} tokens: {flops:.3e} FLOPs, "
        f"{flops / mesh.size:.3e} a device (matrix products, forward and backward, no remat)"
    )
    console.print(trained_line(sizes_of(step.abstract, step.trained)))
    batch = step.batch
    parts = state_bytes(step.abstract, step.trained) | {
        "batch": sum(4 * math.prod(x.sharding.shard_shape(x.shape)) for x in batch.values())
    }
    listed = ", ".join(f"{name} {size / _GIB:.3f}" for name, size in parts.items())
    console.print(
        f"GiB a device: {listed}; in all {sum(parts.values()) / _GIB:.3f}, plus activations"
    )
    started = time.perf_counter()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (step.abstract, batch))
    with jax.sharding.use_abstract_mesh(mesh):
        jax.eval_shape(step.function, *shapes)
    console.print(f"one abstract update traced in {time.perf_counter() - started:.1f} s")


def _print_cache(
    console: Console, model: AnyConfig, train: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> None:
    """Prints the bytes of what decoding keeps of prompts and answers."""
    data = train.get("data")
    inputs, targets = data.lengths if data else DEFAULT_SHAPE[1]
    decode = evaluation.get("decode") or DecodeConfig(max_decode_steps=targets)
    slots = (evaluation.get("batching") or BatchConfig()).batch_size
    network = make_model(model)
    sizes = cache_bytes(network, network.abstract_params(), decode, slots, inputs)
    listed = ", ".join(f"{name} {size / _GIB:.3f}" for name, size in sizes.items())
    console.print(
        f"decoding ({decode.describe()}), {slots} slots, prompts of {inputs} tokens: cache of "
        f"{listed} GiB in all, split over rows and heads"
    )


def _print_mixture(
    workspace: Workspace,
    console: Console,
    data: DataConfig,
    model: AnyConfig,
    rows: int,
    warnings: list[str],
) -> None:
    """Prints rates, and the first packed rows as text if the records are prepared."""
    console.rule("data")
    readable = False
    if not is_set(data.vocabulary) or data.vocabulary == AUTO_VOCABULARY:
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
    if not is_set(data.mixture):
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
    if readable and not missing:
        _print_spelling(workspace, console, data, resolved, warnings)
    if readable and not missing and rows:
        few = dataclasses.replace(data, batch_size=rows, workers=0)
        show.print_packed_rows(workspace, console, few, resolved)


def _print_spelling(
    workspace: Workspace,
    console: Console,
    data: DataConfig,
    resolved: Resolved,
    warnings: list[str],
) -> None:
    """Prints what the vocabulary cannot spell, by task."""
    try:
        spelled = mixture_spelling(workspace, data, resolved)
    except UserError as error:  # an empty or damaged store
        warnings.append(str(error))
        return
    for line in spelling_lines(spelled):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if spelled[ALL].targets:
        warnings.append(
            f"vocabulary {data.vocabulary!r} cannot spell {spelled[ALL].targets:.1%} of the "
            "targets: no model can write them"
        )
