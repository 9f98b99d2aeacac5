"""Free ports on loopback that stay free."""

from __future__ import annotations

import random
import socket

_LOW, _HIGH = (
    20_000,
    30_000,
)  # below the range that outgoing connections are given (32,768 on Linux), so that none takes a port that is down


def is_free(port: int) -> bool:
    """Whether a server could listen on that port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(number: int, *, wished: list[int] | None = None) -> list[int]:
    """So many different free ports: those of `wished` where they are free, else others by chance.

    Raises:
        OSError: none are free.
    """
    ports: list[int] = []
    for port in wished or []:
        if len(ports) < number and port not in ports and is_free(port):
            ports.append(port)
    for port in random.sample(range(_LOW, _HIGH), _HIGH - _LOW):
        if len(ports) == number:
            return ports
        if port not in ports and is_free(port):
            ports.append(port)
    if len(ports) == number:
        return ports
    raise OSError(f"no {number} free ports between {_LOW} and {_HIGH} on 127.0.0.1")
