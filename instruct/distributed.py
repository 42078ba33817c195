"""Several processes as one run: start-up, handshake, barriers, and the end of all when one fails.

The only module that calls `jax.distributed`'s parts. `start` must run before any computation.
Every process then holds a connection to the coordinator (`instruct/coordinator.py`), whose thread
sends a beat every two seconds and ends this process with one message, exit status 1, as soon as
another process died, hangs, or differs in what all must share.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax._src import clusters
from jax._src import distributed as jax_distributed
from jax.experimental import multihost_utils

# A C extension without type stubs.
from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]

from instruct import coordinator
from instruct.errors import UserError
from instruct.fields import bounded, check_fields
from instruct.files import is_address


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """Which processes make up the run.

    Attributes:
        coordinator: HOST:PORT of process 0, reachable from all; PORT + 1 is used too. None: as
            the cluster says (Cloud TPU, GKE, SLURM, OpenMPI), else one process.
        num_processes, process_id: given with `coordinator`, else as the cluster says.
        detect: whether to ask for a cluster at all.
        startup_secs: within which all processes must have joined.
        dead_secs: without a sign of life, after which a process counts as dead.
        hang_secs: without a new step or batch, after which the run counts as hanging; 0: never.
    """

    coordinator: str | None = None
    num_processes: int | None = bounded(None, least=1)
    process_id: int | None = bounded(None, least=0)
    detect: bool = True
    startup_secs: float = bounded(300.0, above=0)
    dead_secs: float = bounded(30.0, least=5)
    hang_secs: float = bounded(1800.0, least=0)

    def __post_init__(self) -> None:
        check_fields(self)
        explicit = (self.coordinator, self.num_processes, self.process_id)
        if any(value is not None for value in explicit):
            if not self.detect:
                raise UserError(
                    "--distributed=off contradicts --coordinator, --num_processes and "
                    "--process_id; leave one out."
                )
            if any(value is None for value in explicit):
                raise UserError(
                    "--coordinator=HOST:PORT, --num_processes=N and --process_id=I go together; "
                    f"given are {self.coordinator}, {self.num_processes} and {self.process_id}."
                )
            _port(self.coordinator or "")
            if (self.process_id or 0) >= (self.num_processes or 0):
                raise UserError(
                    f"--process_id={self.process_id} with --num_processes={self.num_processes}: "
                    f"use 0 to {(self.num_processes or 1) - 1}."
                )


def _port(address: str) -> int:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65535:
        raise UserError(
            f"--coordinator={address}: write HOST:PORT, with the host name or address of process 0 "
            "and a free port up to 65534 (the next one is used too), such as node1:8476."
        )
    return int(port)


class _Connection:
    """This process's side of the control channel."""

    def __init__(self, config: ClusterConfig, address: str, count: int, number: int) -> None:
        self.number, self.count = number, count
        self.step, self.num_programs = -1, 0
        self.hosts: list[str] = []
        self.run = ""
        self._passed: set[str] = set()
        self._changed = threading.Condition()
        self._left = False
        self._address = address
        host, _, _ = address.rpartition(":")
        self._socket = _connect(host.strip("[]"), _port(address) + 1, config, address)
        self._send({"join": number, "num_processes": count, "host": socket.gethostname()})
        for target in (self._listen, self._beat):
            threading.Thread(target=target, daemon=True).start()
        # The coordinator ends a start-up that takes too long, so nothing is timed here.
        self._wait(lambda: bool(self.hosts))

    def _send(self, message: Mapping[str, Any]) -> None:
        line = (json.dumps(message, default=str) + "\n").encode()
        with self._changed:
            self._socket.sendall(line)

    def _wait(self, ready) -> None:
        with self._changed:
            while not ready():
                self._changed.wait()

    def _listen(self) -> None:
        try:
            for line in self._socket.makefile("r"):
                message = json.loads(line)
                if "fail" in message and not self._left:
                    self.end(message["fail"])
                with self._changed:
                    self.run = message.get("run", self.run)
                    self.hosts = message.get("start", self.hosts)
                    self._passed |= {message["pass"]} if "pass" in message else set()
                    self._changed.notify_all()
        except OSError:
            pass
        if not self._left:
            self.end(f"the coordinator at {self._address} (process 0's machine) is gone")

    def _beat(self) -> None:
        while not self._left:
            try:
                self._send({"beat": [self.num_programs, self.step]})
            except OSError:
                return  # `_listen` says so
            time.sleep(coordinator.BEAT_SECS)

    def end(self, message: str) -> None:
        """Ends this process: the main thread may wait for a computation that never ends."""
        print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(1)

    def barrier(
        self, name: str, timeout_secs: float | None, facts: Mapping[str, Any] | None
    ) -> None:
        message: dict[str, Any] = {"wait": name, "timeout_secs": timeout_secs}
        if facts is not None:
            message["facts"] = facts
        self._send(message)
        self._wait(lambda: name in self._passed)
        self._passed.discard(name)

    def leave(self, status: int, reason: str) -> None:
        self._left = True
        with contextlib.suppress(OSError):
            self._send({"leave": status, "reason": reason})


