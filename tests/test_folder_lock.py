"""One writer at a time, whatever becomes of it."""

import subprocess
import sys

import pytest

from instruct.errors import UserError
from instruct.folder_lock import locked

HOLD = """
import os, sys
from instruct.folder_lock import locked
with locked(sys.argv[1], "it"):
    if os.fork() == 0:
        print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_free_again_when_its_holder_was_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    refused = pytest.raises(UserError, match="MODEL_DIR a is being written by another process")
    with refused, locked(tmp_path, "MODEL_DIR a"):
        raise AssertionError("two have it")
    holder.kill()
    holder.wait()
    with locked(tmp_path, "it"):  # though the child that it forked still runs
        assert not list(tmp_path.iterdir())
    with locked(tmp_path, "it"):
        pass
    assert holder.stdin is not None
    holder.stdin.close()
