"""A run goes on with other numbers of processes, after a kill and a SIGTERM, as if undisturbed.

Real processes with gloo's collectives over four devices in all. The reference is one process with
four devices and the same collectives: gloo adds in another order than JAX's own collectives of one
process. NPROC: a matrix product's order of additions depends on the number of threads, which
otherwise follows the number of a process's devices.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from instruct.checkpoints.loading import checkpoint_steps
from tests.ports import free_port
from tests.test_resume import ROOT, STEPS, assert_same_run, rows
from tests.train.stand_in import MODELS, held_file
from tests.waiting import LIMIT_SECS, wait_until

pytestmark = pytest.mark.slow(secs=60)

NUM_DEVICES = 4


class Cluster:
    """The processes of one run in `folder`."""

    def __init__(self, python: pathlib.Path, folder: pathlib.Path, count: int, *flags: str) -> None:
        environment = os.environ | {
            "INSTRUCT_STORE_DIR": str(folder.parent / "stores"),
            "TOY_CACHE": str(folder.parent / f"cache{count}"),
            "XLA_FLAGS": os.environ["XLA_FLAGS"]
            + f" --xla_force_host_platform_device_count={NUM_DEVICES // count}",
            "NPROC": str(NUM_DEVICES),
            "PYTHONPATH": str(ROOT),
        }
        address = f"127.0.0.1:{free_port()}"
        command = [python, "-m", "tests.train.stand_in", str(folder), str(STEPS)]
        command += ["--lanes", "4", "--mesh", "data=2,fsdp=2", *flags, "--process", address]
        self.folder = folder
        self.processes = [
            subprocess.Popen(
                [*command, str(count), str(number)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(count)
        ]

    def wait_for(self, happened: Callable[[], bool]) -> None:
        wait_until(happened, *self.processes)

    def finish(self) -> list[tuple[int, str]]:
        """[(exit status, output)] of the processes."""
        outputs = [process.communicate(timeout=LIMIT_SECS)[0] for process in self.processes]
        return [(p.returncode, output) for p, output in zip(self.processes, outputs)]


@pytest.fixture
def start():
    """`Cluster`, whose processes end with the test, however it ends."""
    clusters: list[Cluster] = []

    def started(*arguments: Any) -> Cluster:
        clusters.append(Cluster(*arguments))
        return clusters[-1]

    yield started
    for cluster in clusters:
        for process in cluster.processes:
            process.kill()


@pytest.mark.parametrize("layout", MODELS)
def test_four_then_two_then_one_process(tmp_path, start, forked_python, layout):
    flag = f"--layout={layout}"
    # A real start has another hash seed than the forked programs, so other orders of sets.
    (whole,) = start(pathlib.Path(sys.executable), tmp_path / "whole", 1, flag).finish()
    assert whole[0] == 0, whole[1]

    four = start(forked_python, tmp_path / "run", 4, flag, "--hold", "5")
    four.wait_for(lambda: any(row["step"] >= 4 for row in rows(tmp_path / "run")))
    four.processes[2].send_signal(signal.SIGKILL)
    ends = four.finish()
    for number in (0, 1, 3):
        status, output = ends[number]
        assert status == 1
        assert "error: process 2 (" in output and ") died (last step" in output
    assert checkpoint_steps(tmp_path / "run")

    for count, told in ((4, 3), (2, 1)):
        last = checkpoint_steps(tmp_path / "run")[-1]
        held = held_file(tmp_path / "run", told)
        held.unlink(missing_ok=True)  # of the run before
        several = start(forked_python, tmp_path / "run", count, flag, "--hold", str(last + 2))
        several.wait_for(held.exists)
        several.processes[told].send_signal(signal.SIGTERM)
        ends = several.finish()
        assert [status for status, _ in ends] == [0] * count, ends
        assert f"resumes from step {last}" in ends[0][1]
        info = json.loads((tmp_path / "run" / "run.json").read_text())
        assert info["outcome"] == "stopped by SIGTERM"
        assert checkpoint_steps(tmp_path / "run")[-1] == info["step"]

    ((status, output),) = start(forked_python, tmp_path / "run", 1, flag).finish()
    assert status == 0, output
    assert_same_run(tmp_path / "run", tmp_path / "whole", layout)
