"""Writes T5X's legacy layout, byte for byte as T5X does (`t5x.py` has the picture).

The index is msgpack with sorted names; parameters and unfactored slots are zarr arrays beside it,
gzip at level 1, in chunks of at most 64 MiB; factored slots and placeholders are in the index.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import serialization

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
    """Writes a folder that T5X restores, whole or not at all.

    Args:
        target: new folder; T5X wants it to be called `checkpoint_<step>`.
        arrays: parameters under our names, layers separate.
        dtype: of the parameters; slots are float32 always, as T5X's.
        slots: Adafactor's; without them T5X can restore the parameters only.
        step: finished updates.

    Raises:
        UserError: `target` is taken.
        OSError: the disk is full.
    """
    size = sum(array.nbytes // array.dtype.itemsize * dtype.itemsize for array in arrays.values())
    size += sum(array.nbytes for array in (slots or {}).values())
    with new_folder(target, size) as folder:
        store = Store(str(folder))
        parameters: dict[str, Any] = {}
        with ArrayWriter() as writer:
            for path, array in arrays.items():
                place = ("target", path)
                _put(parameters, path, _write(writer, store, place, array.read_as(dtype)))
            state = _write_slots(writer, store, arrays, slots) if slots else {}
        tree = {
            "state": {"param_states": state, "step": np.asarray(step, np.int32)},
            "target": parameters,
        }
        # Sorted but for the top, as T5X writes it.
        index = {"version": 3, "optimizer": _sorted(tree)}
        # In place: a copy of the tree would have its top sorted as well.
        (folder / INDEX).write_bytes(serialization.msgpack_serialize(index, in_place=True))


def _write_slots(
    writer: ArrayWriter,
    store: Store,
    arrays: Mapping[str, LazyArray],
    slots: Mapping[str, LazyArray],
) -> dict[str, Any]:
    """The tree of slots: `v` beside the index unless it is not in use, the others in it."""
    tree: dict[str, Any] = {}
    for path in arrays:
        for slot in SLOT_NAMES:
            name = f"{path}/{slot}"
            if slot == "v" and name in slots:
                values = slots[name].read_as(_FLOAT32)
                place = ("state.param_states", name)
                _put(tree, name, _write(writer, store, place, values))
                continue
            array = slots.get(name)
            values = np.zeros(1, np.float32) if array is None else array.read_as(_FLOAT32)
            _put(tree, name, values)
    return tree


def _write(
    writer: ArrayWriter, store: Store, place: tuple[str, str], values: np.ndarray
) -> dict[str, Any]:
    """Writes an array beside the index; returns its entry in the index."""
    name = ".".join(place).replace("/", ".")
    metadata = {
        "chunks": chunk_shape(values.shape, values.dtype.itemsize),
        "compressor": _COMPRESSOR,
        "shape": list(values.shape),
    }
    spec = {"driver": "zarr", "kvstore": store.inside(name), "metadata": metadata}
    # T5X leaves out chunks of zeros; in parameters they are kept, so that a lost one is noticed.
    writer.add(spec | {"store_data_equal_to_fill_value": place[0] == "target"}, values)
    return {
        "driver": "zarr",
        "dtype": values.dtype.name,
        "kvstore": {"driver": "file", "path": f"{name}/"},
        "metadata": metadata,
    }


def _put(tree: dict[str, Any], path: str, leaf: Any) -> None:
    *folders, name = path.split("/")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    tree[name] = leaf


def _sorted(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {name: _sorted(node[name]) for name in sorted(node)}
