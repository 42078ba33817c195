"""Adapters of a checkpoint (`instruct/models/adapters.py`), array by array: split off, and merged.

Whoever opens a checkpoint with adapters gets the weights of the merged model and, apart from them,
the adapters and the kernels that they belong to.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from instruct.checkpoints.arrays import Index, LazyArray
from instruct.models.adapters import SCALE, A, B, is_adapter

_KERNEL = "/kernel"


class Adapter(NamedTuple):
    """W + scale * A B: a kernel [in, out], A [in, r], B [r, out], and a number."""

    kernel: LazyArray
    a: LazyArray
    b: LazyArray
    scale: LazyArray  # []

    @property
    def rank(self) -> int:
        return self.a.shape[1]


def split_adapters(
    arrays: Mapping[str, LazyArray],
) -> tuple[dict[str, LazyArray], dict[str, Adapter]]:
    """(arrays of the base model, name of an adapted kernel -> its adapter)."""
    base = {path: array for path, array in arrays.items() if not is_adapter(path)}
    owners = [path.removesuffix(f"/{A}") for path in arrays if path.endswith(f"/{A}")]
    adapters = {
        owner + _KERNEL: Adapter(
            base[owner + _KERNEL], *(arrays[f"{owner}/{entry}"] for entry in (A, B, SCALE))
        )
        for owner in owners
    }
    return base, adapters


def adapter_arrays(adapters: Mapping[str, Adapter]) -> dict[str, LazyArray]:
    """The kernels and the adapters' own arrays by name; with those of the base all of a tree."""
    arrays = {}
    for path, adapter in adapters.items():
        owner = path.removesuffix(_KERNEL)
        arrays |= {path: adapter.kernel, f"{owner}/{A}": adapter.a, f"{owner}/{B}": adapter.b}
        arrays[f"{owner}/{SCALE}"] = adapter.scale
    return arrays


def merged(adapter: Adapter) -> LazyArray:
    """The kernel with its adapter's product, float32.

    Summed in float64 and rounded once, so that a share of it has the bits of the whole. Raises
    UserError if a part does not hold floating point numbers.
    """
    kernel, a, b, scale = adapter
    for part in adapter:
        part.check_floats()

    def read(index: Index) -> np.ndarray:
        rows, columns = index
        everything = slice(0, adapter.rank)
        low_rank = a.read((rows, everything)).astype(np.float64) @ b.read(
            (everything, columns)
        ).astype(np.float64)
        total = kernel.read(index).astype(np.float64) + scale.read().astype(np.float64) * low_rank
        return total.astype(np.float32)

    return LazyArray(kernel.shape, np.dtype(np.float32), read, f"{kernel.place} with its adapter")


def merged_note(adapters: Mapping[str, Adapter]) -> str:
    """What a reader of merged weights should know."""
    ranks = sorted({adapter.rank for adapter in adapters.values()})
    return f"{len(adapters)} kernels have LoRA adapters (rank {', '.join(map(str, ranks))}): merged"
