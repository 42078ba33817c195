"""Real processes (gloo, two fake CPU devices each) that join, compare, die, hang and stop."""

import os
import pathlib
import subprocess

import pytest

from instruct import distributed
from instruct.distributed import ClusterConfig
from instruct.errors import UserError
from tests.ports import free_port
from tests.waiting import LIMIT_SECS


def run_processes(python: pathlib.Path, mode: str, count: int = 3) -> dict[int, tuple]:
    """{process: (exit status, stdout, last line of stderr)} of `tests.distributed_worker`."""
    address = f"127.0.0.1:{free_port()}"
    two_devices = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2"
    processes = {
        number: subprocess.Popen(
            [
                python,
                "-m",
                "tests.distributed_worker",
                mode,
                address,
                str(count),
                str(number),
            ],
            env=os.environ | {"XLA_FLAGS": two_devices},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    }
    outputs = {}
    try:
        for number, process in processes.items():
            stdout, stderr = process.communicate(timeout=LIMIT_SECS)
            errors = [line for line in stderr.splitlines() if line.startswith("error:")]
            outputs[number] = (process.returncode, stdout, errors)
    finally:
        for process in processes.values():
            process.kill()
    return outputs


@pytest.mark.slow
def test_processes_compute_together(forked_python):
    for status, stdout, errors in run_processes(forked_python, "ok").values():
        assert (status, errors) == (0, [])
        assert "total 12" in stdout  # 2 devices x (1 + 2 + 3)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "failed"), [("die", 2), ("die0", 0), ("hang", 2), ("fail", 2)])
def test_one_failing_process_ends_all_with_a_message_that_names_it(forked_python, mode, failed):
    outputs = run_processes(forked_python, mode)
    words = {"die": "died", "die0": "died", "hang": "has not reached", "fail": "the disk is full"}
    for number, (status, _, errors) in outputs.items():
        if number == failed and mode != "hang":
            continue
        assert status == 1
        assert len(errors) == 1
        assert f"process {failed} (" in errors[0] and words[mode] in errors[0]


@pytest.mark.slow
def test_a_problem_of_one_process_is_known_to_all(forked_python):
    for status, stdout, errors in run_processes(forked_python, "problem").values():
        assert (status, errors) == (0, [])
        assert "process 1: no file; of all" in stdout and "none: ''" in stdout


@pytest.mark.slow
def test_a_process_that_differs_is_named_before_the_first_step(forked_python):
    for status, _, errors in run_processes(forked_python, "differ").values():
        assert status == 1
        assert "process 2" in errors[0] and "in lr: 0.1 and 0.2" in errors[0]


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_at_the_same_step(forked_python):
    outputs = run_processes(forked_python, "sigterm")
    assert [status for status, _, _ in outputs.values()] == [0, 0, 0]
    assert len({stdout.splitlines()[-1] for _, stdout, _ in outputs.values()}) == 1


@pytest.mark.slow
def test_unreachable_coordinator():
    config = ClusterConfig(f"127.0.0.1:{free_port()}", 2, 1, startup_secs=1)
    with pytest.raises(UserError, match="cannot reach the coordinator .* Start process 0"):
        distributed.start(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"coordinator": "node1:8476"}, "go together"),
        ({"coordinator": "node1", "num_processes": 2, "process_id": 0}, "write HOST:PORT"),
        ({"coordinator": "node1:65535", "num_processes": 2, "process_id": 0}, "up to 65534"),
        ({"coordinator": "node1:1", "num_processes": 2, "process_id": 2}, "use 0 to 1"),
        ({"process_id": 2, "detect": False}, "--distributed=off contradicts"),
    ],
)
def test_flags_that_do_not_fit(fields, message):
    with pytest.raises(UserError, match=message):
        ClusterConfig(**fields)


class Joined:
    """A connection of the last of four processes, two on each of two machines."""

    hosts, number = ["a", "a", "b", "b"], 3


@pytest.mark.parametrize(
    ("visible", "taken"), [(None, "1"), ("4,5,6,7", "1"), ("0", None), ("GPU-8932f937", None)]
)
def test_one_gpu_for_each_process_of_a_machine(monkeypatch, visible, taken):
    """Unless the launcher divided them: then the process sees its own only."""
    settings = {}
    monkeypatch.setattr("jax.config.update", settings.__setitem__)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    distributed._share_devices(Joined())  # pyright: ignore[reportArgumentType]
    assert settings.get("jax_cuda_visible_devices") == taken


def test_alone_nothing_waits(tmp_path):
    distributed.barrier("a")
    distributed.agree("a", {"x": 1})
    distributed.report_progress(3)
    with distributed.one_after_another("a", tmp_path):
        assert not list(tmp_path.iterdir())
    assert distributed.gather_json({"x": 1}) == [{"x": 1}]
    assert [distributed.first_problem(problem) for problem in ("", "x")] == ["", "x"]
    assert (distributed.num_processes(), distributed.is_first_process()) == (1, True)
