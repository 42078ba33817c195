"""Paths that users give, files and folders written whole or not at all, and locks.

All paths are of local or mounted file systems: writers rely on atomic renames, `fsync` and `flock`,
which buckets do not have.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import IO, Any

from instruct.errors import UserError, naming_file

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


def make_writable(name: str, folder: pathlib.Path) -> None:
    """Makes the folder that a flag or macro names, if needed.

    Raises:
        UserError: it is no folder, or cannot be written.
        OSError: the storage failed, as on a full disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno not in _WRONG_FOLDER:
            raise
        raise UserError(
            f"{name} {str(folder)!r} cannot be written: {error.strerror or error}. Choose a folder "
            "of yours."
        ) from error


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """A stream whose bytes replace `path` when the block ends; after an error `path` is unchanged.

    An `OSError` names `path`.
    """
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with naming_file(path):
            with temporary.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def replace_file(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a whole file (text as UTF-8), synced; readers see the old or the new content."""
    with replacing(path) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def whole_folder(path: pathlib.Path, prefix: str, replace: bool = False) -> Iterator[pathlib.Path]:
    """An empty folder beside `path` that is renamed to it when the block ends, else deleted.

    Args:
        path: its parent folder is made if needed.
        prefix: of the temporary folder's name.
        replace: an older folder at `path` is deleted; if another process writes `path` at the same
            moment, its folder may stay instead. False: `path` is missing or an empty folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    try:
        yield temporary
        _share(temporary)
        _sync_folder(temporary)
        if replace and path.exists():
            old = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
            try:
                # Another process may have renamed it a moment ago.
                with contextlib.suppress(FileNotFoundError):
                    path.rename(old / path.name)
            finally:
                shutil.rmtree(old, ignore_errors=True)
        try:
            temporary.rename(path)
        except OSError as error:
            if not replace or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _share(folder: pathlib.Path) -> None:
    """Gives a folder of `tempfile.mkdtemp`, which is private, the rights that `mkdir` gives."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)


def _sync_folder(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming_file(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Held:
    """Descriptors of the locks that this process holds."""

    def __init__(self) -> None:
        self.descriptors: set[int] = set()
        os.register_at_fork(after_in_child=self._drop)

    def _drop(self) -> None:
        # A worker process that outlives a killed parent must not keep the parent's locks.
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


_HELD = _Held()


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], name: str) -> Iterator[None]:
    """Locks a folder or file for this process while the block runs.

    The lock is advisory (`flock`): the system lifts it when its holder ends, and no file stays.
    File systems without such locks (some network mounts) are used unlocked.

    Args:
        path: exists.
        name: what it is to the user, such as "MODEL_DIR runs/a".

    Raises:
        UserError: another process holds the lock.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    _HELD.descriptors.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{name} is being written by another process of this program. Wait until it has "
                "ended, or write somewhere else."
            ) from error
        except OSError:
            pass  # no such locks on this file system
        yield
    finally:
        _HELD.descriptors.discard(descriptor)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # of a child that is being forked as well
        os.close(descriptor)
