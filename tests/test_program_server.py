"""A program that is forked from the server is the program that Python would have started."""

import os
import pathlib
import subprocess
import sys
import uuid

import pytest

from tests.waiting import LIMIT_SECS

pytestmark = pytest.mark.slow(secs=0.2)  # seconds together

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODULE = ["-m", "tests.train.stand_in", "--help"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run.py", "--help"],
        ["run.py", "train", "--gin_file=gin/runs/train.gin"],
        ["run.py", "show", "--task=lists.count_animals"],
        MODULE,
        ["-c", "import os, sys; print(sys.argv, os.getcwd()); sys.exit(3)"],
    ],
    ids=" ".join,
)
def test_output_and_exit_status_are_those_of_a_fresh_start(forked_python, arguments):
    ended = [
        subprocess.run(
            [python, *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
        )
        for python in (sys.executable, forked_python)
    ]
    assert ended[0].stdout or ended[0].stderr
    fresh, forked = ((e.returncode, e.stdout, e.stderr) for e in ended)
    assert forked == fresh


def test_a_server_ends_with_the_process_that_started_it():
    settings = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.program_server", uuid.uuid4().hex],
        cwd=ROOT,
        env=settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdin and server.stdout and server.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(0.5)
        server.stdin.close()  # as the end of this process would
        try:
            assert server.wait(LIMIT_SECS) == 0
        finally:
            server.kill()
