"""One writer at a time: a lock on a folder or file, which the system lifts when its holder ends."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from instruct.errors import UserError


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
    """Holds a folder or file for this process while the block runs.

    The lock binds only those who ask for it, and leaves nothing behind, however the process ends.
    File systems without such locks (some network mounts) are used unlocked.

    Args:
        path: must be there.
        name: what it is to the user, such as "MODEL_DIR runs/a".

    Raises:
        UserError: another process holds it.
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
