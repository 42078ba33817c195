"""Paths that users give: folders and files of this machine, checked before anything is made."""

import errno
import os
import pathlib
import re
import tempfile
from typing import Any

from instruct.errors import UserError

# Bytes of a path and of each name in it, on Linux.
_LONGEST, _LONGEST_NAME = 4000, 255
# What the system says of a folder that the user should not have chosen; else the storage failed.
_WRONG_FOLDER = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ELOOP,
    errno.ENXIO,
)
# "gs://bucket/a", and "gs:/bucket/a" as pathlib writes it.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def local_path(name: str, value: Any, example: str = "runs/a") -> pathlib.Path:
    """The path that a flag or macro holds, `~` expanded. Touches no file.

    Args:
        name: the flag or macro, as the user writes it.
        value: what was given.
        example: a value that would do.

    Raises:
        UserError: it is no text, empty, too long, an address (gs://, s3:// ...), or has a NUL
            byte or an unknown user's home.
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise UserError(f"{name} is {value!r}; give a path as text, such as {example}.")
    text = os.fspath(value)
    if _ADDRESS.match(text):
        raise UserError(
            f"{name} is {text!r}: buckets and other addresses are not supported yet. Give a path "
            f"on this machine, such as {example}; a bucket may be mounted there."
        )
    if "\0" in text:
        raise UserError(f"{name} is {text!r}: a path cannot hold a NUL byte.")
    # Of what is longer even the question whether it is there is an OSError.
    if (
        _size(text) > _LONGEST
        or max(map(_size, pathlib.PurePath(text).parts), default=0) > _LONGEST_NAME
    ):
        raise UserError(f"{name} is {text[:80]!r} ..., which is too long for a path.")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:  # ~user of a user who is not there
        raise UserError(
            f"{name} is {text!r}: there is no such user; write the folder in full."
        ) from error


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def local_folder(name: str, value: Any, example: str = "runs/a") -> pathlib.Path:
    """As `local_path`, of a folder that need not be there; UserError if a file is in its place."""
    path = local_path(name, value, example)
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise UserError(
                f"{name} is {os.fspath(value)!r}, but {place} is a file; give a folder."
            )
    return path


def writable_folder(name: str, value: Any, example: str = "runs/a") -> pathlib.Path:
    """The folder that a flag or macro names, absolute, made if needed.

    Raises:
        UserError: see `local_path`; or it is no folder, or cannot be written.
        OSError: the storage failed, as on a full disk.
    """
    folder = local_path(name, value, example).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno not in _WRONG_FOLDER:
            raise
        raise UserError(
            f"{name} {os.fspath(value)!r} cannot be written: {error.strerror or error}. Choose a "
            "folder of yours."
        ) from error
    return folder
