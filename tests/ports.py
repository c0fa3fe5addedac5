"""Ports for what tests start."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Iterator

# Below those that connections get (Linux: net.ipv4.ip_local_port_range begins at 32768).
_FIRST, _EACH, _WORKERS = 10_000, 2_750, 8


def _in_turn() -> Iterator[int]:
    """A pytest worker's own: what one has chosen, and not bound yet, is chosen by no other one."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    at = random.SystemRandom().randrange(_EACH)
    while True:
        yield _FIRST + _EACH * worker + at
        at = (at + 1) % _EACH


_ports = _in_turn()


def free_port() -> int:
    """A port that nobody has, and that the system gives to nobody who asks for any before it is used."""
    while True:
        port = next(_ports)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
