"""Paths in buckets, as `pathlib` as far as objects allow; a lock that is an object.

`gs://` and `s3://` go through TensorStore, which also reads and writes the arrays of checkpoints.
It finds the credentials as the vendors' own libraries do, and repeats requests that fail for a
while (429, 5xx, broken or stalled connections) with exponential backoff.
`az://` and `hf://` go through fsspec and its packages (adlfs, huggingface_hub), without that.

An object is written whole, and a reader gets all of the old or all of the new one. A folder is a
common prefix of names: it exists while it holds an object. There is no append, no rename (it is a
copy and a deletion), no permission bits and no link.

`instruct.files` imports this module when a path is an address, so that nobody else waits for etils
and TensorStore.
"""

import concurrent.futures
import contextlib
import errno
import fnmatch
import functools
import io
import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import tensorstore as ts
from etils import epath
from etils.epath import backend as epath_backend
from etils.epath import stat_utils

from instruct.errors import UserError

_log = logging.getLogger(__name__)

# Scheme -> driver of TensorStore.
DRIVERS = {"gs": "gcs", "s3": "s3"}
SCHEMES = (*DRIVERS, "az", "hf")
# About five minutes of retries in all; a request that hangs is given up by libcurl below.
_RETRIES = {"max_retries": 16, "initial_delay": "250ms", "max_delay": "32s"}
# TensorStore reads these when it opens its first connection; by default it waits forever.
for _name, _value in (("TIME_SECONDS", "60"), ("LIMIT_BYTES", "1")):
    os.environ.setdefault(f"TENSORSTORE_CURL_LOW_SPEED_{_name}", _value)
_AT_ONCE = 16  # copies of a rename
# A holder writes its lock this often, and has lost it after this many seconds of silence.
HEARTBEAT_SECS, STALE_SECS = 10.0, 45.0
_NO_OBJECT = b"\x02"  # TensorStore's generation of an object that does not exist


class BucketPath(type(epath.Path())):  # pyright: ignore[reportUntypedBaseClass]
    """`gs://BUCKET/NAME`, or another scheme of `SCHEMES`.

    A name is only a name: `*`, `?` and `[` in it are no pattern.
    """

    @property
    def scheme(self) -> str:
        return str(self).partition("://")[0]

    @property
    def _backend(self) -> epath_backend.Backend:
        return _OBJECTS if self.scheme in DRIVERS else epath_backend.fsspec_backend

    def is_file(self) -> bool:
        return _OBJECTS.is_object(str(self)) if self.scheme in DRIVERS else super().is_file()

    def read_text(self, encoding: str | None = None, errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors)

    def is_symlink(self) -> bool:
        return False

    def resolve(self, strict: bool = False) -> "BucketPath":
        del strict
        return self

    def absolute(self) -> "BucketPath":
        return self

    def expanduser(self) -> "BucketPath":
        return self

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """Files and folders below this one; `*` stays within one part of a name."""
        wanted = pattern.split("/")
        literal = list(_until_wildcard(wanted))
        start = self.joinpath(*literal)
        matches = {}
        for name in names_below(start):
            parts = [*literal, *name.split("/")][: len(wanted)]
            if len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted)):
                matches["/".join(parts)] = None
        return (self.joinpath(*match.split("/")) for match in matches)


def _until_wildcard(parts: list[str]) -> Iterator[str]:
    """The parts of a pattern before the first one with a wildcard, but never the last part."""
    for part in parts[:-1]:
        if any(mark in part for mark in "*?["):
            return
        yield part


def names_below(folder: BucketPath) -> list[str]:
    """Sorted names of all objects below a folder, relative to it."""
    if folder.scheme in DRIVERS:
        return _OBJECTS.names_below(str(folder))
    prefix = f"{folder}/".partition("://")[2]
    found = _fsspec(folder).find(str(folder))
    return sorted(name.removeprefix(prefix) for name in found)


def _fsspec(path: BucketPath) -> Any:
    """The file system of an address outside of `DRIVERS`."""
    backend: Any = epath_backend.fsspec_backend
    return backend.fs(str(path))


