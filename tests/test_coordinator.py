"""The coordinator's decisions, without processes: barriers, facts, deaths and hangs.

`tests/test_distributed.py` has it in a process of its own, with real members.
"""

import asyncio
import json
import time

import pytest

from instruct.coordinator import Coordinator


class Pipe:
    """What the coordinator sent to one member."""

    def __init__(self):
        self.sent = []

    def write(self, line):
        self.sent.append(json.loads(line))


@pytest.fixture
def run():
    """Three members that have joined; `run.send(number, **message)` is one's message."""

    async def start():
        return Coordinator(3, startup_secs=10, dead_secs=30, hang_secs=5)

    coordinator = asyncio.run(start())
    coordinator.pipes = [Pipe() for _ in range(3)]
    for number, pipe in enumerate(coordinator.pipes):
        join = {"join": number, "num_processes": 3, "host": f"node{number}"}
        coordinator._join(join, pipe)
    coordinator.send = lambda number, **message: coordinator._handle(
        coordinator.members[number], message
    )
    return coordinator


def shift(run, secs):
    """Lets the time since the last beats and steps pass."""
    for member in run.members.values():
        member.beat -= secs
        member.progress_at -= secs


def test_all_start_with_the_hosts_of_all(run):
    for pipe in run.pipes:
        assert pipe.sent[-1]["start"] == ["node0", "node1", "node2"]
    assert len({pipe.sent[-1]["run"] for pipe in run.pipes}) == 1


def test_a_barrier_passes_when_all_are_there(run):
    run.send(0, wait="a", timeout_secs=10)
    run.send(2, wait="a", timeout_secs=10)
    assert not any("pass" in pipe.sent[-1] for pipe in run.pipes)
    run.send(1, wait="a", timeout_secs=None)
    assert all(pipe.sent[-1] == {"pass": "a"} for pipe in run.pipes)


def test_a_barrier_that_times_out_names_who_is_missing(run):
    run.send(0, wait="load", timeout_secs=-1)
    run.send(2, wait="load", timeout_secs=10)
    run.check()
    assert run.failure == "barrier 'load' timed out; not there: process 1"
    assert all(pipe.sent[-1] == {"fail": run.failure} for pipe in run.pipes)


def test_different_facts(run):
    for number in range(3):
        value = "0.1" if number == 1 else "0.5"
        facts = {"code": "x", "gin value LEARNING_RATE": value}
        run.send(number, wait="settings", timeout_secs=10, facts=facts)
    assert run.failure.startswith(
        "process 1 (node1) differs from process 0 (node0) in gin value LEARNING_RATE: "
    )


def test_no_beat_for_long(run):
    shift(run, 31)
    run.send(0, beat=[4, 3])
    run.send(1, beat=[4, 3])
    run.check()
    assert run.failure.startswith("process 2 (node2) has not answered for 30 s")


@pytest.mark.parametrize(("step", "where"), [(7, "step 7"), (-1, "batch 9")])
def test_a_process_behind_the_others_hangs(run, step, where):
    for number in range(3):
        run.send(number, beat=[9, step] if number != 1 else [8, step])
    shift(run, 6)
    run.check()
    assert run.failure == f"process 1 (node1) has not reached {where} for 5 s"


def test_all_at_a_barrier_is_no_hang(run):
    for number in range(3):
        run.send(number, beat=[9, 7])
    run.send(0, wait="end", timeout_secs=60)
    shift(run, 6)
    run.check()
    assert not run.failure


def test_late_members_are_named():
    async def start():
        return Coordinator(3, startup_secs=10, dead_secs=30, hang_secs=5)

    run = asyncio.run(start())
    run._join({"join": 1, "num_processes": 3, "host": "node1"}, Pipe())
    run._first_join = time.monotonic() - 11
    run.check()
    assert "1 of 3 processes joined within 10 s; missing: 0, 2" in run.failure


def test_two_processes_with_one_number(run):
    stranger = Pipe()
    run._join({"join": 2, "num_processes": 3, "host": "node9"}, stranger)
    assert "process 2 (node9) has the --process_id of process 2 (node2)" in str(stranger.sent)
    assert not run.failure  # a running run goes on


def test_a_failing_process_ends_the_others(run):
    run.send(0, leave=0, reason="")
    run.send(1, leave=1, reason="the disk is full")
    assert run.failure == "process 1 (node1) ended: the disk is full"
    assert run.ended.is_set()
