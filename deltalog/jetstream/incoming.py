"""Incoming: what a connection's socket brings, in one buffer that is filled again and again.

asyncio's StreamReader allocates each piece that it reads, copies it into its buffer and out of it again. With 5 KB of
JSON for each object that costs a replay of the log a tenth of its time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

SIZE = 256 << 10
"""Bytes that are read at one go; the buffer is larger only while a message needs it."""

Take = Callable[[bytearray, memoryview, int], Awaitable[tuple[int, int]]]
"""Takes in the whole messages of a buffer, given with its view and how far it is filled.

Returns how many bytes were taken in, and how many there have to be behind them before it is worth looking again; 0: not
known. Slices of the buffer are to be copied: it is filled again.
"""


class Buffered:
    """Bytes that have come and were not all taken in, in one buffer."""

    def __init__(self) -> None:
        self._buffer = bytearray(SIZE)
        self._view = memoryview(self._buffer)
        self._filled = 0
        # So many were looked at already, and are not worth another look.
        self._looked_at = 0

    @property
    def held(self) -> int:
        """How many bytes are here that were not taken in. O(1)."""
        return self._filled

    def feed(self, data: bytes) -> None:
        """Adds what was read elsewhere."""
        # There is always room for more: asyncio takes a full buffer for an error.
        self._need(self._filled + len(data) + 1)
        self._view[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    async def hand_out(self, take: Take) -> None:
        """Has what has come taken in, if it is worth a look. More may come meanwhile."""
        limit = self._filled
        if limit <= self._looked_at:
            return
        at, due = await take(self._buffer, self._view, limit)
        rest = self._filled - at
        if at and rest:
            self._view[:rest] = self._view[at : self._filled]
        self._filled = rest
        if len(self._buffer) > SIZE >= max(rest + 1, due):
            self._resize(SIZE)
        self._need(max(due, rest + 1))
        # What came meanwhile was not looked at.
        self._looked_at = max(due - 1, limit - at)

    def _need(self, size: int) -> None:
        if size > len(self._buffer):
            self._resize(max(size, 2 * len(self._buffer)))

    def _resize(self, size: int) -> None:
        buffer = bytearray(size)
        buffer[: self._filled] = self._view[: self._filled]
        self._buffer, self._view = buffer, memoryview(buffer)


class Incoming(Buffered, asyncio.BufferedProtocol):
    """Reads a transport in place of the protocol that had it; all but the data goes on to that one.

    So a StreamWriter on the transport works on, as its flow control and its closing are that protocol's. `ended`: that
    one has heard that no more comes.
    """

    def __init__(self, transport: asyncio.Transport, *, ended: bool = False) -> None:
        super().__init__()
        self._transport = transport
        self._behind = transport.get_protocol()
        self._waiting: asyncio.Future[None] | None = None
        self._paused = False
        # A transport that is at its end says so once only.
        self._ended = ended or transport.is_closing()
        self._problem: Exception | None = None
        transport.set_protocol(self)

    async def read(self, take: Take) -> bool:
        """Waits until there is more, and has it taken in; False: nothing more will come.

        Raises:
            OSError: the connection broke.
        """
        while self._filled <= self._looked_at:
            if self._problem is not None:
                raise self._problem
            if self._ended:
                return False
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        await self.hand_out(take)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return True

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # -- what the transport calls ----------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled == len(self._buffer):
            self._paused = True
            self._transport.pause_reading()
        if self._filled > self._looked_at:
            self._wake()

    def eof_received(self) -> bool | None:
        self._ended = True
        self._wake()
        found: bool | None = self._behind.eof_received()  # type: ignore[attr-defined]
        return found

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._problem = exc
        self._wake()
        self._behind.connection_lost(exc)

    def pause_writing(self) -> None:
        self._behind.pause_writing()

    def resume_writing(self) -> None:
        self._behind.resume_writing()
