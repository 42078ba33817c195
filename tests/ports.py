"""Ports of this machine for processes that find each other by address."""

import random
import socket

# Below those that Linux gives to connections, and to servers that bind port 0.
_PORTS = range(20_000, 32_000, 2)
_taken: list[socket.socket] = []


def free_port() -> int:
    """A free port whose successor is free as well: the coordinator uses both.

    They stay free until the coordinator binds them: no other test on this machine gets them while
    this process lives, by a lock that is the name of a socket.
    """
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0instruct-tests-port-{port}")
            for number in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            lock.close()
            continue
        _taken.append(lock)
        return port
    raise AssertionError(f"no two free ports in {_PORTS}")
