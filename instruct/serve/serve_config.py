"""`ServeConfig`: address and limits of the server (gin: `serve_config.ServeConfig`)."""

import dataclasses
import ipaddress

from instruct.fields import bounded, check_fields


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """Where the server listens, and what it takes.

    Attributes:
        host: address of a network interface. Any but this machine's own (127.0.0.1, ::1,
            localhost) needs a token.
        port: 0 for a free one.
        queue_length: most prompts that wait while all slots decode; more are refused (503).
        request_secs: within which a request is answered, else it is given up (504).
        body_bytes: largest body of a request.
        chunk_steps: decoding steps between two looks at new requests; pieces of a stream are as
            long in tokens.
    """

    host: str = "127.0.0.1"
    port: int = bounded(8000, least=0, most=65535)
    queue_length: int = bounded(256, least=0)
    request_secs: float = bounded(300.0, above=0)
    body_bytes: int = bounded(1_000_000, least=1)
    chunk_steps: int = bounded(8, least=1)

    __post_init__ = check_fields


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own, which no other reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False