def _connect(host: str, port: int, config: ClusterConfig, address: str) -> socket.socket:
    timeout_secs, dead_secs = config.startup_secs, config.dead_secs
    deadline = time.monotonic() + timeout_secs
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=5)
            connection.settimeout(None)
            # The next beats stay unacknowledged when the other machine or the network is down.
            milliseconds = int(1000 * dead_secs)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            return connection
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"cannot reach the coordinator {address} within {timeout_secs:.0f} s "
                    f"({error}). Start process 0 on that machine, and let ports {port - 1} and "
                    f"{port} through."
                ) from error
            time.sleep(0.5)


# One per process, as JAX's own client is.
_connection: _Connection | None = None


def start(config: ClusterConfig) -> None:
    """Joins the run's processes; returns at once where there is one.

    Raises:
        UserError: the coordinator cannot be reached, or the flags do not fit.
    """
    global _connection
    address, count, number = config.coordinator, config.num_processes, config.process_id
    if address is None and config.detect:
        try:
            found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
                None, None, None, None, None, int(config.startup_secs)
            )
        except Exception as error:  # of the many clusters that JAX knows
            raise UserError(
                f"this machine looks like a part of a cluster, but JAX cannot read it ({error}). "
                "Give --coordinator=HOST:PORT --num_processes=N --process_id=I, or "
                "--distributed=off to run alone."
            ) from error
        address, count, number = found[:3]
        if address:  # JAX derives a port from SLURM's job; the next one must be a port too
            host, _, port = address.rpartition(":")
            address = f"{host}:{min(int(port), 65534)}"
    if address is None or count is None or number is None:
        return
    if count == 1 and config.coordinator is None:
        return
    if number == 0:
        _start_coordinator(config, address, count)
    _connection = _Connection(config, address, count, number)
    _share_devices(_connection)
    _connect_jax(config, address, count, number)


def _start_coordinator(config: ClusterConfig, address: str, count: int) -> None:
    command = [sys.executable, coordinator.__file__, f"--port={_port(address)}"]
    command += [f"--num_processes={count}", f"--startup_secs={config.startup_secs}"]
    command += [f"--dead_secs={config.dead_secs}", f"--hang_secs={config.hang_secs}"]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # stays open as long as this process lives
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C and a kill of our group must not reach it
    )
    assert child.stdout is not None
    if not child.stdout.readline():
        raise UserError(
            f"the coordinator cannot listen at port {_port(address)} or the next one of this "
            "machine; choose two free ports with --coordinator."
        )


def _share_devices(connection: _Connection) -> None:
    """Processes of one machine take one GPU each; a process alone on its machine takes all.

    A launcher may have divided them already, as SLURM's --gpus-per-task does: then each process
    sees fewer GPUs than there are processes, and takes all that it sees.
    """
    host = connection.hosts[connection.number]
    here = [i for i, name in enumerate(connection.hosts) if name == host]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    divided = visible is not None and len(visible.split(",")) < len(here)
    if len(here) > 1 and not divided:
        own = str(here.index(connection.number))
        jax.config.update("jax_cuda_visible_devices", own)
        jax.config.update("jax_rocm_visible_devices", own)


def _connect_jax(config: ClusterConfig, address: str, count: int, number: int) -> None:
    """What `jax.distributed.initialize` does, but for the service, which the coordinator holds."""
    state = jax_distributed.global_state
    state.coordinator_address, state.num_processes, state.process_id = address, count, number
    client = _jax.get_distributed_runtime_client(
        address,
        number,
        init_timeout=int(config.startup_secs),
        heartbeat_timeout=int(10 * config.dead_secs),
        use_compression=True,
    )
    client.connect()
    state.client = client


