"""Child processes that are forked after all imports: a start costs milliseconds, not ten seconds.

Forking is sound as long as the parent has one thread: `run` refuses anything else. The parent
imports JAX and TensorFlow and never computes; each child starts JAX's threads for itself.
"""

import atexit
import contextlib
import json
import os
import pathlib
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from tests import failing_storage
from tests.waiting import LIMIT_SECS

# Kinds of storage calls.
WRITES = "write,rename,fsync,open,mkdir,remove"
READS = "read,open_to_read"
MOST_SECS = LIMIT_SECS  # of a child
_ORPHANS_SECS = LIMIT_SECS  # until the children of a killed child have ended


class StorageFault(NamedTuple):
    """What becomes of the `call`-th call of some kinds below `folder`.

    Attributes:
        number: an errno, or KILL, TEAR or JUMP of `tests/failing_storage.py`.
        for_ever: so do all later calls.
        jump_secs: of the clock, with JUMP.
    """

    folder: str
    kinds: str
    number: int
    call: int
    for_ever: bool = False
    jump_secs: int = 0


# Counts calls and changes nothing.
def counting(folder: pathlib.Path, kinds: str) -> StorageFault:
    return StorageFault(str(folder), kinds, 0, 10**9)


class Ended(NamedTuple):
    """How a child ended: exit status (or minus the signal), output, seconds, storage calls."""

    status: int
    out: str
    err: str
    secs: float
    calls: int
    orphans: int  # processes of its own that outlived it; they were killed

    @property
    def text(self) -> str:
        return self.out + self.err


def run(
    function: Callable[[], int],
    folder: pathlib.Path,
    fault: StorageFault | None = None,
    kill_after_secs: float | None = None,
) -> Ended:
    """Runs `function` in a forked process of a new group, which its exit status ends."""
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked safely"
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    names = [folder / f".child.{name}" for name in ("out", "err", "calls")]
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_child(function, names, fault)
    deadline = started + (MOST_SECS if kill_after_secs is None else kill_after_secs)
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    secs = time.monotonic() - started
    orphans = _end_group(child)
    status = os.waitstatus_to_exitcode(ended[1])
    if kill_after_secs is None and secs >= MOST_SECS:
        status = -signal.SIGXCPU  # it hung
    out, err, calls = (name.read_text(errors="replace") if name.exists() else "" for name in names)
    for name in names:
        name.unlink(missing_ok=True)
    return Ended(status, out, err, secs, int(calls or 0), orphans)


@contextlib.contextmanager
def serving(function: Callable[[pathlib.Path], None], folder: pathlib.Path) -> Iterator[str]:
    """Runs `function(file)` in a forked process while the block runs.

    The block gets the text that the function writes to the file when it is ready.
    """
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked safely"
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / ".serving"
    ready.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            function(ready)
        finally:
            os._exit(1)
    try:
        while not ready.exists():
            assert os.waitpid(child, os.WNOHANG)[0] == 0, "the server ended"
            time.sleep(0.01)
        yield ready.read_text()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        ready.unlink(missing_ok=True)


def value_of(function: Callable[[], Any], folder: pathlib.Path) -> Any:
    """The JSON value that `function` returns in a child; raises what it raised as RuntimeError."""

    def write() -> int:
        print(json.dumps(function()))
        return 0

    ended = run(write, folder)
    if ended.status != 0:
        raise RuntimeError(ended.text)
    return json.loads(ended.out)


def _be_child(
    function: Callable[[], int], names: Sequence[pathlib.Path], fault: StorageFault | None
) -> None:
    """Runs the function and ends the process as `run_program` does; never returns."""
    status = 1
    try:
        os.setpgid(0, 0)
        out, err, calls = names
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, out), (2, err)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if fault is not None:
            failing_storage.set_jump(fault.jump_secs)
            failing_storage.arm(
                pathlib.Path(fault.folder), fault.kinds, fault.number, fault.call, fault.for_ever
            )
        status = function()
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()
        if fault is not None:
            calls.write_text(str(failing_storage.disarm()))
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_group(group: int) -> int:
    """Waits for the processes that a child started; kills and counts those that stay."""
    deadline = time.monotonic() + _ORPHANS_SECS
    while members := _members(group):
        if time.monotonic() >= deadline:
            for process in members:
                os.kill(process, signal.SIGKILL)
            return len(members)
        time.sleep(0.05)
    return 0


def _members(group: int) -> list[int]:
    """Running processes of a group."""
    members = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except (OSError, ValueError):
                continue
            if int(its_group) == group and state != "Z":
                members.append(int(entry.name))
    return members


def some_call(draw: random.Random, calls: int) -> int:
    """The number of a call, from 1."""
    return draw.randint(1, max(1, calls))
