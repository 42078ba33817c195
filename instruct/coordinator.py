"""The process that joins a run's processes and says which one failed.

    python -m instruct.coordinator --port=8476 --num_processes=4

Process 0 starts it as a child. It serves JAX's coordination service on PORT and, on PORT + 1, a
control channel: every process holds one TCP connection to it and exchanges JSON lines. It lives on
for a few seconds when process 0 dies, so that the others end with one message. (JAX itself would
abort them with a stack trace: its service lives in process 0.)

A member sends `join` once, `beat` every few seconds, `wait` at a barrier, `facts` to be compared,
and `leave` with its exit status. The server sends `start`, `pass` (of a barrier), and `fail` with
the message that every process prints before it exits.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import math
import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

BEAT_SECS = 2.0
# How long the coordinator outlives the run at most, so that its members can end in order: without
# JAX's service they would abort.
_LINGER_SECS = 60.0


@dataclasses.dataclass
class Member:
    """One process of the run, as its last message described it.

    Attributes:
        num_programs: that it has dispatched; the same in all processes if none hangs.
        step: the last training step that it has dispatched; -1 before the first.
        progress_at: time of its last change of either, of `time.monotonic`, as are all times here.
    """

    number: int
    host: str
    writer: asyncio.StreamWriter
    beat: float
    num_programs: int = 0
    step: int = -1
    progress_at: float = 0.0
    left: bool = False

    def __str__(self) -> str:
        return f"process {self.number} ({self.host})"


class Coordinator:
    """State of one run; see the module for the messages.

    Args:
        num_processes: how many must join.
        startup_secs: within which all must have joined, counted from the first.
        dead_secs: without a beat, after which a process counts as dead.
        hang_secs: without a new program, after which the run counts as hanging; 0: never.
    """

    def __init__(
        self, num_processes: int, startup_secs: float, dead_secs: float, hang_secs: float
    ) -> None:
        self.num_processes = num_processes
        self.startup_secs, self.dead_secs, self.hang_secs = startup_secs, dead_secs, hang_secs
        self.members: dict[int, Member] = {}
        self.started_at: float | None = None
        self.failure = ""
        self.ended = asyncio.Event()
        self.num_connections = 0
        self._waiting: dict[str, dict[int, float]] = {}
        self._facts: dict[str, dict[int, dict[str, Any]]] = {}
        self._first_join = time.monotonic()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handles one member's connection until it closes."""
        member = None
        self.num_connections += 1
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if member is None:
                    member = self._join(message, writer)
                    if member is None:
                        return
                else:
                    self._handle(member, message)
        except (OSError, ValueError):  # a reset connection, or a stranger on our port
            pass
        finally:
            self.num_connections -= 1
            if member is not None and not member.left:
                self.fail(f"{member} died{_after(member.step)}")
            writer.close()

    def _join(self, message: Mapping[str, Any], writer: asyncio.StreamWriter) -> Member | None:
        number, count, host = message["join"], message["num_processes"], message["host"]
        problem = ""
        if count != self.num_processes:
            problem = f"has --num_processes={count}, process 0 has {self.num_processes}"
        elif number in self.members:
            problem = f"has the --process_id of {self.members[number]}"
        if problem:
            self.fail(f"process {number} ({host}) {problem}; give every process its own id", writer)
            return None
        now = time.monotonic()
        if not self.members:
            self._first_join = now
        member = self.members[number] = Member(number, host, writer, now)
        if len(self.members) == self.num_processes:
            self.started_at = now
            hosts = [self.members[i].host for i in range(self.num_processes)]
            self.broadcast({"start": hosts, "run": uuid.uuid4().hex[:12]})
        return member

    def _handle(self, member: Member, message: Mapping[str, Any]) -> None:
        now = member.beat = time.monotonic()
        if "beat" in message and message["beat"] != [member.num_programs, member.step]:
            member.num_programs, member.step = message["beat"]
            member.progress_at = now
        if "wait" in message:
            arrived = self._waiting.setdefault(message["wait"], {})
            seconds = message["timeout_secs"]
            arrived[member.number] = math.inf if seconds is None else now + seconds
            if "facts" in message:
                facts = self._facts.setdefault(message["wait"], {})
                facts[member.number] = message["facts"]
            if len(arrived) == self.num_processes:
                difference = self._difference(self._facts.pop(message["wait"], {}))
                if difference:
                    self.fail(difference)
                del self._waiting[message["wait"]]
                self.broadcast({"pass": message["wait"]})
        if "leave" in message:
            member.left = True
            if message["leave"]:
                self.fail(f"{member} ended{_after(member.step)}: {message['reason']}")
            elif all(one.left for one in self.members.values()):
                self.ended.set()

    def _difference(self, facts: Mapping[int, Mapping[str, Any]]) -> str:
        """The first fact in which a process differs from process 0, as a message; "" if none."""
        for number in sorted(facts):
            names = dict.fromkeys([*facts[0], *facts[number]])
            for name in names:
                here, there = (facts[i].get(name, "(not there)") for i in (number, 0))
                if here != there:
                    return (
                        f"{self.members[number]} differs from {self.members[0]} in {name}: "
                        f"{_shown(here)} and {_shown(there)}. Start all processes with the same "
                        "command, code, packages and data"
                    )
        return ""

    def check(self) -> None:
        """Fails the run if a process is late, dead or hanging."""
        now = time.monotonic()
        if self.started_at is None:
            if self.members and now - self._first_join > self.startup_secs:
                self.fail(
                    f"{len(self.members)} of {self.num_processes} processes joined within "
                    f"{self.startup_secs:.0f} s; missing: {self._listed(self.members)}. Start all "
                    "with the same --coordinator and --num_processes, raise --startup_secs, or "
                    "give --distributed=off to run alone"
                )
            return
        for member in self.members.values():
            if not member.left and now - member.beat > self.dead_secs:
                self.fail(
                    f"{member} has not answered for {self.dead_secs:.0f} s"
                    f"{_after(member.step)}; its machine or network is down"
                )
        for name, arrived in self._waiting.items():
            if now > min(arrived.values()):
                self.fail(f"barrier {name!r} timed out; not there: process {self._listed(arrived)}")
        working = [one for one in self.members.values() if not one.left]
        stuck_secs = now - max(
            (one.progress_at for one in working if one.num_programs), default=now
        )
        all_work = len(working) == self.num_processes and not self._waiting
        if self.hang_secs and all_work and stuck_secs > self.hang_secs:
            most = max(one.num_programs for one in working)
            slow = [one for one in working if one.num_programs < most]
            step = max(one.step for one in working)
            where = f"step {step:,}" if step >= 0 else f"batch {most:,}"
            who = " and ".join(map(str, slow)) + " has not reached" if slow else "no end of"
            self.fail(f"{who} {where} for {self.hang_secs:.0f} s")

    def _listed(self, present: Mapping[int, Any]) -> str:
        return ", ".join(str(i) for i in range(self.num_processes) if i not in present)

    def broadcast(self, message: Mapping[str, Any]) -> None:
        """Sends a message to every member."""
        for member in self.members.values():
            _send(member.writer, message)

    def fail(self, message: str, stranger: asyncio.StreamWriter | None = None) -> None:
        """Ends the run on every process; the first failure counts."""
        if stranger is not None:
            _send(stranger, {"fail": message})
        late = stranger is not None and self.started_at is not None  # a running run goes on
        if not self.failure and not late:
            self.failure = message
            self.broadcast({"fail": message})
            self.ended.set()