def _split(path: str) -> tuple[str, str, str]:
    """(scheme, bucket, name of the object) of an address."""
    scheme, _, rest = os.fspath(path).partition("://")
    bucket, _, name = rest.partition("/")
    return scheme, bucket, name.strip("/")


@functools.lru_cache(maxsize=64)
def _open_bucket(scheme: str, bucket: str) -> ts.KvStore:
    context = ts.Context({f"{DRIVERS[scheme]}_request_retries": _RETRIES})
    spec = {"driver": DRIVERS[scheme], "bucket": bucket}
    with _explained(f"{scheme}://{bucket}"):
        return ts.KvStore.open(spec, context=context).result()


def _open(path: str) -> tuple[ts.KvStore, str]:
    scheme, bucket, name = _split(path)
    return _open_bucket(scheme, bucket), name


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turns TensorStore's errors into a `UserError` that users can fix, or an `OSError` (EIO)."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        raise explained_error(path, error) from error


def explained_error(path: str, error: Exception) -> Exception:
    """What to raise for an error of TensorStore at an address."""
    text = re.split(r" \[|\n", str(error), maxsplit=1)[0][:300]
    scheme, bucket, _ = _split(path)
    if "NOT_FOUND" in text:
        return UserError(
            f"{path}: there is no bucket {scheme}://{bucket}, or this user may not know of it "
            f"({text}). Create it, or choose another one."
        )
    if any(word in text for word in ("PERMISSION_DENIED", "UNAUTHENTICATED", "FORBIDDEN")):
        advice = {
            "gs": "`gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
            "s3": "`aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        }
        return UserError(
            f"{path} may not be used with these credentials, or there are none ({text}). Give "
            f"this user access, or log in: {advice.get(scheme, 'see its documentation')}."
        )
    if isinstance(error, ValueError) and "INVALID_ARGUMENT" in text:
        return UserError(f"{path} is no usable address ({text}).")
    return OSError(errno.EIO, f"the bucket failed: {text}", path)


class _Objects(epath_backend.Backend):
    """Objects of buckets behind the methods that `epath` and Orbax call."""

    def open(self, path: Any, mode: str) -> Any:
        path = os.fspath(path)
        if "r" in mode:
            stream = io.BytesIO(self.read(path))
        elif "w" in mode:
            stream = _Upload(path)
        else:
            raise NotImplementedError(f"{path}: an object cannot be opened with mode {mode!r}")
        return stream if "b" in mode else _Text(stream, encoding="utf-8", newline="")

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """An object, or the bytes from `start` to `end`: none if it ends before `end`.

        Raises FileNotFoundError.
        """
        bucket, name = _open(path)
        with _explained(path):
            part = None if start is None else slice(start, end)
            try:
                content = bucket.read(name, byte_range=part).result()
            except ValueError as error:
                if part is None or "OUT_OF_RANGE" not in str(error):
                    raise
                return b""
        if content.state == "missing":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return bytes(content.value)

    def read_generation(self, path: str) -> tuple[bytes, bytes]:
        """(content, generation); (b"", the generation of no object) if there is none."""
        bucket, name = _open(path)
        with _explained(path):
            content = bucket.read(name).result()
        return bytes(content.value), bytes(content.stamp.generation)

    def write(self, path: str, content: bytes, generation: bytes | None = None) -> bytes | None:
        """Writes an object whole; with `generation` only over that one.

        Returns the new generation, or None if the object has another one (a repeated request may
        have found its own first attempt).
        """
        bucket, name = _open(path)
        with _explained(path):
            stamp = bucket.write(name, content, if_equal=generation).result()
        return bytes(stamp.generation) or None

    def is_object(self, path: str) -> bool:
        bucket, name = _open(path)
        if not name:
            return False
        with _explained(path):
            # An empty range is a request for the metadata.
            return bucket.read(name, byte_range=slice(0, 0)).result().state != "missing"

    def names_below(self, path: str) -> list[str]:
        bucket, name = _open(path)
        with _explained(path):
            names = bucket.list(_below(name), strip_prefix_length=len(f"{name}/" if name else ""))
            return sorted(one.decode("utf-8", "replace") for one in names.result())

    def exists(self, path: Any) -> bool:
        return self.is_object(os.fspath(path)) or self.isdir(path)

    def isdir(self, path: Any) -> bool:
        return not _split(path)[2] or bool(self.names_below(path))

    def listdir(self, path: Any) -> list[str]:
        names = self.names_below(path)
        if not names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
        return list(dict.fromkeys(name.partition("/")[0] for name in names))

    def glob(self, path: Any) -> list[str]:
        raise NotImplementedError("BucketPath.glob does not use it")

    def walk(self, top: Any, **unused: Any) -> Any:
        raise NotImplementedError("use names_below")

    def makedirs(self, path: Any, *, exist_ok: bool = False, mode: int | None = None) -> None:
        del mode
        if not exist_ok and self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))

    mkdir = makedirs

    def rmtree(self, path: Any) -> None:
        bucket, name = _open(path)
        if not name:
            raise UserError(f"{path} is a whole bucket; it is not deleted.")
        if not self.isdir(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
        with _explained(path):
            bucket.delete_range(_below(name)).result()

    def remove(self, path: Any) -> None:
        bucket, name = _open(path)
        if not self.is_object(os.fspath(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
        with _explained(path):
            bucket.write(name, None).result()

    def copy(self, path: Any, dst: Any, overwrite: bool) -> None:
        if not overwrite and self.is_object(os.fspath(dst)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(dst))
        self.write(os.fspath(dst), self.read(os.fspath(path)))

    def rename(self, path: Any, dst: Any) -> None:
        """Copies an object or folder through this machine, then deletes the original."""
        if self.is_object(os.fspath(path)):
            self.copy(path, dst, overwrite=True)
            self.remove(path)
            return
        names = self.names_below(path)
        if not names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            copy = functools.partial(self._copy_below, os.fspath(path), os.fspath(dst))
            list(pool.map(copy, names))
        self.rmtree(path)

    replace = rename

    def _copy_below(self, source: str, target: str, name: str) -> None:
        self.copy(f"{source}/{name}", f"{target}/{name}", overwrite=True)

    def stat(self, path: Any) -> stat_utils.StatResult:
        """Size and kind; reads the object, since TensorStore tells no size."""
        is_folder = not self.is_object(os.fspath(path))
        size = 0 if is_folder else len(self.read(os.fspath(path)))
        if is_folder and not self.isdir(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
        return stat_utils.StatResult(is_folder, size, mtime=0)


_OBJECTS = _Objects()


def _below(name: str) -> ts.KvStore.KeyRange:
    """All names below a folder."""
    return ts.KvStore.KeyRange(f"{name}/", f"{name}0") if name else ts.KvStore.KeyRange()


class _Upload(io.BytesIO):
    """A stream that becomes an object when it is closed, but not when its `with` block fails."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self.failed = False

    def __exit__(self, kind: Any, *unused: Any) -> None:
        self.failed |= kind is not None
        self.close()

    def close(self) -> None:
        if not self.closed:
            content = self.getvalue()
            super().close()
            if not self.failed:
                _OBJECTS.write(self._path, content)


class _Text(io.TextIOWrapper):
    """A text stream over an object's bytes; an `_Upload` below it learns of a failed block."""

    def __exit__(self, kind: Any, *unused: Any) -> None:
        if isinstance(self.buffer, _Upload):
            self.buffer.failed |= kind is not None
        self.close()


def read_range(path: BucketPath, start: int, end: int) -> bytes:
    """The bytes of an object from `start` to `end`; fewer or none if it ends before `end`.

    Raises FileNotFoundError.
    """
    if path.scheme in DRIVERS:
        return _OBJECTS.read(str(path), start, end)
    return _fsspec(path).cat_file(str(path), start, end)


def check_address(name: str, text: str) -> BucketPath:
    """The path of an address of a flag or macro. Touches no bucket.

    Raises UserError: unknown scheme, no bucket, or a package for the scheme is not installed.
    """
    scheme, bucket, _ = _split(text)
    if scheme not in SCHEMES or "://" not in text:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise UserError(
            f"{name} is {text!r}: addresses of this kind are not known. Give a path on this "
            f"machine, or an address of {known}."
        )
    if not bucket:
        raise UserError(f"{name} is {text!r}, which names no bucket; write {scheme}://BUCKET/PATH.")
    if "\0" in text or "//" in text.partition("://")[2].rstrip("/"):
        raise UserError(f"{name} is {text!r}: a name in a bucket cannot hold '//' or a NUL here.")
    path = BucketPath(text)
    if scheme not in DRIVERS:
        try:
            _fsspec(path)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"{name} is {text!r}: {scheme}:// needs a package that is not installed ({error})."
            ) from error
    return path


@contextlib.contextmanager
def locked_by_object(folder: BucketPath, name: str) -> Iterator[None]:
    """Holds the lock object `.lock` of a folder while the block runs.

    The object names its holder, who writes it again every `HEARTBEAT_SECS`. Every write is
    conditional on the object's generation, so that of two processes one wins. The lock of a process
    of this host that has ended is free at once, and any other after `STALE_SECS` without a
    heartbeat, for which this waits. Best effort: a process that was suspended for longer goes on
    writing; it logs an error when it finds that its lock was taken. `az://` and `hf://` have no
    lock.

    Raises:
        UserError: another process holds the lock. The message starts with `name`.
    """
    if folder.scheme not in DRIVERS:
        yield
        return
    lock = _ObjectLock(str(folder / ".lock"))
    lock.take(name)
    beating = threading.Thread(target=lock.beat, name="bucket lock", daemon=True)
    beating.start()
    try:
        yield
    finally:
        lock.ended.set()
        beating.join()
        with contextlib.suppress(OSError, UserError):
            lock.release()


class _ObjectLock:
    def __init__(self, path: str) -> None:
        self._path = path
        self._owner = {"host": socket.gethostname(), "process": os.getpid(), "id": uuid.uuid4().hex}
        self._generation: bytes = b""
        self.ended = threading.Event()

    def take(self, name: str) -> None:
        """Writes the object if there is none, or its holder is gone; else raises UserError."""
        since, seen = time.monotonic(), b""
        while True:
            content, generation = _OBJECTS.read_generation(self._path)
            owner = _owner_in(content)
            holder = f"process {owner.get('process')} of {owner.get('host')}"
            free = generation == _NO_OBJECT or self._has_ended(owner)
            if not free and seen not in (b"", generation):  # its holder wrote it meanwhile
                raise UserError(
                    f"{name} is being written by another process of this program, {holder}. Wait "
                    "until it has ended, or write somewhere else."
                )
            if free or (seen and time.monotonic() - since > STALE_SECS):
                if self._write(generation):
                    return
                since, seen = time.monotonic(), b""  # another process was first
                continue
            if not seen:
                text = "%s is locked by %s; waiting up to %.0f s for a sign of life"
                _log.warning(text, name, holder, STALE_SECS)
            seen = generation
            time.sleep(1.0)

    def _has_ended(self, owner: dict[str, Any]) -> bool:
        """Whether the holder was a process of this host that runs no more."""
        process = owner.get("process")
        if owner.get("host") != self._owner["host"] or type(process) is not int:
            return False
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False

    def _write(self, generation: bytes) -> bool:
        """Writes the lock over `generation`; whether this process holds it now."""
        content = json.dumps({**self._owner, "time": time.time()}).encode()
        written = _OBJECTS.write(self._path, content, generation)
        if written is None:  # another process was first, or the answer to our own write was lost
            content, now = _OBJECTS.read_generation(self._path)
            written = now if _owner_in(content).get("id") == self._owner["id"] else None
        self._generation = written or b""
        return written is not None

    def beat(self) -> None:
        """Writes the lock again and again, until `ended` is set."""
        while not self.ended.wait(HEARTBEAT_SECS):
            try:
                if not self._write(self._generation):
                    _log.error("%s was taken by another process; two may write there", self._path)
                    return
            except (OSError, UserError) as error:
                _log.warning("the lock %s could not be renewed: %s", self._path, error)

    def release(self) -> None:
        """Deletes the lock if it is still ours."""
        if self._generation:
            bucket, name = _open(self._path)
            bucket.write(name, None, if_equal=self._generation).result()


def _owner_in(content: bytes) -> dict[str, Any]:
    """The holder that a lock object names; {} if it names none."""
    try:
        owner = json.loads(content)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}
