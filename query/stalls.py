"""Stalls: a client that takes nothing of what it asked for is not waited for without end.

What is sent waits in the kernel's buffers, then in ours, then the sender waits; all that it holds stays until then. A
kube-apiserver ends such lists after 60 s (--request-timeout) and such watches when their buffer is full.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog
from aiohttp import web
from prometheus_client import Counter

log = structlog.get_logger("query.stalls")

# Seconds that one piece may take to be taken, and between two looks at all of them.
_PATIENCE = 60.0
_EVERY = 5.0

Send = Callable[[bytes], Awaitable[None]]


class Sending:
    """One answer under way. Noting when a piece begins is all that sending costs more."""

    __slots__ = ("_http", "_until", "since")

    def __init__(self, http: web.BaseRequest, until: float) -> None:
        self._http = http
        self._until = until
        self.since = math.inf

    def patiently(self, send: Send) -> Send:
        """`send`, for which nobody waits without end; it fails with a ConnectionError then."""

        async def sending(piece: bytes) -> None:
            self.since = time.monotonic()
            await send(piece)
            self.since = math.inf

        return sending

    def stalled(self, now: float, patience: float) -> bool:
        return now > self.since + patience or (now > self._until and self.since < now)

    def end(self) -> None:
        """Breaks the connection off, so that the client knows that this was not the end, and the sender fails."""
        if self._http.transport is not None:
            self._http.transport.abort()


class Stalls:
    """All answers under way of one service, which are looked at from time to time."""

    def __init__(self, count: Counter, patience: float = _PATIENCE, every: float = _EVERY) -> None:
        self._count = count
        self._patience = patience
        self._every = every
        self._open: set[Sending] = set()
        self._looking: asyncio.TimerHandle | None = None

    @contextmanager
    def watching(self, http: web.BaseRequest, timeout: float | None = None) -> Iterator[Sending]:
        """An answer that is sent in the block. `timeout`: seconds after which it should be over in any case."""
        one = Sending(http, math.inf if timeout is None else time.monotonic() + timeout + self._every)
        self._open.add(one)
        if self._looking is None:
            self._look_later()
        try:
            yield one
        finally:
            self._open.discard(one)

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(self._every, self._look)

    def _look(self) -> None:
        self._looking = None
        now = time.monotonic()
        stalled = [one for one in self._open if one.stalled(now, self._patience)]
        for one in stalled:
            # Once: what is aborted may take a while to notice.
            self._open.discard(one)
            one.end()
        if stalled:
            self._count.inc(len(stalled))
            log.info("clients that take nothing are left", clients=len(stalled))
        if self._open:
            self._look_later()