def _after(step: int) -> str:
    return f" (last step {step:,})" if step >= 0 else ""


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _send(writer: asyncio.StreamWriter, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError, RuntimeError):  # it died; its own connection says so
        writer.write((json.dumps(message) + "\n").encode())


async def _parent_died() -> None:
    """Returns when standard input closes, which process 0 holds open."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.buffer.read)


async def _run(flags: argparse.Namespace) -> None:
    # Only here: tests of the control channel need no JAX. A C extension without type stubs.
    from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]

    service = _jax.get_distributed_runtime_service(
        f"[::]:{flags.port}",
        flags.num_processes,
        heartbeat_timeout=int(10 * flags.dead_secs),  # ours is to notice first
        shutdown_timeout=60,
    )
    run = Coordinator(flags.num_processes, flags.startup_secs, flags.dead_secs, flags.hang_secs)
    server = await asyncio.start_server(run.serve, port=flags.port + 1, limit=1 << 26)
    print("ready", flush=True)
    parent = asyncio.ensure_future(_parent_died())
    ended = asyncio.ensure_future(run.ended.wait())
    async with server:
        while not (ended.done() or parent.done()):
            run.check()
            await asyncio.wait({ended, parent}, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        deadline = time.monotonic() + _LINGER_SECS
        while run.num_connections and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        if service is not None:  # alive until here
            os._exit(0)


def main(argv: Sequence[str] | None = None) -> None:
    """Serves one run, until all processes have left or one has failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--num_processes", type=int, required=True)
    parser.add_argument("--startup_secs", type=float, default=300)
    parser.add_argument("--dead_secs", type=float, default=30)
    parser.add_argument("--hang_secs", type=float, default=0)
    # A launcher may send it to every process of a job; this one ends when the run does.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asyncio.run(_run(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
