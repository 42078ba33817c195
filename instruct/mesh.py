"""The device mesh and all sharding rules.

Five mesh axes, the outermost first:

    slice     rows; between TPU slices or GPU nodes, whose network is slow
    data      rows
    fsdp      rows and parameters
    tensor    heads, MLP and vocabulary
    sequence  lengths of inputs and targets, and parameters

Parameters and optimiser are split over `fsdp` and `sequence` and copied over `slice` and `data`.
Splitting them over `sequence` too costs no traffic (a device receives the rest of a weight either
way), saves the all-reduce of gradients over `sequence`, and divides their memory once more.

`PARAMETER_AXES` names the axes of a parameter by its path, `MESH_AXES` maps a named axis to mesh
axes; modules use neither. All functions work on a real mesh and on an `AbstractMesh`, which has no
devices, so a laptop can check a pod's layout.
"""

import dataclasses
import itertools
import math
import os
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from instruct.errors import UserError
from instruct.fields import bounded, check_fields

AXIS_NAMES = ("slice", "data", "fsdp", "tensor", "sequence")
_MOST_DEVICES = 2**31 - 1  # JAX counts them in 32 bits
# With Explicit axes (jax's default) sharding constraints would be assertions.
_AXIS_TYPES = (AxisType.Auto,) * len(AXIS_NAMES)

# The first match of the end of a parameter's path counts; stacked layers get "layers" in front.
PARAMETER_AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"token_embedder/embedding", ("vocab", "embed")),
    (r"logits_dense/kernel", ("embed", "vocab")),
    (r"query/kernel", ("embed", "joined_heads")),
    (r"(key|value)/kernel", ("embed", "joined_kv_heads")),
    (r"out/kernel", ("joined_heads", "embed")),
    (r"wi(_\d+)?/kernel", ("embed", "mlp")),
    (r"wo/kernel", ("mlp", "embed")),
    (r"query/bias", ("joined_heads",)),
    (r"(key|value)/bias", ("joined_kv_heads",)),
    (r"wi(_\d+)?/bias", ("mlp",)),
    (r"relpos_bias/rel_embedding", ("heads", "buckets")),
    (r"(out|wo|\w+_norm)/bias", ("norm",)),
    (r"scale", ("norm",)),
)

# Named axis -> mesh axes that split it, as many of the first as divide its size; else replicated.
MESH_AXES: dict[str, tuple[str, ...]] = {
    # parameters
    "vocab": ("tensor",),
    "embed": ("fsdp", "sequence"),
    "joined_heads": ("tensor",),
    "joined_kv_heads": ("tensor",),  # K heads may be fewer: a head is then split, or replicated
    "mlp": ("tensor",),
    "layers": (),
    "buckets": (),
    "norm": (),
    "rank": (),
    # activations ("vocab", "mlp" as above)
    "batch": ("slice", "data", "fsdp"),
    "heads": ("tensor",),
    "length": ("sequence",),
    "model": (),
    "head_dim": (),
    "copy": ("slice", "data"),  # of the parameters
    "share": ("slice", "data", "fsdp", "sequence"),  # parts of [rows, length], one a device
}

# The `tensor` axis exists to split these, so a size that does not divide is an error. Other axes
# are then split less or replicated, which `sharding_report` lists.
_MUST_DIVIDE = {"heads": "num_heads", "joined_heads": "num_heads * head_dim", "mlp": "d_ff"}


