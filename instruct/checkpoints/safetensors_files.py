"""Safetensors files: reading by slices with untrusted headers, and writing in one pass.

    8 bytes      length n of the header, little endian
    n bytes      JSON: {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...}
    the rest     the arrays, row-major, little endian, without gaps or overlaps

https://huggingface.co/docs/safetensors. Sizes are compared with the file's before anything is
allocated.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from instruct.checkpoints.arrays import BFLOAT16, Index, LazyArray
from instruct.errors import UserError
from instruct.json_text import parse_json
from instruct.packed_files import refuse_pointer

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
# The format's dtypes that hold no plain weights -> what they are.
_NOT_READ = {
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"), "float8"),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), "float6"),
    **dict.fromkeys(("F4", "F4_E2M1"), "float4"),
    **dict.fromkeys(("U16", "U32", "U64"), "whole numbers"),
    "C64": "complex numbers",
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# The format's own bound.
_LONGEST_HEADER = 100_000_000
# Arrays start at a multiple of this, as the format's own writer puts them.
_ALIGNMENT = 8


def read_file(path: pathlib.Path) -> dict[str, LazyArray]:
    """The arrays of one file by name; reads only its header."""
    refuse_pointer(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(size - 8, _LONGEST_HEADER):
                why = f"its first 8 bytes announce a header of {length:,} bytes, the file has"
                why += f" {size:,} and the format allows {_LONGEST_HEADER:,}"
                raise _damaged(path, why)
            text = file.read(length)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    try:
        header: Any = parse_json(text, unique_names=True)
    except ValueError as error:
        raise _damaged(path, f"its header is no JSON ({str(error)[:80]})") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    data_size = size - 8 - length
    arrays, spans = {}, []
    for name, entry in header.items():
        dtype, shape, begin, end = _parse_entry(path, name, entry)
        if end > data_size:
            why = f"{name!r} ends at byte {end:,} of {data_size:,}: the file was cut off"
            raise _damaged(path, why)
        spans.append((begin, end, name))
        arrays[name] = _array(path, name, dtype, shape, 8 + length + begin)
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            what = "overlaps another array" if begin < position else "comes after a gap"
            raise _damaged(path, f"{name!r} at byte {begin:,} of the data {what}")
        position = end
    if position != data_size:
        raise _damaged(path, f"{data_size - position:,} bytes at its end belong to no array")
    return arrays


def _parse_entry(
    path: pathlib.Path, name: str, entry: Any
) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """(dtype, shape, first byte, byte after the last), consistent with each other."""

    def are_whole(values: Any) -> bool:
        return isinstance(values, list) and all(
            type(value) is int and 0 <= value < 1 << 62 for value in values
        )

    if not isinstance(entry, dict):
        raise _damaged(path, f"the header's entry for {name!r} is no object")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    kind = str(entry.get("dtype"))
    if kind in _NOT_READ:
        raise UserError(
            f"{path}: {name!r:.200} is stored as {_NOT_READ[kind]} ({kind}), which is not read: a "
            "quantised checkpoint, whose values mean nothing without their scales. Use the "
            "original weights in bfloat16, float16 or float32."
        )
    if kind not in _DTYPES:
        raise _damaged(path, f"{name!r} has the unknown dtype {kind!r:.80}")
    if not are_whole(shape) or not are_whole(offsets) or len(offsets) != 2:
        raise _damaged(path, f"{name!r} has no valid shape and data_offsets")
    begin, end = offsets
    num_bytes = math.prod(shape) * _DTYPES[kind].itemsize
    if end - begin != num_bytes:
        why = f"{name!r} of shape {tuple(shape)} takes {num_bytes:,} bytes, the header gives it"
        raise _damaged(path, f"{why} {end - begin:,}")
    return _DTYPES[kind], tuple(shape), begin, end


def _array(
    path: pathlib.Path, name: str, dtype: np.dtype, shape: tuple[int, ...], offset: int
) -> LazyArray:
    def read(index: Index) -> np.ndarray:
        # Reads whole rows of the first axis, which are contiguous, then cuts the other axes.
        first, last = (index[0].start, max(index[0].start, index[0].stop)) if index else (0, 1)
        row = math.prod(shape[1:])
        values = np.empty((last - first, *shape[1:]) if shape else (), dtype)
        view: memoryview = values.reshape(-1).view(np.uint8).data
        at = offset + first * row * dtype.itemsize
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(at)
                while view:
                    count = file.readinto(view[: 1 << 30])
                    if not count:
                        raise _damaged(path, f"it ends in the middle of {name!r}")
                    view = view[count:]
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
        return values[(slice(None), *index[1:])] if index else values

    return LazyArray(shape, dtype, read, f"{path.name}: {name}")


def write_file(
    path: pathlib.Path,
    arrays: Mapping[str, LazyArray],
    dtype: np.dtype,
    metadata: Mapping[str, str],
) -> None:
    """Writes arrays in the given order, all in `dtype`, one in memory at a time."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, array in arrays.items():
        size = array.size * dtype.itemsize
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(array.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(array.read_as(dtype).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def _damaged(path: pathlib.Path, why: str) -> UserError:
    return UserError(f"{path} is damaged: {why}. Download or copy it again.")
