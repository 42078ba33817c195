"""Compressed files (gzip, Zstandard) and Git LFS pointers, recognised by their first bytes."""

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from typing import IO, cast

from instruct.errors import UserError

# First line of what Git leaves for a large file: https://github.com/git-lfs/git-lfs, docs/spec.md.
_POINTER = b"version https://git-lfs.github.com/spec/"
_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@contextlib.contextmanager
def open_unpacked(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a file for reading bytes, unpacked if it is packed, whatever its name.

    Raises:
        OSError: it cannot be opened.
        UserError: it is Git LFS's pointer; or packed and damaged, raised while it is read as well.
    """
    refuse_pointer(path)
    with open(path, "rb") as raw:
        head = raw.read(4)
        raw.seek(0)
        if head.startswith(_GZIP):
            with _naming(path, (EOFError, zlib.error, gzip.BadGzipFile)), gzip.open(raw) as stream:
                yield cast(IO[bytes], stream)
        elif head == _ZSTANDARD:
            import pyarrow as pa

            with _naming(path, (OSError, pa.ArrowException)):
                # Arrow's stream has no lines; Python's buffer over it has.
                yield io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"))
        else:
            yield raw


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str], errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise UserError(
            f"{os.fspath(path)} cannot be unpacked ({error}). Get the file again"
        ) from error


def refuse_pointer(path: str | os.PathLike[str], head: bytes | None = None) -> None:
    """Raises UserError if a file is only Git LFS's pointer to the file that is wanted.

    Args:
        path: the file.
        head: its first bytes, if they are read already.
    """
    if head is None:
        try:
            with open(path, "rb") as file:
                head = file.read(len(_POINTER))
        except OSError:
            return  # whoever reads it says so
    if head.startswith(_POINTER):
        raise UserError(
            f"{os.fspath(path)} is a pointer of Git LFS, not the file itself. Run `git lfs "
            "install` and `git lfs pull` in its folder, or download the file."
        )
