"""Ports for what tests start: each is kept for one run of the tests, whoever else runs some on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Below those that connections get (Linux: net.ipv4.ip_local_port_range begins at 32768).
_FIRST, _EACH, _WORKERS = 10_000, 2_750, 8
# A file for each port, locked by the process that chose it: a server that a test stops and starts again finds its port
# as it left it, and no other checkout's tests answer there meanwhile.
_CHOSEN = Path(tempfile.gettempdir()) / "kubebraid-test-ports"


def _in_turn() -> Iterator[int]:
    """A pytest worker's own range, so that workers seldom ask for the same port."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    at = random.SystemRandom().randrange(_EACH)
    while True:
        yield _FIRST + _EACH * worker + at
        at = (at + 1) % _EACH


_ports = _in_turn()
# Open as long as this process lives: closing them gives the locks back.
_locks: list[int] = []


def _chosen(port: int) -> bool:
    """Whether the port is this process' from now on."""
    _CHOSEN.mkdir(exist_ok=True)
    file = os.open(_CHOSEN / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return False
    _locks.append(file)
    return True


def free_port() -> int:
    """A port on which nobody listens, and that the system gives to nobody who asks for any before it is used."""
    while True:
        port = next(_ports)
        if not _chosen(port):
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
