"""Zarr arrays behind TensorStore: on a disk, in a bucket, alone or in an OCDBT database.

`gs://` addresses use the same code; TensorStore finds the credentials as Google's own libraries do,
and reads public buckets without any.
"""

import concurrent.futures
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorstore as ts

from instruct.checkpoints.arrays import Index, LazyArray
from instruct.checkpoints.checkpoint_files import REMOTE, DamagedFile, check_storable
from instruct.checkpoints.folders import refuse_link
from instruct.errors import UserError, storage_error_number
from instruct.files import is_address
from instruct.json_text import parse_json

# What TensorStore raises.
_ERRORS = (ValueError, OSError, RuntimeError)


class Store:
    """A folder of files, local or remote; names are relative to it.

    `place` is its path or `gs://bucket/path`; `spec`, TensorStore's description, is derived from it
    by default. Everything that is opened through the store shares TensorStore's `context`.
    """

    def __init__(
        self,
        place: str,
        spec: Mapping[str, Any] | None = None,
        context: ts.Context | None = None,
    ) -> None:
        self.place = place.rstrip("/")
        self.spec = dict(spec) if spec is not None else _spec_of(place)
        self.context = ts.Context() if context is None else context
        self._open = None

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is no such file."""
        try:
            if self._open is None:
                self._open = ts.KvStore.open(self.spec, context=self.context).result()
            content = self._open.read(name).result()
        except _ERRORS as error:
            raise unreadable(f"{self.place}/{name}", error) from error
        return None if content.state == "missing" else bytes(content.value)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON object; None if there is no such file."""
        text = self.read(name)
        if text is None:
            return None
        try:
            value = parse_json(text)
        except ValueError as error:
            raise damaged(f"{self.place}/{name}", f"it is no JSON ({error})") from error
        if not isinstance(value, dict):
            raise damaged(f"{self.place}/{name}", "it is no JSON object")
        return value

    def inside(self, name: str) -> dict[str, Any]:
        """TensorStore's description of a sub-folder."""
        return self.spec | {"path": f"{self.spec.get('path', '')}{name}/"}

    def folder(self, name: str) -> "Store":
        """A sub-folder."""
        return Store(f"{self.place}/{name}", self.inside(name), self.context)

    def database(self) -> dict[str, Any]:
        """TensorStore's description of the OCDBT database in the folder."""
        return {"driver": "ocdbt", "base": self.spec, "path": ""}


def _spec_of(place: str) -> dict[str, Any]:
    if place.startswith(REMOTE):
        bucket, _, path = place.removeprefix(REMOTE).partition("/")
        if not bucket:
            raise UserError(f"{place!r} names no bucket; write gs://BUCKET/PATH.")
        return {"driver": "gcs", "bucket": bucket, "path": path.rstrip("/") + "/"}
    path = pathlib.Path(place).expanduser().absolute()
    check_storable(path)
    return {"driver": "file", "path": f"{path}/"}


def refuse_links(folder: pathlib.Path) -> None:
    """Raises UserError if anything below a folder is a symbolic link that leads out of it."""
    if is_address(folder):
        return
    home = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = pathlib.Path(parent, name)
            if path.is_symlink():
                refuse_link(path, [home])


def open_arrays(
    store: Store,
    names: Mapping[str, str],
    kvstore: Mapping[str, Any],
    *,
    driver: str = "zarr",
    zeros_left_out: bool = False,
) -> dict[str, LazyArray]:
    """Opens arrays concurrently; reads only their metadata.

    Args:
        store: of the checkpoint.
        names: key -> the array's folder in `kvstore`.
        kvstore: `store.spec` or `store.database()`.
        driver: 'zarr' or 'zarr3'.
        zeros_left_out: the writer may have left out chunks of zeros; else a lost chunk is damage.
    """
    opening = {}
    for key, name in names.items():
        path = f"{kvstore.get('path', '')}{name}/"
        spec = {"driver": driver, "kvstore": {**kvstore, "path": path}}
        spec["fill_missing_data_reads"] = zeros_left_out
        future = ts.open(spec, read=True, open=True, context=store.context)
        opening[key] = (f"{store.place}/{name}", future)
    arrays = {}
    for key, (place, future) in opening.items():
        try:
            arrays[key] = _lazy(future.result(), place)
        except _ERRORS as error:
            raise unreadable(place, error) from error
    return arrays


