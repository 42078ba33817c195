"""`LazyArray`: an array of a checkpoint whose values are read on demand, whole or by slices.

The views below (transposed, one layer of a stack, heads joined) present every format under one set
of names and shapes. N heads, H head dim.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np

from instruct.errors import UserError, unknown_name

Index = tuple[slice, ...]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# What may be written. T5's activations overflow float16, so a float16 file would only cause harm.
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": BFLOAT16}
_FLOATS = (np.dtype(np.float32), BFLOAT16, np.dtype(np.float16), np.dtype(np.float64))
# Bytes of each array that a fingerprint looks at.
_SAMPLE_BYTES = 1 << 16


def dtype_named(name: str) -> np.dtype:
    """The dtype to write in; raises UserError unless it is one of `DTYPES`."""
    if name == "float16":
        raise UserError(
            "dtype 'float16' is not written: T5's activations overflow (NaN). Use 'bfloat16' or "
            "'float32'."
        )
    if name not in DTYPES:
        raise unknown_name("dtype", str(name), DTYPES)
    return DTYPES[name]


@dataclasses.dataclass(frozen=True)
class LazyArray:
    """One array of a checkpoint."""

    shape: tuple[int, ...]
    dtype: np.dtype
    # (one slice with start and stop for each axis) -> that part, in any memory order
    read_fn: Callable[[Index], np.ndarray]
    place: str  # file and name, for messages

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.size * self.dtype.itemsize

    def read(self, index: Sequence[slice] | None = None) -> np.ndarray:
        """The values at `index` (slices of step 1; None: all), in the array's own dtype."""
        asked = [slice(None)] * len(self.shape) if index is None else list(index)
        bounds = [slice(*part.indices(size)[:2]) for part, size in zip(asked, self.shape)]
        return self.read_fn(tuple(bounds))

    def blocks(self, block_bytes: int = 16 << 20) -> Iterator[np.ndarray]:
        """Reads all values in blocks of rows."""
        rows = self.shape[0] if self.shape else 0
        step = max(1, block_bytes * rows // max(1, self.nbytes))
        rest = [slice(None)] * (len(self.shape) - 1)
        if not self.shape:
            yield self.read()
        for row in range(0, rows, step):
            yield self.read([slice(row, row + step), *rest])

    def check_floats(self) -> None:
        """Raises UserError if the array does not hold floating point numbers."""
        if self.dtype not in _FLOATS:
            raise UserError(
                f"{self.place} holds {self.dtype.name} values, which are no weights (a quantised "
                "checkpoint?); use one in float32, bfloat16 or float16."
            )

    def read_as(self, dtype: np.dtype, index: Sequence[slice] | None = None) -> np.ndarray:
        """`read`, C-contiguous in another dtype.

        Raises:
            UserError: the array does not hold floating point numbers, or NaN or infinity.
        """
        self.check_floats()
        with np.errstate(over="ignore"):
            values = np.asarray(self.read(index), dtype, order="C")
        if not np.isfinite(values).all():
            raise UserError(
                f"{self.place} holds NaN or infinity (or numbers beyond {dtype.name}): training "
                "diverged, or the file is damaged. Use another step, or download it again."
            )
        return values


def held(array: np.ndarray, place: str) -> LazyArray:
    """A `LazyArray` of values in memory."""
    return LazyArray(array.shape, array.dtype, lambda index: array[index], place)


def transposed(array: LazyArray) -> LazyArray:
    """[out, in] as [in, out]."""
    shape = array.shape[::-1]
    return dataclasses.replace(array, shape=shape, read_fn=lambda index: array.read(index[::-1]).T)


def layer_of(array: LazyArray, axis: int, number: int) -> LazyArray:
    """Layer `number` of an array whose layers lie along `axis`."""
    shape = array.shape[:axis] + array.shape[axis + 1 :]

    def read(index: Index) -> np.ndarray:
        whole = (*index[:axis], slice(number, number + 1), *index[axis:])
        return array.read(whole).reshape([part.stop - part.start for part in index])

    return LazyArray(shape, array.dtype, read, f"{array.place} layer {number}")


def joined(array: LazyArray, axis: int) -> LazyArray:
    """[..., N, H, ...] as [..., N * H, ...]; `axis` is N's."""
    count, width = array.shape[axis : axis + 2]
    shape = (*array.shape[:axis], count * width, *array.shape[axis + 2 :])

    def read(index: Index) -> np.ndarray:
        part = index[axis]
        first, last = part.start // width, -(-part.stop // width)
        inner = (*index[:axis], slice(first, last), slice(0, width), *index[axis + 1 :])
        values = array.read(inner)
        flat = values.reshape(*values.shape[:axis], -1, *values.shape[axis + 2 :])
        cut = slice(part.start - first * width, part.stop - first * width)
        return flat[(slice(None),) * axis + (cut,)]

    return dataclasses.replace(array, shape=shape, read_fn=read)


def with_rows(array: LazyArray, axis: int, rows: int) -> LazyArray:
    """The array with `rows` entries along `axis`: cut at the end, or padded with zeros."""
    old_rows = array.shape[axis]
    shape = (*array.shape[:axis], rows, *array.shape[axis + 1 :])

    def read(index: Index) -> np.ndarray:
        part = index[axis]
        known = slice(min(part.start, old_rows), min(part.stop, old_rows))
        values = array.read((*index[:axis], known, *index[axis + 1 :]))
        extra = [(0, 0)] * values.ndim
        extra[axis] = (0, (part.stop - part.start) - (known.stop - known.start))
        return np.pad(values, extra) if any(extra[axis]) else values

    return dataclasses.replace(array, shape=shape, read_fn=read)


def same_values(first: LazyArray, second: LazyArray) -> bool:
    """Whether two arrays are bitwise equal."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return all(a.tobytes() == b.tobytes() for a, b in zip(first.blocks(), second.blocks()))


def fingerprint(arrays: Mapping[str, LazyArray]) -> str:
    """Short hash of names, shapes, dtypes and the first values of every array."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.shape} {array.dtype.name}\n".encode())
        row = array.nbytes // array.shape[0] if array.shape and array.shape[0] else 0
        index = [slice(None)] * len(array.shape)
        if row:
            index[0] = slice(0, max(1, _SAMPLE_BYTES // row))
        digest.update(np.ascontiguousarray(array.read(index)).tobytes()[:_SAMPLE_BYTES])
    return digest.hexdigest()[:16]
