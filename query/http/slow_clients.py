"""Slow clients: one that takes nothing of its answer is not waited for without end.

What is sent waits in the kernel's buffers, then in ours, then the sender waits; all that it holds stays until then. A
kube-apiserver ends such lists after 60 s (--request-timeout) and such watches when their buffer is full. Here all
connections are looked at from time to time until they are closed, whatever their requests: sending costs nothing more,
and any byte that arrives is progress, so that a slow line is no stall.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from aiohttp import web
from prometheus_client import Counter

log = structlog.get_logger("query.http.slow_clients")

# Where Linux tells how many bytes were acknowledged (linux/tcp.h: tcp_info.tcpi_bytes_acked).
_TCP_INFO = getattr(socket, "TCP_INFO", None)
_ACKED = struct.Struct("120xQ")


class _Connection:
    """`since`: when it was first seen in the state in which it is; infinite while nothing waits in it.

    `looks`: how many times it was seen in that state.
    """

    __slots__ = ("looks", "since", "taken", "tolerated")

    def __init__(self) -> None:
        self.looks = 0
        self.since = math.inf
        self.taken = 0
        self.tolerated = 0


class SlowClients:
    """All connections of one server; those that stall are aborted, and counted. Owned by the service.

    `patience`: seconds without a byte taken; `every`: seconds between two looks.
    """

    def __init__(self, count: Counter, patience: float, every: float) -> None:
        self._count = count
        self._patience = patience
        self._every = every
        self._open: dict[asyncio.Transport, _Connection] = {}
        self._looking: asyncio.TimerHandle | None = None

    def opened(self, transport: asyncio.Transport) -> None:
        """A connection was made: it is looked at from now on."""
        self._open[transport] = _Connection()
        if self._looking is None:
            self._look_later()

    def closed(self, transport: asyncio.Transport) -> None:
        """A connection is gone. One that is to be closed when everything is sent is not gone yet."""
        self._open.pop(transport, None)

    @contextmanager
    def tolerated(self, http: web.BaseRequest) -> Iterator[None]:
        """While an answer may wait for its client without end, as a container's log on a screen does."""
        one = None if http.transport is None else self._open.get(http.transport)
        if one is None:
            yield
            return
        one.tolerated += 1
        try:
            yield
        finally:
            one.tolerated -= 1
            one.since = math.inf

    def end(self, http: web.BaseRequest) -> None:
        """Aborts the connection of a client that is not waited for any more; it sees that this was no proper end."""
        if http.transport is not None:
            self._break_off(http.transport)

    def _break_off(self, transport: asyncio.Transport) -> None:
        # Once: what is aborted may take a while to notice.
        self.closed(transport)
        self._count.inc()
        _forget_unsent(transport)
        transport.abort()

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(self._every, self._look)

    def _look(self) -> None:
        self._looking = None
        now = asyncio.get_running_loop().time()
        stalled = [transport for transport, one in self._open.items() if self._is_stalled(transport, one, now)]
        for transport in stalled:
            self._break_off(transport)
        if stalled:
            log.info("clients that take nothing are left", clients=len(stalled))
        if self._open:
            self._look_later()

    def _is_stalled(self, transport: asyncio.Transport, one: _Connection, now: float) -> bool:
        if one.tolerated or not transport.get_write_buffer_size():
            one.since = math.inf
            return False
        taken = _taken(transport)
        if one.since == math.inf or taken > one.taken:
            one.since, one.looks = now, 0
        one.taken = taken
        one.looks += 1
        # A process that stood still itself, on a busy machine, has not seen whether the client took anything.
        return now >= one.since + self._patience and one.looks * self._every * 2 >= self._patience


@contextmanager
def _socket(transport: asyncio.Transport) -> Iterator[socket.socket | None]:
    """The transport's socket with all its options, which loops hide."""
    own = transport.get_extra_info("socket")
    if own is None or own.fileno() < 0:
        yield None
        return
    found = socket.socket(fileno=own.fileno())
    try:
        yield found
    finally:
        found.detach()


def _taken(transport: asyncio.Transport) -> int:
    """A number that grows when the client takes something."""
    if _TCP_INFO is not None:
        try:
            with _socket(transport) as own:
                if own is not None:
                    acked: int = _ACKED.unpack_from(own.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256))[0]
                    return acked
        except (OSError, struct.error):
            pass
    # Seen from here, only what leaves our buffer for the kernel's.
    return -transport.get_write_buffer_size()


def _forget_unsent(transport: asyncio.Transport) -> None:
    """Has the kernel drop what it could not send, megabytes maybe, instead of trying on."""
    try:
        with _socket(transport) as own:
            if own is not None:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
