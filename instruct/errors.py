"""Errors a user can cause, and how they are worded.

`run.py` prints a `UserError` without a traceback and exits with status 2, a `RunFailed` with
status 1; every other exception is a defect of the program or a failure of the machine and keeps
its traceback (status 1).
A message names the value, the allowed values and the fix.
"""

import contextlib
import difflib
import os
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """A mistake in what the user gave: a flag, a gin value, a file, a task."""


class RunFailed(Exception):
    """A run that was well set up and still cannot go on; the message says why and what to do."""


@contextlib.contextmanager
def naming_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Adds the file's name to an `OSError`: those of an open stream do not say which it is."""
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        raise


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