def _axis(default: int) -> Any:
    return bounded(default, least=1, also=-1, note=", or -1 for all devices that are left")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Sizes of the mesh axes; at most one may be -1, meaning all devices that are left."""

    slice: int = _axis(1)
    data: int = _axis(-1)
    fsdp: int = _axis(1)
    tensor: int = _axis(1)
    sequence: int = _axis(1)

    def __post_init__(self) -> None:
        check_fields(self)
        if sum(getattr(self, name) == -1 for name in AXIS_NAMES) > 1:
            raise UserError(f"MeshConfig: only one axis may be -1, got {self._text()}.")

    def _text(self) -> str:
        return ", ".join(f"{name} = {getattr(self, name)}" for name in AXIS_NAMES)

    def sizes(self, num_devices: int | None = None) -> tuple[int, ...]:
        """Sizes of `AXIS_NAMES` for that many devices; None: as written, -1 counting as 1."""
        sizes = tuple(getattr(self, name) for name in AXIS_NAMES)
        fixed = math.prod(size for size in sizes if size != -1)
        left = 1 if num_devices is None else num_devices // fixed
        needed = f"a multiple of {fixed}" if -1 in sizes else f"{fixed}"
        sizes = tuple(left if size == -1 else size for size in sizes)
        if num_devices is not None and math.prod(sizes) != num_devices:
            raise UserError(
                f"MeshConfig ({self._text()}) needs {needed} devices, but there are {num_devices}. "
                f"Choose sizes whose product is {num_devices}, for example fsdp = -1 and 1 for "
                "the others."
            )
        return sizes


def parse_mesh(text: str) -> MeshConfig:
    """Parses a mesh: '4x64' is data 4 x tensor 64, 'fsdp=4,tensor=8' names axes."""
    if match := re.fullmatch(r"(\d{1,10})x(\d{1,10})", text):
        return MeshConfig(data=int(match[1]), tensor=int(match[2]))
    names = "|".join(AXIS_NAMES)
    parts = [
        re.fullmatch(rf"\s*({names})\s*=\s*(-?\d{{1,10}})\s*", part) for part in text.split(",")
    ]
    if not all(parts):
        raise UserError(
            f"mesh {text!r} is not understood. Write DATAxTENSOR, for example 4x64, or name the "
            f"axes among {', '.join(AXIS_NAMES)}, for example data=4,fsdp=8,tensor=8."
        )
    named = {part[1]: int(part[2]) for part in parts if part}
    return MeshConfig(**({"data": 1} | named))


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh over all devices (or those given), axes named as in `AXIS_NAMES`.

    Raises UserError if the sizes do not fit the devices, or if `slice` would not lie between slices
    (TPU) or between groups of whole processes (others; one process may hold several slices).
    """
    wanted = os.environ.get("JAX_PLATFORMS")
    try:
        devices = jax.devices() if devices is None else devices
    except (RuntimeError, AssertionError) as error:  # AssertionError: a GPU without its plugin
        if not wanted:
            raise
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise UserError(
            f"JAX_PLATFORMS is {wanted!r}, but JAX finds no such device{reason}. Install the extra "
            "gpu or tpu on a machine that has one, or unset JAX_PLATFORMS."
        ) from error
    slices, *inner = config.sizes(len(devices))
    blocks = [
        # Splits a physical axis of a torus only where no assignment of whole axes exists.
        mesh_utils.create_device_mesh(inner, block, allow_split_physical_axes=True)
        for block in _slice_blocks(devices, slices)
    ]
    return Mesh(np.stack(blocks), AXIS_NAMES, axis_types=_AXIS_TYPES)