def watch_preemption() -> None:
    """From here on SIGTERM in any process makes `reached_preemption_sync_point` true in all."""
    state = jax_distributed.global_state
    if state.preemption_sync_manager is None:  # else `jax.distributed.initialize` made it
        state.initialize_preemption_sync_manager()


def num_processes() -> int:
    """Processes of the run; unlike `jax.process_count` it starts no backend.

    Also those of a program that called `jax.distributed.initialize` itself.
    """
    if _connection is not None:
        return _connection.count
    return jax_distributed.global_state.num_processes or 1


def barrier(name: str, timeout_secs: float | None = 600.0) -> None:
    """Waits until all processes are here; a time-out ends the run and names those that are not.

    `timeout_secs`: None waits as long as all processes live.
    """
    if _connection is not None:
        _connection.barrier(name, timeout_secs, None)
    elif num_processes() > 1:  # a program that called `jax.distributed.initialize` itself
        multihost_utils.sync_global_devices(name)


def agree(name: str, facts: Mapping[str, Any], timeout_secs: float = 600.0) -> None:
    """Waits for all processes and ends the run if one states other facts than process 0.

    Args:
        name: of the barrier.
        facts: JSON values by name; the first name that differs is reported.
        timeout_secs: see `barrier`.
    """
    if _connection is not None:
        facts = json.loads(json.dumps(dict(facts), default=str))
        _connection.barrier(name, timeout_secs, facts)


def is_first_process() -> bool:
    """Whether this is the process that writes files and prints; starts no backend."""
    if _connection is not None:
        return _connection.number == 0
    return not jax_distributed.global_state.process_id


def gather_json(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The JSON values of all processes, in order; every process must call this."""
    if jax.process_count() == 1:
        return [dict(value)]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray([text.size]))
    # A power of two, since each size is a program of its own.
    padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)
    padded[: text.size] = text
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(bytes(row[: int(size)])) for row, size in zip(rows, sizes.reshape(-1))]


def first_problem(problem: str) -> str:
    """The problem of the first process that has one; "" if none has. Every process must call this.

    What one process alone could not do, such as reading a file of its own machine, is thereby known
    to all: they would wait for it in their next computation, or compute something else with it.
    """
    problems = [one["problem"] for one in gather_json({"problem": problem})]
    first = next(filter(None, problems), "")
    is_of_all = all(one == first for one in problems)
    return first if is_of_all else f"process {problems.index(first)}: {first}"


@contextlib.contextmanager
def one_after_another(name: str, folder: pathlib.Path) -> Iterator[None]:
    """Runs the block first in one process of each group that shares a folder, then in the others.

    So what the block builds in the folder is built once where all processes share it, and once a
    machine where each machine has its own. A folder is shared if its processes see each other's
    files in it.
    """
    if _connection is None or _connection.count == 1:
        yield
        return
    leads = folder_leader(name, folder) == _connection.number
    if not leads:
        barrier(f"{name}: built", None)
    yield
    if leads:
        barrier(f"{name}: built", None)
    barrier(f"{name}: seen by all", None)


def folder_leader(name: str, folder: pathlib.Path) -> int:
    """The first of the processes that share an existing folder with this one."""
    if _connection is None or is_address(folder):  # all see the same bucket
        return 0
    marks = [folder / f".{_connection.run}-{i}" for i in range(_connection.count)]
    own = marks[_connection.number]
    own.touch()
    barrier(f"{name}: folder marked")
    leader = next(i for i, mark in enumerate(marks) if mark.exists())
    barrier(f"{name}: folder read")
    own.unlink(missing_ok=True)
    return leader


def report_progress(step: int | None = None) -> None:
    """Reports that this process dispatched one more program; `step`: of training.

    All processes dispatch the same programs, so one that hangs has reported fewer than the others.
    """
    if _connection is not None:
        _connection.num_programs += 1
        if step is not None:
            _connection.step = step


def leave(status: int, reason: str = "") -> None:
    """Says that this process ends; any status but 0 ends the others too.

    Then the process must end soon, without waiting for devices.
    """
    if _connection is not None:
        _connection.leave(status, reason)
