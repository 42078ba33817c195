"""Waiting for what other threads and processes do, however slow the machine is."""

import pathlib
import subprocess
import time
from collections.abc import Callable

# Ends a test that hangs, and no other: what is waited for happens in seconds on an idle machine.
LIMIT_SECS = 600.0


def wait_until(happened: Callable[[], object], *processes: subprocess.Popen) -> None:
    """Returns once `happened()` holds; fails if one of the processes ends before that."""
    deadline = time.monotonic() + LIMIT_SECS
    while not happened():
        ended = [process for process in processes if process.poll() is not None]
        assert not ended, [(one.args, one.returncode, _output(one)) for one in ended]
        assert time.monotonic() < deadline, f"did not happen within {LIMIT_SECS:.0f} s"
        time.sleep(0.005)


def _output(process: subprocess.Popen) -> object:
    try:
        return process.communicate(timeout=10)[0]
    except subprocess.TimeoutExpired:
        return "(its children still write)"


def is_running(number: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = pathlib.Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
