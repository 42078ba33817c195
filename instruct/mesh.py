"""The device mesh and all sharding rules.

Three mesh axes: `data` splits rows, `fsdp` splits rows and parameters, `tensor` splits heads, MLP
and vocabulary. `PARAMETER_AXES` names the axes of a parameter by its path, `MESH_AXES` maps a named
axis to mesh axes; modules use neither. All functions work on a real mesh and on an `AbstractMesh`,
which has no devices, so a laptop can check a pod's layout.
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
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from instruct.errors import UserError
from instruct.fields import bounded, check_fields

AXIS_NAMES = ("data", "fsdp", "tensor")
# With Explicit axes (jax's default) sharding constraints would be assertions.
_AXIS_TYPES = (AxisType.Auto,) * len(AXIS_NAMES)

# The first match of the end of a parameter's path counts; stacked layers get "layers" in front.
PARAMETER_AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"token_embedder/embedding", ("vocab", "embed")),
    (r"logits_dense/kernel", ("embed", "vocab")),
    (r"(query|key|value)/kernel", ("embed", "joined_heads")),
    (r"out/kernel", ("joined_heads", "embed")),
    (r"wi(_\d+)?/kernel", ("embed", "mlp")),
    (r"wo/kernel", ("mlp", "embed")),
    (r"relpos_bias/rel_embedding", ("heads", "buckets")),
    (r"scale", ("norm",)),
)

# Named axis -> mesh axes that split it; without any it is replicated.
MESH_AXES: dict[str, tuple[str, ...]] = {
    # parameters
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "joined_heads": ("tensor",),
    "mlp": ("tensor",),
    "layers": (),
    "buckets": (),
    "norm": (),
    # activations ("vocab", "mlp" as above)
    "batch": ("data", "fsdp"),
    "heads": ("tensor",),
    "length": (),
    "model": (),
    "head_dim": (),
}

# The `tensor` axis exists to split these, so a size that does not divide is an error. Other axes
# are then replicated, which `sharding_report` lists.
_MUST_DIVIDE = {"heads": "num_heads", "joined_heads": "num_heads * head_dim", "mlp": "d_ff"}


def _axis(default: int) -> Any:
    return bounded(default, least=1, also=-1, note=", or -1 for all devices that are left")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; at most one may be -1, meaning all devices that are left."""

    data: int = _axis(-1)
    fsdp: int = _axis(1)
    tensor: int = _axis(1)

    def __post_init__(self) -> None:
        check_fields(self)
        if sum(getattr(self, name) == -1 for name in AXIS_NAMES) > 1:
            raise UserError(f"MeshConfig: only one axis may be -1, got {self._text()}.")

    def _text(self) -> str:
        return ", ".join(f"{name} = {getattr(self, name)}" for name in AXIS_NAMES)

    def sizes(self, num_devices: int | None = None) -> tuple[int, int, int]:
        """(data, fsdp, tensor) for that many devices; None: as written, -1 counting as 1."""
        sizes = tuple(getattr(self, name) for name in AXIS_NAMES)
        fixed = math.prod(size for size in sizes if size != -1)
        left = 1 if num_devices is None else num_devices // fixed
        needed = f"a multiple of {fixed}" if -1 in sizes else f"{fixed}"
        sizes = tuple(left if size == -1 else size for size in sizes)
        if num_devices is not None and math.prod(sizes) != num_devices:
            raise UserError(
                f"MeshConfig ({self._text()}) needs {needed} devices, but there are {num_devices}. "
                f"Choose sizes whose product is {num_devices}, for example data = -1, fsdp = 1, "
                "tensor = 1."
            )
        return sizes  # pyright: ignore[reportReturnType]