def _lazy(array: Any, place: str) -> LazyArray:
    shape, chunk = tuple(array.shape), array.chunk_layout.read_chunk.shape
    # A chunk is decoded whole, so one that is far larger than its array would only fill memory.
    if chunk is not None and any(c > max(s, 1) for c, s in zip(chunk, shape)):
        raise damaged(place, f"its chunks of {list(chunk)} are larger than the array {list(shape)}")

    def read(index: Index) -> np.ndarray:
        try:
            return np.asarray(array[index].read().result() if index else array.read().result())
        except _ERRORS as error:
            raise unreadable(place, error) from error

    return LazyArray(shape, np.dtype(array.dtype.numpy_dtype), read, place)


class ArrayWriter:
    """Context that writes several arrays at once, since each one waits for the disk.

    When it ends, everything is on disk. A failed write raises, a failure of the storage as an
    OSError with its number (ENOSPC: the disk is full).
    """

    _AT_ONCE = 16
    _BYTES_AT_ONCE = 256 << 20

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(self._AT_ONCE)
        self._pending: list[tuple[int, concurrent.futures.Future[None]]] = []
        # Shared, so that a database groups its commits.
        self._context = ts.Context()

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for _size, future in self._pending:
                future.result()

    def add(self, spec: Mapping[str, Any], values: np.ndarray) -> None:
        """Creates the array that `spec` describes; waits while too many writes are pending."""
        while self._pending and (
            len(self._pending) >= self._AT_ONCE
            or sum(size for size, _ in self._pending) > self._BYTES_AT_ONCE
        ):
            self._pending.pop(0)[1].result()
        self._pending.append((values.nbytes, self._pool.submit(self._write, dict(spec), values)))

    def _write(self, spec: dict[str, Any], values: np.ndarray) -> None:
        dtype = ts.dtype(values.dtype)
        try:
            array = ts.open(spec, create=True, dtype=dtype, context=self._context).result()
            array.write(values).result()
        except _ERRORS as error:
            number = storage_error_number(error)
            if number is None:
                raise
            raise OSError(number, str(error)) from error


def chunk_shape(shape: Sequence[int], itemsize: int, target_bytes: int = 64 << 20) -> list[int]:
    """Chunk sides of at most `target_bytes` that divide their axes, as T5X and Orbax cut them.

    The longest side is reduced to its next smaller divisor until the chunk is small enough.

    >>> chunk_shape((8, 6), 4, 64)
    [4, 3]
    """
    divisors = [[d for d in range(1, size + 1) if size % d == 0] or [1] for size in shape]
    while (
        divisors
        and np.prod([sides[-1] for sides in divisors], dtype=float) * itemsize > target_bytes
    ):
        longest = max(range(len(divisors)), key=lambda axis: divisors[axis][-1])
        if divisors[longest][-1] == 1:
            break
        divisors[longest].pop()
    return [sides[-1] for sides in divisors]


def damaged(place: str, why: str) -> DamagedFile:
    return DamagedFile(f"{place} is damaged: {why}. Copy or download the checkpoint again.")


def unreadable(place: str, error: Exception) -> UserError:
    """TensorStore's error as one line for the user."""
    text = re.split(r" \[|\n", str(error), maxsplit=1)[0][:300]
    if "PERMISSION_DENIED" in text or "UNAUTHENTICATED" in text:
        return UserError(f"{place} may not be read: {text}. Give this user access to it.")
    if "NOT_FOUND" in text or "does not exist" in text:
        return damaged(place, f"it is missing ({text})")
    return damaged(place, text)
