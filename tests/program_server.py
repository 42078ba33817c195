"""Programs for tests without their seconds of imports: each is a fork of a process that has them.

    python -m tests.program_server NAME

imports the project, prints "ready", and listens on the abstract Unix socket NAME until its standard
input ends, as a pipe does when whoever started the server dies. `client_text` is a script to call
`python`: its `run.py MODE ...` and `-m tests.MODULE ...` run in a fork of the server, with the
arguments, folder, environment and streams of the client, which passes on SIGTERM and SIGINT, and
ends as the program does: with its exit status or by its signal. A client that is killed takes its
program along.

Forking is sound as long as the server has one thread. It imports JAX and never computes: each
program starts JAX's threads, and reads XLA_FLAGS, for itself. What `JAX_*` variables say is read at
import, so they must be the server's. All forks have the server's hash seed (the same order of sets)
and find every module imported: a program that depends on the order, or lacks an import, may pass.
What start-up costs and imports, and that an order changes nothing, is tested by real starts.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys

_MODULES = (
    *(
        f"instruct.cli.{mode}"
        for mode in ("check", "prepare", "train", "eval", "infer")
        + ("serve", "convert", "show", "report", "study")
    ),
    "jax.experimental.multihost_utils",
    "reasoning_gym",
    "tests.data.toy",
    "tests.train.batches",
)


def client_text(name: str) -> str:
    """A script to call `python`: hands programs to the server NAME; Python runs anything else."""
    return f"""#!{sys.executable} -SE
import json, os, signal, socket, sys
ours = sys.argv[1:] and os.path.basename(sys.argv[1]) == "run.py"
if not ours and not (sys.argv[1:2] == ["-m"] and sys.argv[2].startswith("tests.")):
    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: server.send(b"%d" % number))
    server.connect("\\x00{name}")
    request = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [request], [0, 1, 2])
    status = int(server.recv(16))
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if status != -signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def serve(name: str) -> None:
    """Answers clients until standard input ends."""
    from instruct import peak
    from instruct.cli.settings import TASK_MODULES

    for module in (*_MODULES, *TASK_MODULES):
        importlib.import_module(module)
    peak.matmul_peak = lambda *_: 1e11  # measuring it takes longer than the runs
    gc.collect()
    gc.freeze()  # as in conftest.py
    gc.set_threshold(10_000)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(f"\0{name}")
        server.listen()
        threads = os.listdir("/proc/self/task")
        assert len(threads) == 1, "a process with threads cannot be forked safely"
        print("ready", flush=True)
        while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:
            connection, _ = server.accept()
            if not os.fork():
                server.close()
                _answer(connection)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _answer(connection: socket.socket) -> None:
    """Runs one program in a child process, sends its exit status, and exits."""
    request, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    child = os.fork()
    if not child:
        connection.close()
        _be_program(*json.loads(request), streams)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(child)
    while ended not in select.select([ended, connection], [], [])[0]:
        # A connection that closed: the client was killed.
        os.kill(child, int(connection.recv(16) or signal.SIGKILL))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.send(str(status).encode())
    os._exit(0)


def _be_program(
    arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]
) -> None:
    """Becomes the program that a client was asked for."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable, *sys.argv = arguments  # what the program starts are clients, too
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    serve(sys.argv[1])
