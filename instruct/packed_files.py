"""Compressed files (gzip, Zstandard) and Git LFS pointers, recognized by their first bytes."""

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
# What names of compressed files end in; reading does not depend on it.
PACKED_ENDINGS = (".gz", ".zst", ".zstd")
_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@contextlib.contextmanager
def open_unpacked(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a file for reading bytes, decompressed if it is compressed, whatever its name.

    Raises:
        OSError: it cannot be opened.
        UserError: it is a Git LFS pointer, or damaged (may be raised while it is read).
    """
    refuse_pointer(path)
    with open(path, "rb") as raw:
        head = raw.read(4)
        raw.seek(0)
        errors: tuple[type[Exception], ...] = ()
        try:
            if head.startswith(_GZIP):
                errors = (EOFError, zlib.error, gzip.BadGzipFile)
                with gzip.open(raw) as stream:
                    yield cast(IO[bytes], stream)
            elif head == _ZSTANDARD:
                import pyarrow as pa

                errors = (OSError, pa.ArrowException)
                # Arrow's stream cannot read lines; Python's buffer can.
                yield io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"))
            else:
                yield raw
        except errors as error:
            raise UserError(
                f"{os.fspath(path)} cannot be unpacked ({error}). Get the file again"
            ) from error


def refuse_pointer(path: str | os.PathLike[str], head: bytes | None = None) -> None:
    """Raises UserError if a file is a Git LFS pointer. `head`: its first bytes, if known."""
    if head is None:
        try:
            with open(path, "rb") as file:
                head = file.read(len(_POINTER))
        except OSError:
            return  # the reader of the file reports it
    if head.startswith(_POINTER):
        raise UserError(
            f"{os.fspath(path)} is a pointer of Git LFS, not the file itself. Run `git lfs "
            "install` and `git lfs pull` in its folder, or download the file."
        )
