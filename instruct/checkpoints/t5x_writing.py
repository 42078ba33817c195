"""Writes T5X's legacy layout, byte for byte as T5X does (`t5x.py` shows it).

The index is msgpack with sorted names; parameters and unfactored slots are zarr arrays beside it,
gzip at level 1, in chunks of at most 64 MiB; factored slots and placeholders are in the index.
"""

import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import serialization
from flax.traverse_util import unflatten_dict

from instruct.checkpoints.arrays import LazyArray
from instruct.checkpoints.folders import new_folder
from instruct.checkpoints.stores import ArrayWriter, Store, chunk_shape
from instruct.checkpoints.t5x import INDEX, SLOT_NAMES

_COMPRESSOR = {"id": "gzip", "level": 1}
_FLOAT32 = np.dtype(np.float32)


def write_checkpoint(
    target: pathlib.Path,
    arrays: Mapping[str, LazyArray],
    dtype: np.dtype,
    *,
    slots: Mapping[str, LazyArray] | None = None,
    step: int = 0,
) -> None:
    """Writes a folder that T5X restores, atomically; T5X requires the name `checkpoint_<step>`.

    `arrays` and Adafactor's `slots` are under our names, layers separate; slots are always float32,
    as T5X's. Without them T5X can restore only the parameters.
    """
    slots = slots or {}
    size = sum(array.size * dtype.itemsize for array in arrays.values())
    size += sum(array.nbytes for array in slots.values())
    with new_folder(target, size) as folder:
        store = Store(str(folder))
        parameters, state = {}, {}
        with ArrayWriter() as writer:
            for path, array in arrays.items():
                values = array.read_as(dtype)
                parameters[path] = _write(writer, store, f"target/{path}", values)
            names = itertools.product(arrays, SLOT_NAMES) if slots else ()
            for name in map("/".join, names):
                array = slots.get(name)
                state[name] = np.zeros(1, np.float32) if array is None else array.read_as(_FLOAT32)
                # An unfactored `v` lies beside the index; placeholders and the others are in it.
                if array is not None and name.endswith("/v"):
                    state[name] = _write(writer, store, f"state/param_states/{name}", state[name])
        param_states = unflatten_dict(state, sep="/")
        tree = {
            "state": {"param_states": param_states, "step": np.asarray(step, np.int32)},
            "target": unflatten_dict(parameters, sep="/"),
        }
        # Sorted except the top, as T5X writes it.
        index = {"version": 3, "optimizer": _sorted(tree)}
        # In place: otherwise flax copies the tree and sorts its top as well.
        (folder / INDEX).write_bytes(serialization.msgpack_serialize(index, in_place=True))


def _write(writer: ArrayWriter, store: Store, path: str, values: np.ndarray) -> dict[str, Any]:
    """Writes an array beside the index; returns its entry in the index."""
    name = path.replace("/", ".")
    metadata = {
        "chunks": chunk_shape(values.shape, values.dtype.itemsize),
        "compressor": _COMPRESSOR,
        "shape": list(values.shape),
    }
    spec = {"driver": "zarr", "kvstore": store.inside(name), "metadata": metadata}
    # T5X leaves out chunks of zeros; parameters keep them, so that a lost chunk is detected.
    writer.add(spec | {"store_data_equal_to_fill_value": path.startswith("target/")}, values)
    return {
        "driver": "zarr",
        "dtype": values.dtype.name,
        "kvstore": {"driver": "file", "path": f"{name}/"},
        "metadata": metadata,
    }


def _sorted(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {name: _sorted(node[name]) for name in sorted(node)}
