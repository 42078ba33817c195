"""Checks of users' paths, whole writes of files and folders, locks, and files of the package.

A path is a `pathlib.Path` of this machine, or a `BucketPath` (instruct/buckets.py), which has the
same methods as far as buckets have them; signatures say `pathlib.Path` for both. On this machine
writes are temporary files, `fsync` and a rename, and locks are `flock`. In a bucket a file is an
object, which is written whole anyway, a folder's objects are uploaded in the order in which they
were written, and a lock is an object with a heartbeat.
"""

import contextlib
import errno
import fcntl
import importlib.resources
import math
import os
import pathlib
import re
import shutil
import tempfile
import time
import tomllib
import uuid
from collections.abc import Iterator
from typing import IO, Any, cast

from instruct.errors import UserError, naming_file

# Least time between two writes of a file that grows, in a bucket.
UPLOAD_SECS = 20.0
# Longest path and longest name in it, in bytes, on Linux.
_LONGEST, _LONGEST_NAME = 4000, 255
# Errors of a folder that the user chose wrongly; any other one is a failure of the storage.
_WRONG_FOLDER = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST),
    *(errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.ENXIO),
}
# Of `replacing`.
_TEMPORARY_NAME = re.compile(r"\.(.+)\.[0-9a-f]{12}\.tmp", re.DOTALL)
# "gs://bucket/a", and "gs:/bucket/a" as pathlib writes it.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def read_package_toml(package: str, name: str) -> dict[str, Any]:
    """Reads a TOML file that is installed in a package."""
    return tomllib.loads((importlib.resources.files(package) / name).read_text("utf-8"))


def is_address(value: Any) -> bool:
    """Whether a path is an address, such as gs://bucket/name, and not one of this machine."""
    return isinstance(value, str | os.PathLike) and bool(_ADDRESS.match(os.fspath(value)))


def path_of(value: str | os.PathLike[str]) -> pathlib.Path:
    """A text as a path, a `BucketPath` if it is an address; a path unchanged."""
    return any_path("the path", value) if is_address(value) else pathlib.Path(value)


def absolute_path(value: str | os.PathLike[str]) -> pathlib.Path:
    """`path_of`, absolute and with `~` expanded."""
    return path_of(value).expanduser().absolute()


def expanded(text: str) -> str:
    """A path or name with a leading `~` expanded, as other programs do not; others as they are."""
    if not text.startswith("~"):
        return text
    return str(local_path("the path", text))


def any_path(name: str, value: Any, example: str = "runs/a") -> pathlib.Path:
    """As `local_path`, and takes addresses of buckets as well (`buckets.SCHEMES`)."""
    if not is_address(value):
        return local_path(name, value, example)
    # etils and TensorStore take a second to import.
    from instruct import buckets

    return cast(pathlib.Path, buckets.check_address(name, os.fspath(value)))