def parse_mesh(text: str) -> MeshConfig:
    """Parses a mesh: '4x64' is data 4 x tensor 64, 'fsdp=4,tensor=8' names axes."""
    if match := re.fullmatch(r"(\d+)x(\d+)", text):
        return MeshConfig(data=int(match[1]), tensor=int(match[2]))
    parts = [re.fullmatch(r"\s*(data|fsdp|tensor)\s*=\s*(-?\d+)\s*", p) for p in text.split(",")]
    if not all(parts):
        raise UserError(
            f"mesh {text!r} is not understood. Write DATAxTENSOR, for example 4x64, or name the "
            "axes among data, fsdp and tensor, for example data=4,fsdp=8,tensor=8."
        )
    named = {part[1]: int(part[2]) for part in parts if part}
    return MeshConfig(**({"data": 1} | named))


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh over all devices (or those given), axes named as in `AXIS_NAMES`."""
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
    sizes = config.sizes(len(devices))
    return jax.make_mesh(sizes, AXIS_NAMES, axis_types=_AXIS_TYPES, devices=devices)


def abstract_mesh(config: MeshConfig, num_devices: int | None = None) -> AbstractMesh:
    """`make_mesh` without devices; None: as many as the config needs."""
    return AbstractMesh(config.sizes(num_devices), AXIS_NAMES, axis_types=_AXIS_TYPES)


def parameter_axes(path: str) -> tuple[str, ...]:
    """Axis names of the parameter at `path` ('encoder/layers_0/mlp/wo/kernel')."""
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


def _mesh_axes(mesh, name: str, size: int, path: str) -> str | tuple[str, ...] | None:
    wanted = tuple(a for a in MESH_AXES.get(name, ()) if mesh.shape.get(a, 1) > 1)
    ways = math.prod(mesh.shape[a] for a in wanted)
    if size % ways == 0:
        return wanted[0] if len(wanted) == 1 else wanted or None
    if name in _MUST_DIVIDE:
        factors = " x ".join(f"{a} = {mesh.shape[a]}" for a in wanted)
        divisors = ", ".join(str(d) for d in range(1, size + 1) if size % d == 0)
        raise UserError(
            f"{_MUST_DIVIDE[name]} = {size} (axis {name!r} of {path}) does not divide by the mesh "
            f"axis {factors}. Set MeshConfig.{wanted[0]} to one of {divisors}, and give the other "
            "devices to MeshConfig.fsdp or MeshConfig.data."
        )
    return None


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
    """Sharding of every array of a batch: rows over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(MESH_AXES["batch"]))


def shard_batch(mesh: Mesh | AbstractMesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Global arrays of a batch, from the rows of this process."""
    rows = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(rows, v) for k, v in batch.items()}


def replicated_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Sharding of replicated arrays: step numbers, scalars, keys."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(mesh: Mesh | AbstractMesh, batch_size: int, num_microbatches: int = 1) -> None:
    """Raises UserError unless the rows of each microbatch divide over `data` x `fsdp`."""
    ways = math.prod(mesh.shape[axis] for axis in MESH_AXES["batch"])
    least = ways * num_microbatches
    if batch_size % least:
        parts = f" in {num_microbatches} microbatches" if num_microbatches > 1 else ""
        raise UserError(
            f"a batch of {batch_size} rows{parts} does not divide over the mesh's data x fsdp = "
            f"{ways} shares. Use a multiple of {least}, for example "
            f"{math.ceil(batch_size / least) * least}{', or fewer num_microbatches' * bool(parts)}."
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
    spec = []
    for name, size in zip(axes, shape, strict=True):
        split = tuple(a for a in MESH_AXES.get(name or "", ()) if mesh.shape.get(a, 1) > 1)
        spec.append(
            split if split and size % math.prod(mesh.shape[a] for a in split) == 0 else None
        )
    return PartitionSpec(*spec)


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
    note: str  # axes that are replicated because they do not divide


def sharding_report(mesh: Mesh | AbstractMesh, abstract_params: Any) -> list[ShardingRow]:
    """The sharding table of a model, in the order of the tree; allocates nothing."""
    rows: dict[tuple, ShardingRow] = {}
    for path, leaf in tree_paths(abstract_params):
        axes = parameter_axes(path)
        spec = partition_spec(mesh, path, leaf.shape)
        share = NamedSharding(mesh, spec).shard_shape(tuple(leaf.shape))
        shares = math.prod(leaf.shape) // math.prod(share)
        notes = [
            f"{name} = {size} does not divide by {'x'.join(MESH_AXES[name])}: replicated"
            for name, size, split in zip(axes, leaf.shape, spec)
            if split is None and any(mesh.shape.get(a, 1) > 1 for a in MESH_AXES.get(name, ()))
        ]
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
