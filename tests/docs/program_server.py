"""`python run.py` for a shell, without its seconds of imports.

    python -m tests.docs.program_server NAME

One process imports the project and prints "ready". Then each command that connects to the abstract
Unix socket NAME runs in a fork of it, with the arguments, folder, environment and streams of the
client (`client_text`), which exits with the status of the command.
"""

import contextlib
import importlib
import json
import os
import runpy
import socket
import sys

from instruct.cli.settings import TASK_MODULES

_MODES = (
    "check",
    "prepare",
    "train",
    "eval",
    "infer",
    "serve",
    "convert",
    "show",
    "report",
    "study",
)


def client_text(name: str) -> str:
    """A script to call `python`: hands `run.py` to the server NAME; Python runs anything else."""
    return f"""#!{sys.executable} -SE
import json, os, socket, sys
if len(sys.argv) < 2 or os.path.basename(sys.argv[1]) != "run.py":
    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect("\\x00{name}")
    request = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [request], [0, 1, 2])
    sys.exit(int(server.recv(16)))
"""


def serve(name: str) -> None:
    """Answers clients until the process is killed."""
    for module in (*(f"instruct.cli.{mode}" for mode in _MODES), *TASK_MODULES):
        importlib.import_module(module)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(f"\0{name}")
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            if not os.fork():
                server.close()
                _answer(connection)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _answer(connection: socket.socket) -> None:
    """Runs one command in a child process, sends its exit status, and exits."""
    request, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    arguments, folder, environment = json.loads(request)
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.send(str(status if status >= 0 else 128 - status).encode())
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable, *sys.argv = arguments  # a study's programs are clients, too
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