def local_path(name: str, value: Any, example: str = "runs/a") -> pathlib.Path:
    """Checks the path of a flag or macro and expands `~`. Touches no file.

    Args:
        name: the flag or macro, as the user writes it.
        value: its value.
        example: a valid value, for error messages.

    Raises:
        UserError: not text, empty, too long, an address (gs://, s3:// ...), with a NUL byte, or
            in the home of an unknown user.
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise UserError(f"{name} is {value!r}; give a path as text, such as {example}.")
    text = os.fspath(value)
    if _ADDRESS.match(text):
        raise UserError(
            f"{name} is {text!r}: an address is not supported here. Give a path on this machine, "
            f"such as {example}; a bucket may be mounted there."
        )
    if "\0" in text:
        raise UserError(f"{name} is {text!r}: a path cannot hold a NUL byte.")
    # Longer paths raise OSError even in `exists`.
    sizes = [len(part.encode("utf-8", "surrogatepass")) for part in pathlib.PurePath(text).parts]
    if (
        len(text.encode("utf-8", "surrogatepass")) > _LONGEST
        or max(sizes, default=0) > _LONGEST_NAME
    ):
        raise UserError(f"{name} is {text[:80]!r} ..., which is too long for a path.")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:  # ~user of an unknown user
        raise UserError(
            f"{name} is {text!r}: there is no such user; write the folder in full."
        ) from error


def any_folder(name: str, value: Any, example: str = "runs/a") -> pathlib.Path:
    """As `any_path` for a folder, which may be missing. Raises UserError if it is a file."""
    return any_path(name, value, example) if is_address(value) else local_folder(name, value)


def local_folder(name: str, value: Any, example: str = "runs/a") -> pathlib.Path:
    """As `local_path` for a folder, which may be missing. Raises UserError if it is a file."""
    path = local_path(name, value, example)
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            raise UserError(
                f"{name} is {os.fspath(value)!r}, but {folder} is a file; give a folder."
            )
    return path


def make_writable(name: str, folder: pathlib.Path) -> None:
    """Creates the folder of a flag or macro if needed, and checks that it is writable.

    Raises:
        UserError: it is not a folder, or cannot be written.
        OSError: the storage failed, such as a full disk.
    """
    if is_address(folder):  # the errors of buckets name the fix
        probe = folder / f".write-test-{uuid.uuid4().hex[:12]}"
        probe.write_bytes(b"")
        probe.unlink()
        return
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
    """A stream that replaces `path` atomically when the block ends; not after an error.

    An `OSError` names `path`.
    """
    if is_address(path):
        with path.open("wb") as stream:
            yield stream
        return
    temporary = path.with_name(f".{_short(path.name)}.{uuid.uuid4().hex[:12]}.tmp")
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


def _short(name: str) -> str:
    """The first characters of a name, so that a temporary file's name is not too long."""
    return name.encode("utf-8", "ignore")[:100].decode("utf-8", "ignore")


def remove_leftovers(folder: pathlib.Path, *names: str) -> None:
    """Deletes what writers in `replacing` of files of these names left when they were killed.

    No other process may be writing these files. Writers leave nothing in a bucket.
    """
    if is_address(folder):
        return
    for path in folder.iterdir():
        match = _TEMPORARY_NAME.fullmatch(path.name)
        if match and match[1] in map(_short, names):
            path.unlink(missing_ok=True)


def replace_file(path: pathlib.Path, content: str | bytes) -> None:
    """Writes and syncs a file atomically; text as UTF-8."""
    with replacing(path) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def whole_folder(path: pathlib.Path, prefix: str, replace: bool = False) -> Iterator[pathlib.Path]:
    """An empty folder beside `path` that is renamed to it when the block ends; deleted on error.

    Args:
        path: its parent folder is created if needed.
        prefix: of the temporary folder's name.
        replace: replace an older folder at `path`; of two processes that do so at the same time one
            wins. False: `path` is missing or an empty folder.

    For a folder in a bucket the block gets a folder of this machine, whose files are then uploaded
    in the order in which they were written: an index that the block writes last appears last.
    """
    if is_address(path):
        with tempfile.TemporaryDirectory(prefix=prefix) as name:
            yield pathlib.Path(name)
            upload_folder(pathlib.Path(name), path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)  # as `mkdir` does; `mkdtemp` makes private folders
        _sync_folder(temporary)
        if replace and path.exists():
            old = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
            try:
                # Another process may have renamed it meanwhile.
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


