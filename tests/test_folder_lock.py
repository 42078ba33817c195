"""One writer at a time, whatever becomes of it."""

import os
import subprocess
import sys

import pytest

from instruct.errors import UserError
from instruct.folder_lock import locked

HOLD = """
import sys, time
from instruct.folder_lock import locked
with locked(sys.argv[1], "it"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_free_again_when_its_holder_was_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    refused = pytest.raises(UserError, match="MODEL_DIR a is being written by another process")
    with refused, locked(tmp_path, "MODEL_DIR a"):
        raise AssertionError("two have it")
    holder.kill()
    holder.wait()
    with locked(tmp_path, "it"):
        assert not list(tmp_path.iterdir())


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    read, write = os.pipe()
    with locked(tmp_path, "it"):
        child = os.fork()
        if child == 0:  # lives until the parent closes the pipe
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    with locked(tmp_path, "it"):
        pass
    os.close(write)
    os.waitpid(child, 0)
    os.close(read)
