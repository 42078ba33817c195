"""Ports of this machine for processes that find each other by address."""

import socket


def free_port() -> int:
    """A free port whose successor is free as well: the coordinator uses both."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
