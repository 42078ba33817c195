"""Errors a user can cause, and how they are worded.

`run.py` prints a `UserError` without a traceback and exits with status 2, a `RunFailed` with
status 1; so it does with errors of the storage, which `storage_failure` recognises in whatever
exception a library wraps them. Every other exception is a defect of the program or a failure of
the machine and keeps its traceback (status 1).
A message names the value, the allowed values and the fix.
"""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator


class UserError(Exception):
    """A mistake in what the user gave: a flag, a gin value, a file, a task."""


class RunFailed(Exception):
    """A valid run that cannot continue; the message says why and what to do."""


@contextlib.contextmanager
def naming_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Adds the file's name to an `OSError`: those of an open stream do not say which it is."""
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        raise


# The fix for each storage error; any other number gets `_OTHER_ADVICE`.
_ADVICE = {
    errno.ENOSPC: "Free some space there",
    errno.EDQUOT: "Free some of your disk quota",
    errno.EROFS: "Mount that file system writable, or use another folder",
    errno.EIO: "Check that disk or network storage (`dmesg` shows what the system saw)",
    errno.ESTALE: "Mount that network file system again",
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
# Errors of connections and processes.
_NO_STORAGE = frozenset(
    number
    for name, number in vars(errno).items()
    if name.startswith(("ECONN", "ENET", "EADDR", "EHOST", "ESOCK", "EPROTO"))
    or name in ("EPIPE", "EAGAIN", "EWOULDBLOCK", "ECHILD", "ESRCH", "EINTR", "ESHUTDOWN")
)
# TensorStore and array_record have the system's error in their text only.
_NUMBER_IN_TEXT = re.compile(r"OS error (\d+)|os_error_code='(\d+)'|\[Errno (\d+)\]")
_WORDS_IN_TEXT = {os.strerror(number): number for number in (*_ADVICE, errno.ENXIO)}
_PATH_IN_TEXT = re.compile(r"[\"'](/[^\"']+)[\"']")
# TensorStore writes beside a file first.
_BESIDE = re.compile(r"\.__lock$|\.__tmp\S*$")


def storage_error_number(error: BaseException) -> int | None:
    """The `errno` of a failure of the storage, also where a library wraps it; else None."""
    return next((number for number, _ in _storage_errors(error)), None)


def storage_error_path(error: BaseException) -> str:
    """The file that a failure of the storage names; "" if none does."""
    return next((path for _, path in _storage_errors(error) if path), "")


def errno_words(number: int) -> str:
    """'Input/output error (EIO)'."""
    return f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"


def storage_failure(error: BaseException) -> str | None:
    """A message with the file, the system's error and the fix; None if storage is not the cause."""
    number, path = storage_error_number(error), storage_error_path(error)
    if number is None:
        return None
    if number in _NO_SPACE:
        where = f" while writing {path}" if path else ""
        problem = f"no space left on the disk{where} ({errno.errorcode[number]})"
    else:
        problem = f"the storage failed{f' at {path}' if path else ''}: {errno_words(number)}"
    return f"{problem}. {_ADVICE.get(number, _OTHER_ADVICE)}, then give the same command again."


def _storage_errors(error: BaseException) -> Iterator[tuple[int, str]]:
    """(errno, path or "") of an exception and of those behind it, outermost first."""
    pending, seen = [error], set()
    while pending:
        this = pending.pop(0)
        if id(this) in seen or isinstance(this, UserError):
            continue
        seen.add(id(this))
        text = str(this)
        number, path = None, _path_in(text)
        if isinstance(this, OSError):
            number = this.errno or _number_in(text)
            # Of a rename, the name that users know: the other one is that of a temporary file.
            names = (this.filename2, this.filename)
            path = next((name for name in names if isinstance(name, str)), path)
        elif isinstance(this, ValueError | RuntimeError):
            number = _number_in(text)
        if number is not None and number > 0 and number not in _NO_STORAGE:
            yield number, path
        if isinstance(this, BaseExceptionGroup):
            pending += this.exceptions
        pending += [behind for behind in (this.__cause__, this.__context__) if behind is not None]


def _number_in(text: str) -> int | None:
    match = _NUMBER_IN_TEXT.search(text)
    if match:
        return int(next(filter(None, match.groups())))
    return next((number for words, number in _WORDS_IN_TEXT.items() if words in text), None)


def _path_in(text: str) -> str:
    """The longest path: TensorStore names the folder, then the file, then all its settings."""
    paths = _PATH_IN_TEXT.findall(text.partition(" [source")[0].partition(" [tensorstore")[0])
    # A name with a NUL in it is an unnamed file of a database: its folder says enough.
    return _BESIDE.sub("", max(paths, key=len, default="").partition("\\x00")[0])


@contextlib.contextmanager
def explaining_storage_failures(
    consequence_fn: Callable[[], str] = lambda: "Nothing that was finished is lost.",
) -> Iterator[None]:
    """Turns any failure of the storage inside the block into a `RunFailed`.

    Args:
        consequence_fn: gives a sentence on what was lost and what was not.
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


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> UserError:
    """A `UserError` for a name that does not exist, with the nearest ones that do.

    Args:
        kind: what the name stands for, in the singular ("task", "mode", "macro").
        name: what the user wrote.
        allowed: every name that would have worked.
    """
    known = sorted(set(allowed))
    # gin passes on what is no text as well. Case is what is mistaken most.
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