def upload_folder(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the files of a folder of this machine into a bucket, oldest first.

    Objects that were below `target` and are not replaced are deleted at the end.
    """
    from instruct import buckets

    names = _upload_files(source, target)
    for name in set(buckets.names_below(cast(Any, target))) - set(names):
        (target / name).unlink(missing_ok=True)


def _upload_files(source: pathlib.Path, target: pathlib.Path) -> list[str]:
    """Copies the files of a folder into a bucket, oldest first; returns their names."""
    files = [path for path in source.rglob("*") if path.is_file()]
    files.sort(key=lambda path: path.stat().st_mtime_ns)
    names = [path.relative_to(source).as_posix() for path in files]
    for name, path in zip(names, files):
        (target / name).write_bytes(path.read_bytes())
    return names


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
        os.register_at_fork(after_in_child=self._close)

    def _close(self) -> None:
        # A worker process that outlives a killed parent must not keep the parent's locks.
        while self.descriptors:
            os.close(self.descriptors.pop())


_HELD = _Held()


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], name: str, wait: bool = False) -> Iterator[int | None]:
    """Locks an existing folder or file for this process while the block runs.

    The lock is advisory (`flock`): it leaves no file and ends with its process, or with the last
    child that the process passed the descriptor on to, which the block gets. File systems without
    such locks (some network mounts) are used unlocked. In a bucket see `buckets.locked_by_object`;
    there is no descriptor then.

    Args:
        path: of the folder or file.
        name: of it, for messages.
        wait: wait for another process instead of raising an error; not for buckets.

    Raises:
        UserError: another process holds the lock. The message starts with `name`.
    """
    if is_address(path):
        from instruct import buckets

        with buckets.locked_by_object(cast(Any, path), name):
            yield None
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    _HELD.descriptors.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UserError(
                f"{name} is being written by another process of this program. Wait until it has "
                "ended, or write somewhere else."
            ) from error
        except OSError:
            pass  # a file system without such locks
        yield descriptor
    finally:
        _HELD.descriptors.discard(descriptor)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child may hold a copy of the descriptor
        os.close(descriptor)


class UploadedFolder:
    """A temporary folder of this machine whose files are copied into a folder of a bucket.

    Args:
        target: in a bucket; other objects there are kept.
        min_secs: between two copies, but for the one at the end.
    """

    def __init__(self, target: pathlib.Path, min_secs: float) -> None:
        self._target, self._min_secs = target, min_secs
        self._folder = tempfile.TemporaryDirectory(prefix="instruct-upload-")
        self.local = pathlib.Path(self._folder.name)
        self._copied_at = -math.inf

    def sync(self) -> None:
        """Copies all files, unless the last copy is less than `min_secs` ago."""
        if time.monotonic() - self._copied_at >= self._min_secs:
            _upload_files(self.local, self._target)
            self._copied_at = time.monotonic()

    def close(self) -> None:
        """Copies all files and deletes the temporary folder."""
        _upload_files(self.local, self._target)
        self._folder.cleanup()


class LineFile:
    """Lines that are appended to a file.

    In a bucket, which has no append, the whole file is written again at each `sync`, at most once
    in `min_secs`, and when it is closed.

    Args:
        path: an existing file, or one to create.
        min_secs: see above.
    """

    def __init__(self, path: pathlib.Path, min_secs: float = 0.0) -> None:
        self.path = path
        self._min_secs, self._written_at = min_secs, -math.inf
        self._content, self._stream = bytearray(), None
        if not is_address(path):
            self._stream = path.open("ab")
        elif path.is_file():
            self._content += path.read_bytes()
        self._changed = False

    def write(self, text: str) -> None:
        """Appends text, which may stay in this process until `sync`."""
        content = text.encode("utf-8")
        if self._stream is not None:
            with naming_file(self.path):
                self._stream.write(content)
        else:
            self._content += content
            self._changed = True

    def sync(self, durable: bool = True) -> None:
        """Shows the lines to readers; `durable`: also syncs the disk."""
        if self._stream is None:
            if time.monotonic() - self._written_at >= self._min_secs:
                self._upload()
            return
        with naming_file(self.path):
            self._stream.flush()
            if durable:
                os.fsync(self._stream.fileno())

    def _upload(self) -> None:
        if self._changed:
            self.path.write_bytes(bytes(self._content))
            self._changed, self._written_at = False, time.monotonic()

    def close(self) -> None:
        """Closes the file; call once."""
        if self._stream is None:
            self._upload()
        else:
            with naming_file(self.path):
                self._stream.close()
