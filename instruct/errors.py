"""Errors that users can fix, and their messages: the value, the allowed values and the fix.

`run.py` prints a `UserError` (status 2) and a `RunFailed` (status 1) without a traceback, and also
storage errors, which `storage_failure` recognises in any exception of a library, and devices that
run out of memory (`memory_failure`; both status 1). All other exceptions are bugs or failures of
the machine and keep their traceback (status 1).
"""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator


class UserError(Exception):
    """A mistake in a flag, a gin value, a file or a task."""


class RunFailed(Exception):
    """A valid run that cannot continue."""


@contextlib.contextmanager
def naming_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Adds the file's name to an `OSError`, which errors of an open stream lack."""
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        raise


# Storage error -> fix; other errors get `_OTHER_ADVICE`.
_ADVICE = {
    errno.ENOSPC: "Free some space there",
    errno.EDQUOT: "Free some of your disk quota",
    errno.EROFS: "Mount that file system writable, or use another folder",
    errno.EIO: "Check that disk or network storage (`dmesg` shows what the system saw)",
    errno.ESTALE: "Mount that network file system again",
    errno.ENOTCONN: "Mount that network file system again",
    errno.EACCES: "Give this user the rights to that file and its folder",
    errno.EPERM: "Give this user the rights to that file and its folder",
    errno.ENOENT: "Check that nobody deleted or unmounted that folder",
    errno.ENOTDIR: "Check that nobody replaced that folder",
    errno.EISDIR: "Move the folder of that name away",
    errno.EEXIST: "Move the file of that name away",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`)",
    errno.ENAMETOOLONG: "Use a folder with a shorter path",
    errno.EFBIG: "Use a file system (or a `ulimit -f`) that allows larger files",
}
_OTHER_ADVICE = "Check that storage"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# Errors that disks, network mounts and FUSE file systems recover from within seconds or minutes.
# A full or read-only disk, a missing folder and missing rights stay until somebody acts.
TRANSIENT = frozenset(
    number
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EBUSY", "EREMOTEIO", "ENOTCONN", "ECONNRESET"),
        *("ECONNABORTED", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
    )
    if (number := getattr(errno, name, None)) is not None
)
# Errors of a file that is lost or replaced: damage, not a failure of the storage.
LOST_FILE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP))
# Errors of connections and processes, not of storage, unless they name a file.
_NO_STORAGE = frozenset(
    number
    for name, number in vars(errno).items()
    if name.startswith(("ECONN", "ENET", "EADDR", "EHOST", "ESOCK", "EPROTO"))
    or name in ("EPIPE", "EAGAIN", "EWOULDBLOCK", "ECHILD", "ESRCH", "EINTR", "ESHUTDOWN")
)
# TensorStore and array_record give the system's error only in their text.
_NUMBER_IN_TEXT = re.compile(r"OS error (\d+)|os_error_code='(\d+)'|\[Errno (\d+)\]")
_WORDS_IN_TEXT = {os.strerror(number): number for number in (*_ADVICE, errno.ENXIO)}
_PATH_IN_TEXT = re.compile(r"[\"'](/[^\"']+)[\"']")
# TensorStore at a bucket: it gave up after its retries.
_GAVE_UP = "retry attempts failed"
_ADDRESS_IN_TEXT = re.compile(r"\b((?:gs|s3)://[^\s\"':]+)")
# Of XLA's compilers and allocators.
_NO_MEMORY = "RESOURCE_EXHAUSTED"
# Temporary files of TensorStore, beside the final one.
_BESIDE = re.compile(r"\.__lock$|\.__tmp\S*$")


def storage_error_number(error: BaseException) -> int | None:
    """The `errno` of a storage error, also if a library wraps it; else None."""
    return next((number for number, _ in _storage_errors(error)), None)


def storage_error_path(error: BaseException) -> str:
    """The file that a storage error names; "" if none."""
    return next((path for _, path in _storage_errors(error) if path), "")


def errno_words(number: int) -> str:
    """'Input/output error (EIO)'."""
    return f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"


def storage_failure(error: BaseException) -> str | None:
    """Message of a storage error: file, system's error and fix. None for any other error."""
    number, path = storage_error_number(error), storage_error_path(error)
    if number is None:
        return None
    if number in _NO_SPACE:
        where = f" while writing {path}" if path else ""
        problem = f"no space left on the disk{where} ({errno.errorcode[number]})"
    else:
        problem = f"the storage failed{f' at {path}' if path else ''}: {errno_words(number)}"
    advice = _ADVICE.get(number, _OTHER_ADVICE)
    if "://" in path:
        problem = f"the storage failed at {path}, after many attempts ({errno.errorcode[number]})"
        advice = "Check the network and that storage service"
    return f"{problem}. {advice}, then give the same command again."


def _storage_errors(error: BaseException) -> Iterator[tuple[int, str]]:
    """(errno, path or "") of an exception and of its causes, outermost first."""
    pending, seen = [error], set()
    while pending:
        error = pending.pop(0)
        if id(error) in seen or isinstance(error, UserError):
            continue
        seen.add(id(error))
        text = str(error)
        number, path = None, _path_in(text)
        if isinstance(error, OSError):
            number = error.errno or _number_in(text)
            # The target of a rename: the other name is that of a temporary file.
            names = (error.filename2, error.filename)
            path = next((name for name in names if isinstance(name, str)), path)
        elif isinstance(error, ValueError | RuntimeError):
            number = _number_in(text)
        if number is not None and number > 0 and (path or number not in _NO_STORAGE):
            yield number, path
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        pending += [cause for cause in (error.__cause__, error.__context__) if cause is not None]


def _number_in(text: str) -> int | None:
    match = _NUMBER_IN_TEXT.search(text)
    if _GAVE_UP in text:
        return errno.EIO
    if match:
        return int(next(filter(None, match.groups())))
    return next((number for words, number in _WORDS_IN_TEXT.items() if words in text), None)


def _path_in(text: str) -> str:
    """The longest path in a text; TensorStore names the folder, the file, then all settings."""
    text = text.partition(" [source")[0].partition(" [tensorstore")[0]
    paths = _PATH_IN_TEXT.findall(text) or _ADDRESS_IN_TEXT.findall(text)
    # A name with a NUL is an unnamed file of a database: name its folder.
    return _BESIDE.sub("", max(paths, key=len, default="").partition("\\x00")[0])


@contextlib.contextmanager
def explaining_storage_failures(
    consequence_fn: Callable[[], str] = lambda: "Nothing that was finished is lost.",
) -> Iterator[None]:
    """Converts storage errors in the block to `RunFailed`.

    Args:
        consequence_fn: returns a sentence on what is lost and what is not.
    """
    try:
        yield
    except (UserError, RunFailed):
        raise
    except Exception as error:
        failure = storage_failure(error)
        if failure is None:
            raise
        raise RunFailed(f"{failure} {consequence_fn()}") from error


def memory_failure(error: BaseException) -> str | None:
    """Message of devices whose memory is too small, in XLA's words; None for any other error."""
    text = str(error)
    if not isinstance(error, RuntimeError) or _NO_MEMORY not in text or storage_failure(error):
        return None
    # Allocators list all buffers after the first line.
    words = (
        text[text.index(_NO_MEMORY) + len(_NO_MEMORY) :].strip(": ").partition("\n")[0].rstrip(".")
    )
    return f"the devices have too little memory ({words:.200})."


@contextlib.contextmanager
def explaining_memory_failures(advice: str) -> Iterator[None]:
    """Converts errors of devices whose memory is too small to `RunFailed`.

    Args:
        advice: a sentence on what needs less.
    """
    try:
        yield
    except RuntimeError as error:
        failure = memory_failure(error)
        if failure is None:
            raise
        raise RunFailed(f"{failure} {advice}") from error


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> UserError:
    """A `UserError` for an unknown name, with the nearest known ones.

    Args:
        kind: of the name, in the singular ("task", "mode", "macro").
        name: as the user wrote it; gin may pass other types than text.
        allowed: all known names.
    """
    known = sorted(set(allowed))
    # Wrong case is the most frequent mistake.
    near = [one for one in known if one.casefold() == str(name).casefold()]
    near = near or difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    message = f"unknown {kind} {name!r}."
    if near:
        message += f" Did you mean {' or '.join(repr(n) for n in near)}?"
    if len(known) <= 20:
        message += f" Allowed: {', '.join(known) or '(none registered)'}."
    else:
        some = "" if near else f", among them {', '.join(known[:8])}"
        message += f" {len(known):,} are known{some}."
    return UserError(message)
