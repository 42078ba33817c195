"""Safetensors files, read by slices and written in one pass; headers are untrusted.

    8 bytes      length n of the header, little endian
    n bytes      JSON: {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...}
    the rest     the arrays, row-major, little endian, without gaps or overlaps

https://huggingface.co/docs/safetensors; sizes are checked against the file's before anything is
allocated, so a header that promises more than there is costs nothing.
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
# Rounds the header up, so that arrays start at a multiple; as the format's own writer does.
_ALIGNMENT = 8


def read_file(path: pathlib.Path) -> dict[str, LazyArray]:
    """The arrays of one file by name; only its header is read.

    Raises:
        UserError: it cannot be read, or is not a whole safetensors file.
    """
    refuse_pointer(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > size - 8:
                raise _damaged(
                    path,
                    f"its first 8 bytes announce a header of {length:,} bytes, the file has "
                    f"{size:,}",
                )
            if length > _LONGEST_HEADER:
                raise _damaged(
                    path,
                    f"its header of {length:,} bytes is longer than the format allows "
                    f"({_LONGEST_HEADER:,})",
                )
            text = file.read(length)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    header = _parse_header(path, text)
    header.pop("__metadata__", None)
    data_size = size - 8 - length
    arrays, spans = {}, []
    for name, entry in header.items():
        dtype, shape, begin, end = _parse_entry(path, name, entry)
        if end > data_size:
            raise _damaged(
                path,
                f"{name!r} ends at byte {end:,} of the data, of which there are {data_size:,}: "
                "the file was cut off",
            )
        spans.append((begin, end, name))
        arrays[name] = _array(path, name, dtype, shape, 8 + length + begin)
    _check_spans(path, sorted(spans), data_size)
    return arrays


def _parse_header(path: pathlib.Path, text: bytes) -> dict[str, Any]:
    try:
        header = parse_json(text, unique_names=True)
    except ValueError as error:
        raise _damaged(path, f"its header is no JSON ({str(error)[:80]})") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    return header


def _parse_entry(
    path: pathlib.Path, name: str, entry: Any
) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """(dtype, shape, first byte, byte after the last), consistent with each other."""

    def whole(values: Any) -> bool:
        return isinstance(values, list) and all(
            type(value) is int and 0 <= value < 1 << 62 for value in values
        )

    if not isinstance(entry, dict):
        raise _damaged(path, f"the header's entry for {name!r} is no object")
    dtype = _DTYPES.get(str(entry.get("dtype")))
    if dtype is None and str(entry.get("dtype")) in _NOT_READ:
        kind = _NOT_READ[str(entry.get("dtype"))]
        raise UserError(
            f"{path}: {name!r:.200} is stored as {kind} ({entry['dtype']}), which is not read: a "
            "quantised checkpoint, whose numbers mean nothing without their scales. Use the "
            "original weights in bfloat16, float16 or float32."
        )
    if dtype is None:
        raise _damaged(path, f"{name!r} has the unknown dtype {entry.get('dtype')!r:.80}")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not whole(shape) or not whole(offsets) or len(offsets) != 2:
        raise _damaged(path, f"{name!r} has no valid shape and data_offsets")
    begin, end = offsets
    needed = math.prod(shape) * dtype.itemsize
    if end - begin != needed:
        raise _damaged(
            path,
            f"{name!r} of shape {tuple(shape)} takes {needed:,} bytes, the header gives it "
            f"{end - begin:,}",
        )
    return dtype, tuple(shape), begin, end


def _check_spans(path: pathlib.Path, spans: list[tuple[int, int, str]], size: int) -> None:
    at = 0
    for begin, end, name in spans:
        if begin != at:
            what = "overlaps another array" if begin < at else "comes after a gap"
            raise _damaged(path, f"{name!r} at byte {begin:,} of the data {what}")
        at = end
    if at != size:
        raise _damaged(path, f"{size - at:,} bytes at its end belong to no array")


def _array(
    path: pathlib.Path, name: str, dtype: np.dtype, shape: tuple[int, ...], offset: int
) -> LazyArray:
    def read(index: Index) -> np.ndarray:
        # Whole rows of the first axis are one stretch of the file; other axes are cut afterwards.
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
        size = math.prod(array.shape) * dtype.itemsize
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