def _slice_blocks(devices: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """The devices of each of `count` slices."""

    def place(device: Any) -> tuple[int, int]:  # only TPUs, and some GPUs, know their slice
        return getattr(device, "slice_index", 0), device.process_index

    num_slices = len({place(device)[0] for device in devices})
    if devices[0].platform == "tpu" and num_slices != count:
        raise UserError(
            f"MeshConfig.slice = {count}, but the devices form {num_slices} TPU slice(s). Set "
            f"MeshConfig.slice = {num_slices}; inside a slice use data, fsdp, tensor and sequence."
        )
    if count == 1:
        return [devices]
    groups = num_slices if num_slices == count else len({place(device) for device in devices})
    if groups % count and count % groups:
        raise UserError(
            f"MeshConfig.slice = {count} does not fit {groups} processes: a slice must be whole "
            "processes. Use a number that divides the number of processes, for example the number "
            "of nodes."
        )
    ordered, size = sorted(devices, key=place), len(devices) // count
    return [ordered[start : start + size] for start in range(0, len(devices), size)]


def abstract_mesh(config: MeshConfig, num_devices: int | None = None) -> AbstractMesh:
    """`make_mesh` without devices; None: as many as the config needs.

    Raises UserError if the sizes do not fit the devices, or are more than JAX counts.
    """
    sizes = config.sizes(num_devices)
    if (count := math.prod(sizes)) > _MOST_DEVICES:
        shown = ", ".join(f"{name} = {size}" for name, size in zip(AXIS_NAMES, sizes))
        raise UserError(
            f"MeshConfig ({shown}) has {count} devices, at most {_MOST_DEVICES} are allowed; "
            "choose smaller sizes."
        )
    return AbstractMesh(sizes, AXIS_NAMES, axis_types=_AXIS_TYPES)


def compiler_options(mesh: Mesh) -> dict[str, bool]:
    """Options for `jax.jit` that keep all-gathers and reduce-scatters what they are.

    Between chips that form a torus of two or three dimensions (v5p:4x4x4, v6e:8x8) the TPU compiler
    turns them into all-reduces of the whole array, by default: all links at once, but twice the
    bytes, and computation waits. With these it gathers while it computes. A gradient whose share is
    smaller than a tile (fewer than 8 rows or columns) stays an all-reduce.
    """
    if mesh.devices.flat[0].platform != "tpu":
        return {}
    names = (
        "xla_enable_async_all_gather",
        "xla_tpu_prefer_async_allgather_to_allreduce",
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
        "xla_tpu_enable_sparse_core_collective_offload_nd_reduce_scatter",
    )
    return dict.fromkeys(names, True)


def platform() -> str:
    """'cpu', 'gpu' or 'tpu': of the current mesh (`jax.set_mesh`), else JAX's default."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def parameter_axes(path: str) -> tuple[str, ...]:
    """Axis names of the parameter at `path` ('encoder/layers_0/mlp/wo/kernel').

    An adapter of a kernel (`models/adapters.py`) has the kernel's axes, with the rank between them.
    """
    if adapter := re.fullmatch(r"(.*)/lora_(a|b|scale)", path):
        *layers, first, last = parameter_axes(f"{adapter[1]}/kernel")
        axes = {"a": (first, "rank"), "b": ("rank", last), "scale": ()}
        return (*layers, *axes[adapter[2]])
    for pattern, axes in PARAMETER_AXES:
        if re.search(rf"(^|/){pattern}$", path):
            return ("layers", *axes) if re.search(r"(^|/)layers/", path) else axes
    raise ValueError(f"no rule in instruct.mesh.PARAMETER_AXES for parameter {path!r}")


def partition_spec(
    mesh: Mesh | AbstractMesh, path: str, shape: Sequence[int], dropped_axis: int | None = None
) -> PartitionSpec:
    """Sharding of the parameter at `path`, or of an optimiser slot of it, of this shape.

    `dropped_axis`: the parameter's axis that a factored slot averages over. Raises UserError if
    heads or MLP do not divide by the mesh.
    """
    axes = list(parameter_axes(path))
    if dropped_axis is not None:
        del axes[dropped_axis]
    if len(axes) != len(shape):
        raise ValueError(f"{path}: axes {axes} do not fit shape {tuple(shape)}")
    return PartitionSpec(*(_mesh_axes(mesh, name, size, path) for name, size in zip(axes, shape)))


def _mesh_axes(mesh, name: str | None, size: int, path: str) -> str | tuple[str, ...] | None:
    wanted = wanted_axes(mesh, name)
    split = dividing_axes(mesh, name, size)
    if split != wanted and name in _MUST_DIVIDE:
        factors = " x ".join(f"{a} = {mesh.shape[a]}" for a in wanted)
        divisors = ", ".join(str(d) for d in range(1, size + 1) if size % d == 0)
        raise UserError(
            f"{_MUST_DIVIDE[name]} = {size} (axis {name!r} of {path}) does not divide by the mesh "
            f"axis {factors}. Set MeshConfig.{wanted[0]} to one of {divisors}, and give the other "
            "devices to MeshConfig.fsdp or MeshConfig.data."
        )
    return split[0] if len(split) == 1 else split or None


def wanted_axes(mesh: Mesh | AbstractMesh, name: str | None) -> tuple[str, ...]:
    """The mesh axes above 1 that split a named axis."""
    return tuple(axis for axis in MESH_AXES.get(name or "", ()) if mesh.shape.get(axis, 1) > 1)


def dividing_axes(mesh: Mesh | AbstractMesh, name: str | None, size: int) -> tuple[str, ...]:
    """As many of the first `wanted_axes` as divide an axis of this size."""
    axes = wanted_axes(mesh, name)
    while size % _ways(mesh, axes):
        axes = axes[:-1]
    return axes


def _ways(mesh, axes: Sequence[str]) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)


def tree_paths(tree: Any) -> list[tuple[str, Any]]:
    """(path with '/', leaf) of every leaf of a nested dict, in jax's order."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def param_shardings(mesh: Mesh | AbstractMesh, abstract_params: Any) -> Any:
    """Tree of `NamedSharding` for a tree of parameters (arrays or `ShapeDtypeStruct`s)."""
    shardings = [
        NamedSharding(mesh, partition_spec(mesh, path, leaf.shape))
        for path, leaf in tree_paths(abstract_params)
    ]
    return jax.tree.unflatten(jax.tree.structure(abstract_params), shardings)


def optimizer_shardings(
    mesh: Mesh | AbstractMesh, abstract_params: Any, abstract_opt_state: Any
) -> Any:
    """Tree of `NamedSharding` for the state of any optax optimiser.

    An array whose path contains a parameter's path and that has its shape is sharded like the
    parameter. Adafactor's `v_row` and `v_col` are sharded like the parameter's axes that they keep.
    Everything else is replicated.
    """
    params = dict(tree_paths(abstract_params))

    def spec(path: str, leaf: Any) -> PartitionSpec:
        name = parameter_in(path, params)
        if name is None:
            return PartitionSpec()
        shape, axes = tuple(params[name].shape), parameter_axes(name)
        if tuple(leaf.shape) == shape:
            return partition_spec(mesh, name, shape)
        slot = path.rpartition("/")[2]
        if slot in ("v_row", "v_col") and "embed" in axes:
            row = axes.index("embed")
            column = next(i for i, axis in enumerate(axes) if axis not in ("embed", "layers"))
            dropped = column if slot == "v_row" else row
            if tuple(leaf.shape) == shape[:dropped] + shape[dropped + 1 :]:
                return partition_spec(mesh, name, leaf.shape, dropped)
        return PartitionSpec()

    leaves = [NamedSharding(mesh, spec(*pair)) for pair in tree_paths(abstract_opt_state)]
    return jax.tree.unflatten(jax.tree.structure(abstract_opt_state), leaves)


def parameter_in(path: str, params: Container[str]) -> str | None:
    """The parameter whose path a path of an optimiser's state contains, or None.

    >>> parameter_in("0/mu/decoder/layers/mlp/wo/kernel", {"decoder/layers/mlp/wo/kernel"})
    'decoder/layers/mlp/wo/kernel'
    """
    parts = path.split("/")
    spans = itertools.combinations(range(len(parts) + 1), 2)
    candidates = ("/".join(parts[start:end]) for start, end in spans)
    return next((name for name in candidates if name in params), None)


def with_shardings(abstract: Any, shardings: Any) -> Any:
    """Combines a tree of shapes and dtypes with a tree of shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Sharding of every array of a batch: rows over `slice`, `data` and `fsdp`.

    Every device holds whole rows of tokens; the model splits what it computes over `sequence`.
    """
    return NamedSharding(mesh, PartitionSpec(MESH_AXES["batch"]))


def shard_batch(mesh: Mesh | AbstractMesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Global arrays of a batch, from the rows of this process."""
    rows = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(rows, v) for k, v in batch.items()}


def process_rows(mesh: Mesh, batch_size: int) -> dict[int, list[int]]:
    """Process -> numbers of a batch's rows that its devices hold, ascending.

    Processes that only split heads or lengths between them hold the same rows.
    """
    rows: dict[int, set[int]] = {}
    for device, (part, *_) in batch_sharding(mesh).devices_indices_map((batch_size,)).items():
        held = range(*part.indices(batch_size))
        rows.setdefault(device.process_index, set()).update(held)
    return {process: sorted(rows[process]) for process in sorted(rows)}


def replicated_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Sharding of replicated arrays: step numbers, scalars, keys."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(
    mesh: Mesh | AbstractMesh,
    batch_size: int,
    num_microbatches: int = 1,
    lengths: Sequence[int] = (),
) -> None:
    """Raises UserError unless each microbatch divides over the mesh.

    The rows must divide over `slice` x `data` x `fsdp`, and the `lengths` of inputs and targets
    over `sequence`.
    """
    ways = math.prod(mesh.shape[axis] for axis in MESH_AXES["batch"])
    least = ways * num_microbatches
    if batch_size % least:
        parts = f" in {num_microbatches} microbatches" if num_microbatches > 1 else ""
        raise UserError(
            f"a batch of {batch_size} rows{parts} does not divide over the mesh's slice x data x "
            f"fsdp = {ways} shares. Use a multiple of {least}, for example "
            f"{math.ceil(batch_size / least) * least}{', or fewer num_microbatches' * bool(parts)}."
        )
    ways = mesh.shape["sequence"]
    for length in lengths:
        if length % ways:
            raise UserError(
                f"a length of {length} tokens (TASK_FEATURE_LENGTHS) does not divide over "
                f"MeshConfig.sequence = {ways}. Use a multiple, for example "
                f"{math.ceil(length / ways) * ways}, or a sequence axis of "
                f"{math.gcd(length, ways)}."
            )


def logical_constraint(x: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """x, with a hint to the compiler how its named axes are sharded over the current mesh.

    The mesh is that of `jax.set_mesh`. Without one, or for axes that do not divide, the compiler
    decides. Never changes values.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, logical_spec(x.shape, axes))


def logical_spec(shape: Sequence[int], axes: Sequence[str | None]) -> PartitionSpec:
    """How an array with these named axes is sharded over the current mesh.

    An axis that does not divide is replicated.
    """
    mesh = jax.sharding.get_abstract_mesh()
    pairs = zip(axes, shape, strict=True)
    return PartitionSpec(*(dividing_axes(mesh, name, size) or None for name, size in pairs))


@dataclasses.dataclass(frozen=True)
class ShardingRow:
    """One line of the sharding table: equal layers are one row."""

    path: str  # layer numbers as `*`
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    spec: str
    count: int  # parameters with this path, shape and spec
    bytes_per_device: int  # of all of them
    copies: int  # devices with the same share
    note: str  # axes that are replicated, or split less, because they do not divide


def sharding_report(mesh: Mesh | AbstractMesh, abstract_params: Any) -> list[ShardingRow]:
    """The sharding table of a model, in the order of the tree; allocates nothing."""
    rows: dict[tuple, ShardingRow] = {}
    for path, leaf in tree_paths(abstract_params):
        axes = parameter_axes(path)
        spec = partition_spec(mesh, path, leaf.shape)
        share = NamedSharding(mesh, spec).shard_shape(tuple(leaf.shape))
        shares = math.prod(leaf.shape) // math.prod(share)
        notes = []
        for name, size in zip(axes, leaf.shape):
            wanted, split = wanted_axes(mesh, name), dividing_axes(mesh, name, size)
            if split != wanted:
                factors = " x ".join(f"{axis} = {mesh.shape[axis]}" for axis in wanted)
                instead = f"split over {' x '.join(split)} only" if split else "replicated"
                notes.append(f"{name} = {size} does not divide by {factors}: {instead}")
        name = re.sub(r"layers_\d+", "layers_*", path)
        row = ShardingRow(
            path=name,
            shape=tuple(leaf.shape),
            axes=axes,
            spec=", ".join("+".join(s) if isinstance(s, tuple) else str(s or "-") for s in spec),
            count=0,
            bytes_per_device=0,
            copies=mesh.size // shares,
            note="; ".join(notes),
        )
        key = (name, row.shape, row.spec)
        row = rows.get(key, row)
        num_bytes = row.bytes_per_device + math.prod(share) * leaf.dtype.itemsize
        rows[key] = dataclasses.replace(row, count=row.count + 1, bytes_per_device=num_bytes)
    return list(rows.values())
